"""What `hindsight up` tells the feed and the venue before it starts them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from hindsight.exchange.heartbeat import note_wanted
from hindsight.health.report import health
from hindsight.market.streams import to_ms
from hindsight.settings import Settings
from pipelines.up.feeding import VENUE_URL, has_venue, market_parts, note_positions


def test_the_feed_is_told_how_far_each_stream_is_stored(
    venue_home: Settings, copy_home: Callable[..., Settings], table: Callable[..., pl.DataFrame]
) -> None:
    settings = copy_home(venue_home)
    last = table(settings, "candles", "open_time")["open_time"].max()
    assert note_positions(settings) == {str(settings.streams[0]): to_ms(last)}
    assert json.loads((settings.landing_path / "resume.json").read_text()) == note_positions(settings)
    assert [path.name for path in settings.landing_path.iterdir()] == ["resume.json"]


def test_a_venue_that_starts_again_has_its_address_and_its_clock_has_gone_on(
    venue_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = copy_home(venue_home, venue_speed=1000.0)
    monkeypatch.setenv(VENUE_URL, "")
    venue, feed = market_parts(settings, print)
    assert not feed.is_wanted()
    first = dict(zip(*[iter(venue.command()[4:])] * 2, strict=True))
    assert first["--port"] == "0"
    assert datetime.fromisoformat(first["--start"]) >= datetime.now(UTC) - timedelta(minutes=1)

    venue.heard("venue at http://127.0.0.1:8123")
    assert feed.is_wanted()
    assert has_venue(settings)
    again = dict(zip(*[iter(venue.command()[4:])] * 2, strict=True))
    assert again["--port"] == "8123"
    assert again["--start"] > first["--start"]


@pytest.mark.parametrize(
    ("source", "url", "names"),
    [
        pytest.param("archive:somewhere", "", [], id="an archive has nothing new"),
        pytest.param("ccxt:binance", "", ["feed"], id="a real venue is there already"),
        pytest.param("simulated", "http://127.0.0.1:1", ["feed"], id="a venue of one's own"),
        pytest.param("simulated", "", ["venue", "feed"], id="the simulated one"),
    ],
)
def test_what_a_source_needs(venue_home: Settings, source: str, url: str, names: list[str]) -> None:
    settings = venue_home.model_copy(update={"source": source, "venue_url": url})
    assert [part.name for part in market_parts(settings, print)] == names


def test_where_no_feed_is_to_run_a_dead_one_calls_nobody_until_the_next_one_runs(
    venue_home: Settings, copy_home: Callable[..., Settings], beat: Callable[..., None]
) -> None:
    settings, noon = copy_home(venue_home), datetime(2024, 3, 2, 12, tzinfo=UTC)

    def look(minutes: int) -> list[tuple[str, bool]]:
        found = health(settings, noon + timedelta(minutes=minutes)).findings
        return [(each.verdict, each.needs_a_person) for each in found if each.kind in ("feed", "connection", "candles")]

    note_wanted(settings.heartbeat_path, is_wanted=False)
    assert not settings.heartbeat_path.exists()
    beat(settings, noon)
    assert ("dead", True) in look(minutes=5)
    note_wanted(settings.heartbeat_path, is_wanted=False)
    assert set(look(minutes=5)) == {("off", False)}
    note_wanted(settings.heartbeat_path, is_wanted=True)  # also where the next one never gets as far as a heartbeat
    assert ("dead", True) in look(minutes=5)
    note_wanted(settings.heartbeat_path, is_wanted=False)
    beat(settings, noon)
    assert ("dead", True) in look(minutes=5)
