"""The table `order_book`: one row a second of each market, the same whatever is delivered again and in what pieces.

A row is keyed by venue, symbol and second. Its means look back on the rows before it, stored or delivered with it, so
that a row delivered late brings the means of the rows after it up to date.
"""

from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.market.book_means import MEANS, REACH, with_means
from hindsight.market.book_rows import BOOK_SECONDS
from hindsight.market.candles import TIME
from hindsight.market.streams import EPOCH, Stream, Window, from_ms
from hindsight.store.rows import OF_MARKET, delete_with, insert, market_key, select, select_with

ORDER_BOOK = pl.Schema({**BOOK_SECONDS, "known_at": TIME, **dict.fromkeys(MEANS, pl.Float32)})
KEY = ("venue", "symbol", "second")
SAME_KEY = " and ".join(f"order_book.{name} = incoming.{name}" for name in KEY)
BETWEEN = "order_book.second >= $start and order_book.second <= $end"  # bounds what is read
SECOND = timedelta(seconds=1)
OLD_SECONDS = 5  # since a row became known; from then on it does not tell how the market stands
KNOWN = pl.Schema(
    {
        "moment": TIME,
        "known_at": TIME,
        "relative_spread": pl.Float64,  # (ask - bid) / mid; 0 or less where venues overlap
        "imbalance": pl.Float32,
    }
)


def write_order_book(con: duckdb.DuckDBPyConnection, frame: pl.DataFrame) -> int:
    """Makes rows in the columns of BOOK_SECONDS the rows of their seconds, and returns how many those are.

    The order of rows is free. Of two for one second the last counts.
    """
    if frame.is_empty():
        return 0
    fresh = frame.select(BOOK_SECONDS.names()).cast(BOOK_SECONDS).unique(KEY, keep="last")
    first, last = fresh["second"].min(), fresh["second"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    around = {"start": first - REACH * SECOND, "end": last + REACH * SECOND}
    stored = select(
        con,
        f"""
        select {", ".join((*KEY, "imbalance", *MEANS))}
        from order_book
        where {BETWEEN}
        """,
        **around,
    ).cast({"second": TIME})
    stored = stored.join(fresh, on=KEY, how="anti")
    every = pl.concat([stored.select(*KEY, "imbalance"), fresh.select(*KEY, "imbalance")]).sort("second")
    means = with_means(every).drop("imbalance")
    later = stored.filter(pl.col("second") > first).join(means, on=(*KEY, *MEANS), how="anti", nulls_equal=True)
    rows = pl.concat([fresh, _whole(con, later.select(KEY))]).join(means, on=KEY).sort("second")
    delete_with(
        con,
        rows.select(KEY),
        f"delete from order_book using incoming where {SAME_KEY} and {BETWEEN}",
        **around,
    )
    insert(con, "order_book", rows.with_columns(known_at=pl.col("second") + SECOND))
    return fresh.height


def books_known_at(con: duckdb.DuckDBPyConnection, stream: Stream, moments_ms: NDArray[np.int64]) -> pl.DataFrame:
    """For each moment, in their order: what the newest row known then says, if it became known less than 5 s before.

    Columns: those of KNOWN, null where there is no such row, or where it does not know. `moments_ms` are milliseconds
    since 1970.
    """
    if not len(moments_ms):
        return KNOWN.to_frame()
    asked = pl.DataFrame({"moment": pl.Series(moments_ms * 1000, dtype=pl.Int64).cast(TIME)})
    # As in pivot_books: rows are known at whole seconds, and equality costs a fraction of an as-of join.
    sql = f"""
        with candidates as (
          select moment, date_trunc('second', moment) - to_seconds(unnest(range($age))) as known_at
          from (select distinct moment from incoming)),
        books as (
          select known_at, spread / price as relative_spread, imbalance
          from order_book
          where {OF_MARKET} and known_at > $oldest and known_at <= $newest)
        select moment, unnest(max_by(books, books.known_at))
        from candidates
        join books on books.known_at = candidates.known_at
        group by moment
        """
    oldest, newest = from_ms(int(moments_ms.min())) - OLD_SECONDS * SECOND, from_ms(int(moments_ms.max()))
    found = select_with(con, asked, sql, age=OLD_SECONDS, oldest=oldest, newest=newest, **market_key(stream))
    return asked.join(found.cast(KNOWN), on="moment", how="left", maintain_order="left")


def book_span(con: duckdb.DuckDBPyConnection, stream: Stream) -> Window | None:
    """From the first stored second to the end of the last; None where there is none."""
    sql = f"select min(second), max(known_at) from order_book where {OF_MARKET}"
    first, last = con.execute(sql, market_key(stream)).fetchall()[0]
    return Window(start=first, end=last) if first else None


def newest_book(con: duckdb.DuckDBPyConnection, stream: Stream, since: datetime = EPOCH) -> datetime | None:
    """When the newest row became known, of the seconds from `since` on; None where there is none."""
    sql = f"select max(known_at) from order_book where {OF_MARKET} and second >= $since"
    return con.execute(sql, {**market_key(stream), "since": since}).fetchall()[0][0]


def _whole(con: duckdb.DuckDBPyConnection, keys: pl.DataFrame) -> pl.DataFrame:
    """The stored rows of `keys`, in the columns of BOOK_SECONDS."""
    if keys.is_empty():
        return BOOK_SECONDS.to_frame()
    columns = ", ".join(f"order_book.{name}" for name in BOOK_SECONDS)
    found = select_with(con, keys, f"select {columns} from order_book join incoming on {SAME_KEY}")
    return found.cast(BOOK_SECONDS)
