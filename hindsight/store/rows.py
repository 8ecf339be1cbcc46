"""Frames into tables and back: the one way in which rows cross the border between polars and DuckDB."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import polars as pl

from hindsight.market.streams import Stream

_columns: dict[str, list[str]] = {}  # of every table that rows were inserted into
OF_STREAM = "venue = $venue and symbol = $symbol and timeframe = $timeframe"  # filled by stream_key
OF_MARKET = "venue = $venue and symbol = $symbol"  # filled by market_key


def insert(con: duckdb.DuckDBPyConnection, table: str, frame: pl.DataFrame, stream: Stream | None = None) -> int:
    """Appends `frame` to `table` by column name and returns how many rows that were.

    With `stream`, its venue, symbol and timeframe fill those columns; that is far cheaper than carrying them in the
    frame. Raises ValueError unless the frame (and the stream) have exactly the columns of the table.
    """
    key = {} if stream is None else stream_key(stream)
    offered = [*key, *frame.columns]
    if sorted(offered) != sorted(_columns.get(table, ())):
        _columns[table] = [name for name, *_ in con.execute(f"describe {table}").fetchall()]
        if sorted(offered) != sorted(_columns[table]):
            raise ValueError(f"table {table} has the columns {_columns[table]}, the rows offered have {offered}")
    if frame.is_empty():
        return 0
    names = ", ".join((*key, *frame.columns))
    values = ", ".join((*(f"${name}" for name in key), *frame.columns))
    with _registered(con, frame):
        con.execute(
            f"""
            insert into {table} ({names})
            select {values}
            from incoming
            """,
            key,
        )
    return frame.height


def select(con: duckdb.DuckDBPyConnection, sql: str, **params: object) -> pl.DataFrame:
    """The rows of a query; values come in as `$name` parameters."""
    return con.sql(sql, params=params).pl()


def in_order(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """`frame` sorted by a column in which no value comes twice. Rows that were stored in order come back so, and a look
    at that costs less than to have DuckDB sort them."""
    return frame if frame[column].is_sorted() else frame.sort(column)


def select_with(con: duckdb.DuckDBPyConnection, incoming: pl.DataFrame, sql: str, **params: object) -> pl.DataFrame:
    """The rows of a query in which `incoming` can be read like a table."""
    with _registered(con, incoming):
        return con.sql(sql, params=params).pl()


def delete_with(con: duckdb.DuckDBPyConnection, incoming: pl.DataFrame, sql: str, **params: object) -> None:
    """Runs a statement that removes rows, in which `incoming` can be read like a table."""
    with _registered(con, incoming):
        con.execute(sql, params)


def stream_key(stream: Stream) -> dict[str, str]:
    """The stream as the values of the columns that every table of it starts with."""
    return {"venue": stream.venue, "symbol": stream.symbol, "timeframe": stream.timeframe}


def market_key(stream: Stream) -> dict[str, str]:
    """The stream's market as the values of the columns that every table of a market starts with."""
    return {"venue": stream.venue, "symbol": stream.symbol}


@contextmanager
def _registered(con: duckdb.DuckDBPyConnection, incoming: pl.DataFrame) -> Iterator[None]:
    con.register("incoming", incoming.to_arrow())
    try:
        yield
    finally:
        con.unregister("incoming")
