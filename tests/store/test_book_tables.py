"""The order book as a table: written once whatever comes again, means that no cutting changes, books beside pivots."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindsight.market.book_rows import book_frame
from hindsight.market.pivots import PIVOTS
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.store.book_tables import KNOWN, ORDER_BOOK, books_known_at, newest_book, write_order_book
from hindsight.store.market_tables import append_pivots
from hindsight.store.rows import OF_MARKET, OF_STREAM, market_key, select, stream_key
from hindsight.store.warehouse import Warehouse

START = datetime(2024, 8, 31, 23, 59, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="binance", symbol="BTC/USDT", timeframe="1s")
ALWAYS = Window(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))
Row = dict[str, object]


def pivot_books(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """The pivots confirmed in `window` with the book at their time and at their confirmation, null where there is none.

    Columns: those of the macro `pivot_books` in schema.sql; sorted by confirmation.
    """
    sql = f"""
        select *
        from pivot_books($start, $end)
        where {OF_STREAM}
        order by confirmed_at, pivot_time, pivot_type
        """
    return select(con, sql, **stream_key(stream), start=window.start, end=window.end)


def row(at: int, imbalance: float | None = 0.5, stream: Stream = ETH, **changed: object) -> Row:
    """The second that begins so many seconds after START."""
    return {
        "symbol": stream.symbol,
        "venue": stream.venue,
        "second_ms": to_ms(START) + at * 1000,
        "price": 2683.805,
        "spread": 0.01,
        "bucket_size": 1.0,
        "anchor": 2683.0,
        "amounts": [float(bucket) for bucket in range(40)],
        "imbalance": imbalance,
        "snapshots": 10,
        "age_ms": 47,
        "venues": [stream.venue],
        **changed,
    }


def write(warehouse: Warehouse, *rows: Row) -> int:
    with warehouse.writing() as con:
        return write_order_book(con, book_frame(rows))


def everything(con: duckdb.DuckDBPyConnection, stream: Stream) -> pl.DataFrame:
    """Every row of a market, in the columns of ORDER_BOOK."""
    sql = f"""
        select {", ".join(ORDER_BOOK)}
        from order_book
        where {OF_MARKET}
        order by second
        """
    return select(con, sql, **market_key(stream))


def stored(warehouse: Warehouse, stream: Stream = ETH) -> pl.DataFrame:
    with warehouse.reading() as con:
        return everything(con, stream)


def test_rows_come_back_as_they_were_written_with_when_they_were_known(warehouse: Warehouse) -> None:
    unreached = row(1, None, amounts=[None] * 3 + [1.5] * 37, spread=-0.5, venues=["binance", "kraken"])
    assert write(warehouse, row(0, spread=None), unreached) == 2
    found = stored(warehouse)
    assert found.schema == ORDER_BOOK
    assert found.drop("known_at", "imbalance_5", "imbalance_15", "imbalance_60").equals(
        book_frame([row(0, spread=None), unreached])
    )
    assert found["known_at"].to_list() == [START + SECOND, START + 2 * SECOND]


def test_no_rows_change_nothing(warehouse: Warehouse) -> None:
    assert write(warehouse) == 0


def test_twice_is_once_and_of_two_rows_for_one_second_the_last_counts(warehouse: Warehouse) -> None:
    write(warehouse, *(row(at) for at in range(6)))
    once = stored(warehouse)
    write(warehouse, *(row(at) for at in range(6)))
    assert stored(warehouse).equals(once)
    write(warehouse, row(3, 0.1), row(3, 0.25))
    assert stored(warehouse)["imbalance"].to_list() == [0.5, 0.5, 0.5, 0.25, 0.5, 0.5]
    assert stored(warehouse)["imbalance_5"].to_list() == [None] * 4 + [pytest.approx(0.45)] * 2


def test_a_delivery_with_a_hole_leaves_what_is_stored_inside_it(warehouse: Warehouse) -> None:
    write(warehouse, *(row(at) for at in range(10)))
    assert write(warehouse, row(0, 0.25), row(9, 0.25)) == 2
    assert stored(warehouse)["imbalance"].to_list() == [0.25, *[0.5] * 8, 0.25]


def test_a_home_from_before_there_was_a_spread_keeps_its_rows_and_knows_none_of_theirs(warehouse: Warehouse) -> None:
    write(warehouse, row(0), row(1))
    with warehouse.writing() as con:
        con.execute("alter table order_book drop column spread")
        con.execute("update warehouse_version set version = 2")
    assert stored(warehouse)["spread"].to_list() == [None, None]
    write(warehouse, row(1, spread=0.25), row(2))
    assert stored(warehouse)["spread"].to_list() == [None, 0.25, pytest.approx(0.01)]
    assert stored(warehouse).schema == ORDER_BOOK


def test_markets_are_kept_apart(warehouse: Warehouse) -> None:
    other = Stream(venue="kraken", symbol="ETH/USDT", timeframe="1m")
    written = write(warehouse, *(row(at, at / 10, stream) for at in range(6) for stream in (ETH, BTC, other)))
    assert written == 18
    assert stored(warehouse, BTC).height == stored(warehouse, other).height == 6
    assert stored(warehouse, BTC)["imbalance_5"].to_list() == [None] * 4 + [pytest.approx(0.2), pytest.approx(0.3)]


def test_a_row_that_comes_late_brings_later_means_up_to_date(warehouse: Warehouse) -> None:
    write(warehouse, *(row(at) for at in range(10) if at != 4))
    before = stored(warehouse)
    write(warehouse, row(4, -0.5))
    after = stored(warehouse)
    assert before.filter(pl.col("second") == START + 8 * SECOND)["imbalance_5"].item() == 0.5
    assert after.filter(pl.col("second") == START + 8 * SECOND)["imbalance_5"].item() == pytest.approx(0.3)
    assert after.filter(pl.col("second") == START + 9 * SECOND)["imbalance_5"].item() == 0.5
    assert after.height == 10


def in_memory() -> duckdb.DuckDBPyConnection:
    """The schema in a database of its own, faster to make than a file."""
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.execute(files("hindsight.store").joinpath("schema.sql").read_text())
    return con


def from_millionths(value: int) -> float:
    return value / 1_000_000


def without_holes(start: int, seconds: int) -> dict[tuple[int, Stream], float | None]:
    return {(at, ETH): (at * 7919 % 2001 - 1000) / 1000 for at in range(start, start + seconds)}


recorded = st.dictionaries(
    st.tuples(st.integers(0, 170), st.sampled_from([ETH, ETH, ETH, BTC])),
    st.none() | st.integers(-1_000_000, 1_000_000).map(from_millionths),
    max_size=20,
)
filled = st.builds(without_holes, st.integers(0, 60), st.integers(60, 110))


@settings(max_examples=25)
@given(filled, recorded, st.data())
def test_no_cutting_into_batches_and_no_order_of_them_changes_a_row(dense, sparse, data) -> None:
    rows = [row(at, imbalance, stream) for (at, stream), imbalance in sorted((dense | sparse).items(), key=str)]
    rows.sort(key=lambda each: str(each["second_ms"]))
    sql = "select * from order_book order by symbol, second"
    with in_memory() as con:
        write_order_book(con, book_frame(rows))
        once = select(con, sql)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=4), label="cuts"))
    batches = [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    again = data.draw(st.lists(st.sampled_from(range(len(batches))), max_size=2), label="again")
    order = data.draw(st.permutations([*range(len(batches)), *again]), label="order")
    with in_memory() as con:
        for batch in order:
            write_order_book(con, book_frame(batches[batch]))
        assert select(con, sql).equals(once)


@settings(max_examples=15)
@given(filled, recorded, st.integers(0, 170))
def test_what_comes_after_t_changes_no_row_known_by_t(dense, sparse, cut: int) -> None:
    rows = [row(at, imbalance, stream) for (at, stream), imbalance in (dense | sparse).items()]
    before = [each for each in rows if int(str(each["second_ms"])) < to_ms(START) + cut * 1000]
    sql = "select * from order_book where known_at <= $cut order by symbol, second"
    found = []
    for known in (
        rows,
        before,
        [each | {"imbalance": 1.0, "price": 1e9} if each not in before else each for each in rows],
    ):
        with in_memory() as con:
            write_order_book(con, book_frame(known))
            found.append(select(con, sql, cut=START + cut * SECOND))
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


# The book at an instant ----------------------------------------------------------------------------------------------


def newest_known(con: duckdb.DuckDBPyConnection, moment: datetime) -> list[tuple[float | None, float | None]]:
    """(relative spread, imbalance) of the newest row known at `moment` and less than 5 s before it, if there is one."""
    rows = everything(con, ETH).filter(pl.col("known_at").is_between(moment - 5 * SECOND, moment, closed="right"))
    return rows.tail(1).select(pl.col("spread") / pl.col("price"), "imbalance").rows()


def known_at(con: duckdb.DuckDBPyConnection, *after_ms: int) -> list[tuple[float | None, float | None]]:
    """(relative spread, imbalance) so many milliseconds after START."""
    found = books_known_at(con, ETH, to_ms(START) + np.array(after_ms, np.int64))
    assert found.schema == KNOWN
    assert found["moment"].to_list() == [START + timedelta(milliseconds=each) for each in after_ms]
    return found.select("relative_spread", "imbalance").rows()


def test_of_many_instants_the_spread_and_the_imbalance_are_those_of_the_newest_row_known_at_each(
    warehouse: Warehouse,
) -> None:
    write(warehouse, row(0, 0.25, price=200.0, spread=0.5), row(1, 0.75, price=200.0, spread=2.0))
    write(warehouse, row(10, price=1e9), row(0, -1.0, stream=BTC, price=1.0), row(7, 0.1, stream=BTC))
    first, second, nothing = (0.0025, 0.25), (0.01, 0.75), (None, None)
    expected = {999: nothing, 1000: first, 1999: first, 2000: second, 6999: second, 7000: nothing, 10_999: nothing}
    with warehouse.reading() as con:
        assert known_at(con, *expected) == list(expected.values())
        assert known_at(con, 2000, 7000, 1000, 2000, 1000) == [second, nothing, first, second, first]
        assert [known_at(con, each) for each in expected] == [[found] for found in expected.values()]
        assert known_at(con) == []


def test_the_newest_row_counts_even_if_it_knows_less_than_the_one_before_it(warehouse: Warehouse) -> None:
    unknown = row(1, None, spread=None)
    write(warehouse, row(0), unknown, row(2, None, price=100.0, spread=-1.0), row(3, 0.5, price=100.0, spread=0.0))
    with warehouse.reading() as con:
        assert known_at(con, 2000, 3000, 4000) == [(None, None), (-0.01, None), (0.0, 0.5)]


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 40), unique=True, max_size=25),
    st.lists(st.integers(-3000, 50_000), min_size=1, max_size=12),
    st.integers(0, 50_000),
)
def test_the_books_at_many_instants_are_those_at_each_whatever_comes_later(
    seconds: list[int], after_ms: list[int], cut_ms: int
) -> None:
    """Two roads: one query for all, and a filter for each; and nothing known after an instant counts at it."""
    rows = [row(at, at / 64, price=100.0 + at, spread=at / 8) for at in seconds]
    before = [each for each in rows if int(str(each["second_ms"])) + 1000 <= to_ms(START) + cut_ms]
    with in_memory() as con:
        write_order_book(con, book_frame(rows))
        together = known_at(con, *after_ms)
        for moment, found in zip(after_ms, together, strict=True):
            expected = newest_known(con, START + timedelta(milliseconds=moment))
            assert [found] == (expected or [(None, None)])
    with in_memory() as con:
        write_order_book(con, book_frame(before))
        early = [moment for moment in after_ms if moment <= cut_ms]
        expected = [found for moment, found in zip(after_ms, together, strict=True) if moment <= cut_ms]
        assert known_at(con, *early) == expected


def test_the_newest_book_is_asked_for_by_market(warehouse: Warehouse) -> None:
    write(warehouse, row(0), row(7), row(9, stream=BTC))
    with warehouse.reading() as con:
        assert newest_book(con, ETH) == START + 8 * SECOND
        assert newest_book(con, Stream(venue="kraken", symbol="ETH/USDT", timeframe="1m")) is None


def pivot(pivot_time: datetime, confirmed_at: datetime) -> pl.DataFrame:
    values = {
        "level": 2,
        "side": "high",
        "pivot_type": "L2H",
        "pivot_time": pivot_time,
        "price": 2690.0,
        "strength": 1.5,
        "confirmed_at": confirmed_at,
        "candles_left": 1,
        "candles_right": 1,
        "warmup": False,
        "after_gap": False,
        "rule_version": 1,
    }
    return pl.DataFrame([values], schema=PIVOTS)


def test_the_book_stands_beside_a_pivot_as_it_was_known_at_both_its_instants(warehouse: Warehouse) -> None:
    middle, end = START + 30 * SECOND, START + 150 * SECOND
    write(warehouse, *(row(at, at / 1000) for at in range(100)))
    write(warehouse, row(147, None, amounts=[None] + [2.0] * 39))  # the newest before the confirmation
    write(warehouse, row(150, 0.99))  # not known at the confirmation
    with warehouse.writing() as con:
        append_pivots(con, ETH, pivot(middle, end))
        append_pivots(con, ETH, pivot(START + 110 * SECOND, START + 600 * SECOND))
        append_pivots(con, BTC, pivot(middle, end))
        first, second = pivot_books(con, ETH, ALWAYS).iter_rows(named=True)
        other = pivot_books(con, BTC, ALWAYS).row(0, named=True)
    assert first["book_known_at_pivot"] == middle
    assert first["imbalance_at_pivot"] == pytest.approx(0.029)
    assert (first["bid_usd_at_pivot"], first["ask_usd_at_pivot"]) == (sum(range(20)), sum(range(20, 40)))
    assert first["book_known_at_confirmation"] == START + 148 * SECOND
    assert first["imbalance_at_confirmation"] is None
    assert (first["bid_usd_at_confirmation"], first["ask_usd_at_confirmation"]) == (None, 40.0)
    assert (second["book_known_at_pivot"], second["book_known_at_confirmation"]) == (None, None)
    assert {other[name] for name in other if "_at_" in name} == {None}


def test_every_pivot_confirmed_in_the_window_stands_once_with_or_without_books(warehouse: Warehouse) -> None:
    with warehouse.writing() as con:
        for minute in range(5):
            append_pivots(con, ETH, pivot(START + minute * 60 * SECOND, START + (minute + 3) * 60 * SECOND))
        without = pivot_books(con, ETH, ALWAYS)
        write_order_book(con, book_frame([row(at) for at in range(300)]))
        assert pivot_books(con, ETH, ALWAYS).height == without.height == 5
        part = Window(start=START + 240 * SECOND, end=START + 360 * SECOND)
        assert pivot_books(con, ETH, part)["confirmed_at"].to_list() == [part.start, part.start + 60 * SECOND]
    assert without["book_known_at_pivot"].null_count() == 5
