"""Frames into tables and back."""

from datetime import UTC, datetime

import polars as pl
import pytest

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.store.rows import in_order, insert, select, select_with, stream_key
from hindsight.store.warehouse import Warehouse

STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
NOON = datetime(2024, 7, 1, 12, tzinfo=UTC)
GAP = pl.DataFrame(
    {"known_at": [NOON], "start_time": [NOON], "end_time": [NOON], "candles": [3]},
    schema_overrides={name: TIME for name in ("known_at", "start_time", "end_time")},
)
WITH_STREAM = GAP.select(*(pl.lit(value).alias(name) for name, value in stream_key(STREAM).items()), pl.all())


def test_rows_come_back_as_they_went_in_whatever_the_order_of_columns(warehouse: Warehouse):
    with warehouse.writing() as con:
        assert insert(con, "gaps", GAP, STREAM) == 1
        assert insert(con, "gaps", WITH_STREAM) == 1
        assert insert(con, "gaps", GAP.clear(), STREAM) == 0
    with warehouse.reading() as con:
        back = select(
            con, "select * from gaps where start_time = $noon and symbol = $symbol", noon=NOON, symbol="ETH/USDT"
        )
    assert back.unique().equals(WITH_STREAM.select(back.columns))
    assert back.height == 2


@pytest.mark.parametrize(
    ("frame", "stream"),
    [
        pytest.param(GAP.drop("candles"), STREAM, id="a column is missing"),
        pytest.param(GAP.with_columns(colour=pl.lit("red")), STREAM, id="a column too many"),
        pytest.param(GAP, None, id="no stream"),
        pytest.param(WITH_STREAM, STREAM, id="the stream twice"),
    ],
)
def test_a_frame_with_other_columns_than_the_table_is_refused(warehouse: Warehouse, frame: pl.DataFrame, stream):
    with pytest.raises(ValueError, match="table gaps has the columns"), warehouse.writing() as con:
        insert(con, "gaps", frame, stream)


def test_a_query_reads_a_frame_like_a_table(warehouse: Warehouse):
    with warehouse.reading() as con:
        found = select_with(con, GAP, "select candles + $more as candles from incoming", more=1)
        assert found["candles"].to_list() == [4]
        assert con.execute("select count(*) from duckdb_views() where view_name = 'incoming'").fetchall() == [(0,)]


def test_many_rows_lie_in_the_order_in_which_they_came(warehouse: Warehouse):
    starts = pl.DataFrame({"start_time": pl.int_range(400_000, eager=True) * 60_000_000}).cast(TIME)
    gaps = starts.with_columns(end_time="start_time", known_at="start_time", candles=pl.lit(1, pl.Int64))
    with warehouse.writing() as con:
        insert(con, "gaps", gaps, STREAM)
    with warehouse.reading() as con:
        assert select(con, "select start_time from gaps")["start_time"].is_sorted()


def test_rows_that_lie_otherwise_are_sorted():
    frame = pl.DataFrame({"at": [3, 1, 2], "name": ["c", "a", "b"]})
    assert in_order(frame, "at").rows() == [(1, "a"), (2, "b"), (3, "c")]
    assert in_order(frame.sort("at"), "at").rows() == [(1, "a"), (2, "b"), (3, "c")]
