"""What is made of the heartbeat, of each connection, and of the disk."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hindsight.exchange.heartbeat import Beat, read_beat
from hindsight.health.findings import Finding, Now
from hindsight.health.judge_feed import judge_feed, judge_home, judge_part
from hindsight.settings import load

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
PART = "ETH/USDT trades"


@pytest.fixture
def beat_of(tmp_path: Path, beat: Callable[..., None]) -> Callable[..., Beat]:
    """The heartbeat that the feed would write at NOW."""

    def write(**how: object) -> Beat:
        settings = load(home=tmp_path, symbols=("ETH/USDT",))
        beat(settings, NOW, **how)
        found = read_beat(settings.heartbeat_path)
        assert found is not None
        return found

    return write


def now(seconds: float = 0.5) -> Now:
    return Now(at=NOW + timedelta(seconds=seconds), speed=1.0, late_seconds=10.0)


def judged(finding: Finding) -> tuple[str, bool]:
    return finding.verdict, finding.needs_a_person


def part(beat: Beat, name: str = PART, *, seconds: float = 0.5) -> Finding:
    return judge_part(name, beat, judge_feed(beat, now(seconds)), now(seconds))


def test_a_feed_that_writes_its_heartbeat_is_alive(beat_of: Callable[..., Beat]):
    found = judge_feed(beat_of(), now())
    assert judged(found) == ("ok", False)
    assert found.figures["age"] == 0.5


def test_rows_that_the_feed_had_no_room_for_are_told_by_kind(beat_of: Callable[..., Beat]):
    found = judge_feed(beat_of(lost={"order_book": 7, "trades": 2}), now())
    assert found.sentence == "It runs; rows lost for want of room: 7 order_book, 2 trades."
    assert found.figures["lost_rows"] == 9


def test_what_a_part_refused_is_told_by_reason(beat_of: Callable[..., Beat]):
    found = part(beat_of(refused={"not json": 2, "negative size": 1}))
    assert (found.figures["refused"], found.figures["refusals"]) == (3, "2 not json, 1 negative size")


def test_a_feed_that_stopped_writing_is_dead_and_says_how_it_is_started(beat_of: Callable[..., Beat]):
    found = judge_feed(beat_of(), now(300))
    assert judged(found) == ("dead", True)
    assert "5 min ago" in found.sentence
    assert "hindsight up" in found.sentence


def test_a_feed_that_never_reaches_the_venue_is_starting_for_a_minute_and_dead_then(beat_of: Callable[..., Beat]):
    assert judged(judge_feed(beat_of(states={}, started=5), now())) == ("late", False)
    assert judged(judge_feed(beat_of(states={}, started=90), now())) == ("dead", True)


def test_a_heartbeat_that_cannot_be_read_is_not_taken_for_a_home_that_was_never_live():
    assert judged(judge_feed(None, now())) == ("dead", True)


@pytest.mark.parametrize(
    ("state", "lasting", "verdict"),
    [
        pytest.param("connected", 900, ("ok", False), id="connected"),
        pytest.param("down", 20, ("late", False), id="connecting anew"),
        pytest.param("down", 90, ("dead", True), id="down for long"),
        pytest.param("silent", 20, ("late", False), id="silent"),
        pytest.param("silent", 90, ("dead", True), id="silent for long"),
        pytest.param("filling", 90, ("late", False), id="fetching what was missed"),
        pytest.param("filling", 400, ("late", True), id="fetching for suspiciously long"),
    ],
)
def test_a_part_is_judged_by_its_state_and_how_long_it_lasts(
    beat_of: Callable[..., Beat], state: str, lasting: float, verdict: tuple[str, bool]
):
    assert judged(part(beat_of(states={PART: state}, lasting=lasting))) == verdict


def test_where_the_feed_is_dead_its_parts_are_and_call_nobody_else(beat_of: Callable[..., Beat]):
    assert judged(part(beat_of(), seconds=60)) == ("dead", False)
    assert judged(judge_part(PART, None, judge_feed(None, now()), now())) == ("dead", False)


def test_a_part_that_the_settings_name_and_the_feed_does_not_know_asks_for_a_restart(beat_of: Callable[..., Beat]):
    found = part(beat_of(), "simulated ETH/USDT 5m candles")
    assert judged(found) == ("dead", True)
    assert "restart" in found.sentence


def test_a_disk_is_called_about_before_it_is_full():
    verdicts = [judged(judge_home(free, 0)[0]) for free in (50 * 2**30, 500 * 2**20, 50 * 2**20)]
    assert verdicts == [("ok", False), ("late", True), ("dead", True)]


def test_segments_that_were_set_aside_wait_for_a_person():
    assert judged(judge_home(2**40, 0)[1]) == ("ok", False)
    found = judge_home(2**40, 2)[1]
    assert judged(found) == ("late", True)
    assert "landing/refused/" in found.sentence
