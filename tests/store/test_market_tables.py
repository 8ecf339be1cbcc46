"""Gaps, refused candles, pivots and the marks between pivots, as tables."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from hindsight.market.candles import REFUSED, first_delivery
from hindsight.market.pivots import PIVOTS
from hindsight.market.streams import Stream, Window
from hindsight.store import market_tables as tables
from hindsight.store.deliveries import write_candles
from hindsight.store.warehouse import Warehouse

STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
MINUTE = timedelta(minutes=1)
START = datetime(2024, 1, 31, 23, 50, tzinfo=UTC)
ALWAYS = Window(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))


def write(warehouse: Warehouse, *minutes: int) -> list[tuple[int, int]]:
    """Stores quiet candles that open so many minutes after START; the gaps then, as (first minute, length)."""
    opens = pl.Series([START + minute * MINUTE for minute in minutes])
    prices = {name: pl.lit(100.0) for name in ("open", "high", "low", "close")}
    frame = first_delivery(opens.to_frame("open_time").with_columns(**prices, volume=pl.lit(0.0)), STREAM)
    with warehouse.writing() as con:
        written = write_candles(con, STREAM, frame, START)
        if written.span is not None:
            tables.find_gaps_again(con, STREAM, written.span)
        gaps = tables.read_gaps(con, STREAM, ALWAYS)
    assert (gaps["end_time"] - gaps["start_time"] == gaps["candles"] * MINUTE).all()
    assert (gaps["known_at"] == gaps["end_time"] + MINUTE).all()
    return [((start - START) // MINUTE, candles) for start, candles in gaps.select("start_time", "candles").rows()]


def test_a_gap_is_found_inside_a_delivery_and_between_two_of_them(warehouse: Warehouse):
    assert write(warehouse, 0, 1, 4) == [(2, 2)]
    assert write(warehouse, 6) == [(2, 2), (5, 1)]


def test_a_gap_across_the_border_of_a_month_is_one_gap(warehouse: Warehouse):
    assert write(warehouse, 0, 1, 2) == []
    assert write(warehouse, 40, 41) == [(3, 37)]


@pytest.mark.parametrize(
    ("filled", "left"),
    [
        pytest.param([1, 2, 3, 4, 5, 6], [], id="whole"),
        pytest.param([1, 2], [(3, 4)], id="its start"),
        pytest.param([5, 6], [(1, 4)], id="its end"),
        pytest.param([3], [(1, 2), (4, 3)], id="its middle: two gaps"),
    ],
)
def test_a_hole_filled_later_leaves_the_gaps_that_are_left(warehouse: Warehouse, filled: list[int], left):
    assert write(warehouse, 0, 7, 8, 10) == [(1, 6), (9, 1)]
    assert write(warehouse, *filled) == [*left, (9, 1)]
    assert write(warehouse, *filled) == [*left, (9, 1)]


def test_history_put_before_what_is_stored_brings_the_gap_between_them(warehouse: Warehouse):
    assert write(warehouse, 10, 11) == []
    assert write(warehouse, 0, 2) == [(1, 1), (3, 7)]


def test_a_refused_candle_is_noted_once_with_its_reason(warehouse: Warehouse):
    refused = pl.DataFrame(
        {"open_time": [START, START, None], "reason": ["negative volume", "negative volume", "no open_time"]},
        schema_overrides={"open_time": REFUSED["open_time"]},
    ).with_columns(found=pl.lit("volume -1"))
    for written in (2, 0):
        with warehouse.writing() as con:
            assert tables.append_refused(con, STREAM, refused, START) == written
    with warehouse.reading() as con:
        rows = con.execute("select open_time, reason, refused_at from refused_candles order by reason").fetchall()
    assert rows == [(START, "negative volume", START), (None, "no open_time", START)]


def test_one_mark_is_kept_per_month_and_the_end_of_a_month_belongs_to_it(warehouse: Warehouse):
    moments = [
        datetime(2024, 1, 15, tzinfo=UTC),
        datetime(2024, 2, 1, tzinfo=UTC),
        datetime(2024, 2, 1, 0, 1, tzinfo=UTC),
        datetime(2024, 2, 7, tzinfo=UTC),
    ]
    with warehouse.writing() as con:
        assert tables.pivot_mark(con, STREAM) is None
        for number, moment in enumerate(moments):
            mark = tables.PivotMark(since=START, as_of=moment, state=bytes([number]))
            tables.write_pivot_mark(con, STREAM, mark)
            assert tables.pivot_mark(con, STREAM) == mark
        kept = con.execute("select as_of from pivot_states order by as_of").fetchall()
    assert kept == [(moments[1],), (moments[3],)]


def test_pivots_come_back_as_they_were_appended(warehouse: Warehouse):
    pivot = {
        "level": 1,
        "side": "high",
        "pivot_type": "L1H",
        "pivot_time": START,
        "price": 100.0,
        "strength": 1.5,
        "confirmed_at": START + 2 * MINUTE,
        "candles_left": 1,
        "candles_right": 1,
        "warmup": False,
        "after_gap": False,
        "rule_version": 1,
    }
    low = {**pivot, "side": "low", "pivot_type": "L1L"}
    later = {**pivot, "confirmed_at": START + 5 * MINUTE}
    frame = pl.DataFrame([low, pivot, later], schema=PIVOTS)
    with warehouse.writing() as con:
        tables.append_pivots(con, STREAM, frame)
        assert tables.read_pivots(con, STREAM, ALWAYS).equals(frame)
        early = Window(start=START, end=START + 5 * MINUTE)
        assert tables.read_pivots(con, STREAM, early).equals(frame[:2])
