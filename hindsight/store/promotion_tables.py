"""Promotions in DuckDB: which checkpoint serves, and why."""

from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, insert, select, stream_key

PROMOTION = pl.Schema(
    {
        "model": pl.String,
        "event_time": TIME,
        "outcome": pl.String,
        "serving_before": pl.Int32,
        "serving_after": pl.Int32,
        "challenger": pl.Int32,
        "schema_hash": pl.String,
        "confidence": pl.Float32,
        "references_compared": pl.Int32,
        "blocks": pl.Int32,
        "loss_champion": pl.Float64,
        "loss_challenger": pl.Float64,
        "difference": pl.Float64,
        "difference_low": pl.Float64,
        "difference_high": pl.Float64,
    }
)


def serving(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, schema: str) -> tuple[int, datetime] | None:
    """The checkpoint that serves and since when; None while none of this input schema was promoted."""
    found = con.execute(
        f"""
        select serving_after, event_time
        from promotions
        where {OF_STREAM} and model = $model
          and schema_hash = $schema
          and outcome <> 'kept'
        order by event_time desc, rowid desc
        limit 1
        """,
        {"model": model, "schema": schema, **stream_key(stream)},
    ).fetchall()
    return found[0] if found else None


def read_promotions(
    con: duckdb.DuckDBPyConnection, model: str, stream: Stream, schema: str | None = None
) -> pl.DataFrame:
    """Every look and every word by hand, of this input schema or of all, in the order of time."""
    return select(
        con,
        f"""
        select *
        from promotions
        where {OF_STREAM} and model = $model
          and ($schema is null or schema_hash = $schema)
        order by event_time, rowid
        """,
        model=model,
        schema=schema,
        **stream_key(stream),
    )


def served_before(history: pl.DataFrame) -> int | None:
    """The checkpoint that served before the one that serves by the rows of `read_promotions`; None for the first.

    A rollback takes the promotion back: the next one leads further back, and not to what was rolled back from.
    """
    line: list[int] = []
    for outcome, after in history.select("outcome", "serving_after").iter_rows():
        if outcome == "rolled back":
            while line and line[-1] != after:
                line.pop()
        if not line or line[-1] != after:
            line.append(after)
    return line[-2] if len(line) > 1 else None


def append_promotion(con: duckdb.DuckDBPyConnection, stream: Stream, row: pl.DataFrame) -> None:
    """Appends one row in the columns of PROMOTION."""
    insert(con, "promotions", row, stream)


def last_looks(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per model and stream, the last look in the columns of the table, and what serves by then or by hand since."""
    return select(
        con,
        """
        with told as (
            select *, row_number() over (
                partition by model, venue, symbol, timeframe order by event_time, rowid) as place
            from promotions),
        changes as (
            select model, venue, symbol, timeframe,
                max_by(serving_after, place) as serving, max_by(event_time, place) as serving_since
            from told
            where outcome <> 'kept'
            group by all)
        select told.* exclude (place), serving, serving_since
        from told
        join changes using (model, venue, symbol, timeframe)
        where outcome in ('first', 'promoted', 'kept')
        qualify place = max(place) over (partition by model, venue, symbol, timeframe)
        order by model, venue, symbol, timeframe
        """,
    )
