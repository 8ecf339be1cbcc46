"""How far the live path has come, against ten plain lines; and the instants of every stage."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pytest

from hindsight.market.streams import Stream
from hindsight.settings import Settings
from hindsight.store.standings import read_standings
from hindsight.store.timings import lateness, note
from hindsight.store.warehouse import Warehouse

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="binance", symbol="BTC/USDT", timeframe="1s")


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=tmp_path / "hindsight.duckdb", lock_timeout_seconds=5)


def note_closes(warehouse: Warehouse, stream: Stream, seconds: list[float]) -> None:
    """One close after another up to NOW, each stored so many seconds after it."""
    with warehouse.writing() as con:
        for back, late in enumerate(reversed(seconds)):
            close = NOW - back * stream.step
            note(con, stream, "", "stored", [close], close + timedelta(seconds=late))


def test_an_empty_warehouse_has_come_nowhere(warehouse: Warehouse):
    with warehouse.reading() as con:
        found = read_standings(con, [ETH, BTC], [(ETH, "transformer"), (BTC, "transformer")], NOW, 1.0)
    assert [(each.stream, each.close, each.stored) for each in found.streams] == [(ETH, None, None), (BTC, None, None)]
    assert {each.until for each in found.learners} == {None}
    assert [str(each) for each in found.books] == ["binance ETH/USDT", "binance BTC/USDT"]


def test_lateness_is_that_of_plain_sorting(warehouse: Warehouse):
    seconds = [0.2 + 0.01 * (n * 7 % 50) for n in range(50)]
    note_closes(warehouse, ETH, seconds)
    with warehouse.reading() as con:
        (stored,) = [each.stored for each in read_standings(con, [ETH], [], NOW, 1.0).streams]
    assert stored is not None
    ordered = sorted(seconds)
    assert stored.closes == 50
    assert stored.newest == pytest.approx(seconds[-1])
    assert stored.recent == pytest.approx(min(seconds[-3:]))
    assert stored.p50 == pytest.approx(median(seconds))
    assert stored.p95 == pytest.approx(ordered[46] + 0.55 * (ordered[47] - ordered[46]))
    assert ordered[48] <= stored.p99 <= ordered[49]


def test_each_timeframe_is_looked_back_on_as_far_as_it_needs(warehouse: Warehouse):
    note_closes(warehouse, ETH, [1.0] * 100)
    note_closes(warehouse, BTC, [2.0] * 1000)
    with warehouse.reading() as con:
        eth, btc = (each.stored for each in read_standings(con, [ETH, BTC], [], NOW, 1.0).streams)
    assert eth is not None
    assert btc is not None
    assert (eth.closes, eth.newest) == (61, 1.0)  # sixty candles and the one at the edge
    assert (btc.closes, btc.newest) == (601, 2.0)


def test_seconds_are_those_of_this_machine_however_fast_the_venue_runs(warehouse: Warehouse):
    note_closes(warehouse, ETH, [30.0] * 5)
    with warehouse.reading() as con:
        (stored,) = [each.stored for each in read_standings(con, [ETH], [], NOW, 60.0).streams]
    assert stored is not None
    assert (stored.newest, stored.recent, stored.p95) == (0.5, 0.5, 0.5)


def test_an_outage_that_is_over_counts_as_one_late_pass(warehouse: Warehouse):
    """Ten closes caught up with at once; before three passes nothing can be said."""
    with warehouse.writing() as con:
        note(con, ETH, "", "stored", [NOW - 30 * MINUTE], NOW - 30 * MINUTE + timedelta(seconds=1))
    with warehouse.reading() as con:
        assert lateness(con, NOW - 60 * MINUTE)["recent_seconds"].to_list() == [None]
    with warehouse.writing() as con:
        note(con, ETH, "", "stored", [NOW - 29 * MINUTE], NOW - 29 * MINUTE + timedelta(seconds=1))
        note(con, ETH, "", "stored", [NOW - n * MINUTE for n in range(10, 20)], NOW - 9.5 * MINUTE)
    with warehouse.reading() as con:
        assert lateness(con, NOW - 60 * MINUTE)["recent_seconds"].to_list() == [1.0]
        assert lateness(con, NOW - 60 * MINUTE)["slowest"].to_list() == [9.5 * 60]


def test_models_stand_where_the_tables_of_learning_stand(learned_home: Settings, table: Callable):
    stream = learned_home.streams[0]
    candles = table(learned_home, "candles", "open_time")
    end = candles["open_time"].max() + stream.step
    with Warehouse(path=learned_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
        found = read_standings(con, learned_home.streams, learned_home.learners, end, 1.0)
    (standing,), (one,) = found.streams, found.learners
    steps, checkpoints = table(learned_home, "training_steps", "step"), table(learned_home, "checkpoints", "event_time")
    assert standing.close == end
    assert standing.stored is None  # a backfill is late by nature
    assert one.until == end
    assert one.predicted_at == table(learned_home, "inference_references", "made_at")["made_at"].max()
    assert one.stepped_at == steps["event_time"].max()
    assert one.step_age == len(candles.filter(candles["open_time"] >= steps["event_time"].max()))
    (latest,) = checkpoints.filter(checkpoints["is_latest"]).iter_rows(named=True)
    assert one.checkpoint_age == len(candles.filter(candles["open_time"] >= latest["event_time"]))


def test_what_a_model_works_through_when_it_starts_is_not_late(warehouse: Warehouse):
    """Its history was never stored live."""
    note_closes(warehouse, ETH, [0.3] * 3)
    with warehouse.writing() as con:
        note(con, ETH, "transformer", "predicted", [NOW - n * MINUTE for n in range(40)], NOW + timedelta(seconds=1))
    with warehouse.reading() as con:
        (one,) = read_standings(con, [ETH], [(ETH, "transformer")], NOW, 1.0).learners
    assert one.predicted is not None
    assert (one.predicted.closes, one.predicted.p50) == (3, 61.0)
