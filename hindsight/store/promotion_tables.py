"""Promotions in DuckDB: which checkpoint serves, and why."""

from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.streams import Stream
from hindsight.store.rows import insert, select, stream_key


def serving(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, schema: str) -> tuple[int, datetime] | None:
    """The checkpoint that serves and since when; None while none of this input schema was promoted."""
    found = con.execute(
        """
        select serving_after, event_time
        from promotions
        where model = $model
          and venue = $venue
          and symbol = $symbol
          and timeframe = $timeframe
          and schema_hash = $schema
          and outcome <> 'kept'
        order by event_time desc, rowid desc
        limit 1
        """,
        {"model": model, "schema": schema, **stream_key(stream)},
    ).fetchall()
    return found[0] if found else None


def read_promotions(con: duckdb.DuckDBPyConnection, model: str, stream: Stream) -> pl.DataFrame:
    """Every look and every word by hand, in the order of time."""
    return select(
        con,
        """
        select *
        from promotions
        where model = $model
          and venue = $venue
          and symbol = $symbol
          and timeframe = $timeframe
        order by event_time, rowid
        """,
        model=model,
        **stream_key(stream),
    )


def append_promotion(con: duckdb.DuckDBPyConnection, stream: Stream, row: pl.DataFrame) -> None:
    """Appends one row in the columns of the table."""
    insert(con, "promotions", row, stream)
