"""The heartbeat, read back from what the feed itself writes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hindsight.exchange.heartbeat import read_beat
from hindsight.settings import load

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


def test_what_the_feed_writes_is_read_back(tmp_path: Path, beat: Callable[..., None]):
    settings = load(home=tmp_path, symbols=("ETH/USDT",))
    beat(settings, NOW, states={"ETH/USDT trades": "down"}, lasting=30)
    found = read_beat(settings.heartbeat_path)
    assert found is not None
    assert set(found.parts) == {"simulated ETH/USDT 1m candles", "ETH/USDT trades", "ETH/USDT order_book"}
    down = found.parts["ETH/USDT trades"]
    assert (down.state, down.messages, down.reconnects, down.refused) == ("down", 1, 0, {})
    assert found.here_ms(NOW) - down.since_ms == 30_000


def test_its_age_counts_in_seconds_of_this_machine_however_fast_the_venue_runs(
    tmp_path: Path, beat: Callable[..., None]
):
    settings = load(home=tmp_path, venue_speed=60)
    beat(settings, NOW)
    found = read_beat(settings.heartbeat_path)
    assert found is not None
    assert found.age_seconds(NOW + timedelta(minutes=2)) == 2


def test_no_heartbeat_and_one_that_cannot_be_read_are_none(tmp_path: Path):
    path = tmp_path / "feed.json"
    assert read_beat(path) is None
    path.write_text('{"pid": 1, "parts"')
    assert read_beat(path) is None
    path.write_text('{"pid": 1}')
    assert read_beat(path) is None
