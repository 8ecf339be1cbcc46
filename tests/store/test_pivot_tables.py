"""The pivots of a window and the newest of each type before it, read back as any plain filter would find them."""

from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

from hindsight.market.candles import TIME
from hindsight.market.pivots import PivotState, advance
from hindsight.market.streams import Stream, Window
from hindsight.store.market_tables import append_pivots
from hindsight.store.pivot_tables import pivots_before
from hindsight.store.tape_changes import pivots_for
from hindsight.store.warehouse import Warehouse

START = datetime(2024, 1, 31, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="binance", symbol="BTC/USDT", timeframe="1m")


def pivots_of(seed: int, count: int = 1500, grain: float = 0.0, holes: int = 0) -> pl.DataFrame:
    """All pivots of a random walk, in the order of their confirmation; with a grain, prices are multiples of it."""
    chance = np.random.default_rng(seed)
    close = 300 + chance.normal(size=count).cumsum()
    high, low = close + chance.random(count), close - chance.random(count)
    if grain:
        high, low = (np.round(price / grain) * grain for price in (high, low))
    candles = pl.DataFrame(
        {
            "open_time": pl.datetime_range(START, START + (count - 1) * MINUTE, MINUTE, eager=True).cast(TIME),
            "open": np.concatenate([close[:1], close[:-1]]),
            "high": high,
            "low": low,
            "close": close,
            "atr_14": np.ones(count),
        }
    )
    there = np.ones(count, bool)
    for first in chance.integers(0, count, holes).tolist():
        there[first : first + 60] = False
    return advance(PivotState.initial(), candles.filter(there), MINUTE, max_gap=3)[1]


@pytest.fixture
def con(warehouse: Warehouse):
    """A warehouse with the pivots of two streams."""
    with warehouse.writing() as con:
        append_pivots(con, ETH, pivots_of(0))
        append_pivots(con, BTC, pivots_of(1))
    with warehouse.reading() as con:
        yield con


def by_plain_filters(pivots: pl.DataFrame, window: Window, count: int) -> pl.DataFrame:
    inside = pivots.filter(pl.col("confirmed_at").is_between(window.start, window.end, closed="right"))
    before = pivots.filter(pl.col("confirmed_at") <= window.start).group_by("pivot_type", maintain_order=True)
    return pl.concat([before.tail(count).select(pivots.columns).sort("confirmed_at", maintain_order=True), inside])


@pytest.mark.parametrize("count", [1, 2, 4, 9])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(0, 1500, id="all there are"),
        pytest.param(700, 1300, id="some of them"),
        pytest.param(1200, 1200, id="none inside"),
        pytest.param(1600, 1700, id="none inside, all before"),
        pytest.param(-90, -30, id="none at all"),
        pytest.param(5, 30, id="few before"),
    ],
)
def test_they_are_those_of_the_window_and_the_newest_of_each_type_before_it(
    con: duckdb.DuckDBPyConnection, start: int, end: int, count: int
) -> None:
    window = Window(start=START + start * MINUTE, end=START + end * MINUTE)
    found = pivots_before(con, ETH, window, count)
    expected = by_plain_filters(pivots_of(0), window, count)
    key = ("confirmed_at", "pivot_type")  # of those that one close confirmed, the order is looked at below
    assert found.select(expected.columns).cast(expected.schema).sort(key).equals(expected.sort(key))
    assert found["emitted"].is_sorted()
    assert set(found["symbol"]) <= {ETH.symbol}


@pytest.mark.parametrize("seed", range(6))
def test_however_far_back_history_goes_they_are_those_of_a_plain_filter(warehouse: Warehouse, seed: int) -> None:
    """Prices often equal, holes of an hour, and windows with few of level 5 before them and with many."""
    chance = np.random.default_rng(seed)
    pivots = pivots_of(seed, 12_000, grain=(0.0, 0.5, 2.0)[seed % 3], holes=seed % 2 * 9)
    with warehouse.writing() as con:
        append_pivots(con, ETH, pivots)
    key = ("confirmed_at", "pivot_type")
    with warehouse.reading() as con:
        for start, length, count in chance.integers((0, 0, 1), (13_000, 300, 9), (25, 3)).tolist():
            window = Window(start=START + start * MINUTE, end=START + (start + length) * MINUTE)
            found = pivots_before(con, ETH, window, count)
            expected = by_plain_filters(pivots, window, count)
            assert found.select(expected.columns).cast(expected.schema).sort(key).equals(expected.sort(key))
    assert pivots["level"].max() == 5


def test_they_stand_in_the_order_of_their_confirmation(con: duckdb.DuckDBPyConnection) -> None:
    everything = pivots_before(con, ETH, Window(start=START, end=START + 1500 * MINUTE), 4)
    for name in ("pivot_type", "pivot_time", "confirmed_at"):
        assert everything[name].to_list() == pivots_of(0)[name].to_list()


def test_one_of_each_type_is_what_the_tape_of_candles_reads(con: duckdb.DuckDBPyConnection) -> None:
    window = Window(start=START + 900 * MINUTE, end=START + 1000 * MINUTE)
    assert pivots_before(con, BTC, window, 1).equals(pivots_for(con, BTC, window))


def test_nothing_confirmed_after_the_window_is_read(con: duckdb.DuckDBPyConnection) -> None:
    """Trap 1."""
    for end in range(200, 1500, 130):
        window = Window(start=START + (end - 100) * MINUTE, end=START + end * MINUTE)
        found = pivots_before(con, ETH, window, 4)
        assert found["confirmed_at"].max() <= window.end


def test_a_stream_without_pivots_has_none(con: duckdb.DuckDBPyConnection) -> None:
    other = Stream(venue="kraken", symbol="ETH/USDT", timeframe="1m")
    assert pivots_before(con, other, Window(start=START, end=START + 1500 * MINUTE), 4).is_empty()
