"""A part of the feed: how long it waits, when it counts as silent, and what the log says of what it refused."""

import logging
from random import Random

import pytest

from hindsight.errors import MessageRefused
from hindsight.exchange.feed.part import FIRST_WAIT, LONGEST_PATIENCE, LONGEST_WAIT, Part, Times
from hindsight.exchange.feed.reasons import Reason


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def part(now: list[float]) -> Part:
    return Part("binance ETH/USDT 1m candles", Times(lambda: now[0], lambda: int(now[0] * 1000), Random(5)))


def test_waits_double_with_jitter_up_to_a_longest_one(part: Part) -> None:
    waits = [[part.times.backoff(failures) for _ in range(200)] for failures in range(12)]
    for failures, drawn in enumerate(waits):
        middle = min(LONGEST_WAIT, FIRST_WAIT * 2**failures)
        assert middle * 0.5 <= min(drawn) < max(drawn) <= middle * 1.5
        assert max(drawn) - min(drawn) > middle * 0.5


def test_the_first_message_after_failures_makes_the_next_wait_a_short_one(part: Part) -> None:
    for _ in range(8):
        part.lost("refused")
    part.heard()
    part.lost("gone")
    assert part.times.backoff(part.failures - 1) <= FIRST_WAIT * 1.5


def test_what_is_refused_is_counted_by_one_of_a_few_reasons_whatever_the_venue_said(part: Part) -> None:
    for number in range(500):
        part.refuse(MessageRefused(f"nobody asked for {number}", Reason.NOT_ASKED_FOR), number)
    assert part.shown()["refused"] == {"nobody asked for it": 500}
    with pytest.raises(ValueError, match="anything"):
        part.refuse(MessageRefused("anything", "anything"), 1)


def test_a_part_is_silent_after_the_setting_and_more_patiently_the_more_often_in_vain(
    part: Part, now: list[float]
) -> None:
    part.heard()
    now[0] += 19
    assert not part.is_silent(20)
    now[0] += 2
    assert part.is_silent(20)
    for failures in range(1, 10):
        part.lost("silent")
        part.heard_at = now[0]
        patience = 20 * min(LONGEST_PATIENCE, 2 ** (failures - 1))
        now[0] += patience - 1
        assert not part.is_silent(20)
        now[0] += 2
        assert part.is_silent(20)
    part.heard()
    now[0] += 21
    assert part.is_silent(20)


def test_what_is_shown_says_since_when_and_how_old(part: Part, now: list[float]) -> None:
    part.heard()
    now[0] += 1.5
    shown = part.shown()
    assert (shown["state"], shown["since_ms"], shown["age_ms"], shown["messages"]) == ("connected", 100_000, 1500, 1)
    part.lost("gone")
    assert (part.shown()["state"], part.shown()["since_ms"], part.reconnects) == ("down", 101_500, 1)


def test_a_flood_of_malformed_messages_is_counted_whole_and_logged_ever_less(
    part: Part, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        part.refuse(MessageRefused("no JSON", Reason.NO_JSON), "{" * 5000)
    assert part.refused == {"no JSON": 1000}
    assert len(caplog.messages) == 3 + 8  # 1, 2, 3, 4, 8, 16 ... 512
    assert all(len(message) < 500 for message in caplog.messages)


def test_a_venue_that_stays_away_is_told_of_once(part: Part, caplog: pytest.LogCaptureFixture) -> None:
    part.heard()
    for _ in range(10):
        part.lost("refused")
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
