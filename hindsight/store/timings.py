"""How long after a close the live path stored it, predicted from it and learned from it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import duckdb
import polars as pl

from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, select, stream_key

Stage = Literal["stored", "predicted", "trained"]


def note(
    con: duckdb.DuckDBPyConnection, stream: Stream, model: str, stage: Stage, closes: Sequence[datetime], at: datetime
) -> None:
    """Notes that these closes had come as far as `stage` at `at`, by the venue's clock; `model` is empty for stored."""
    if len(closes):
        con.execute(
            """
            insert into timings (venue, symbol, timeframe, close_time, model, stage, reached_at)
            select $venue, $symbol, $timeframe, unnest($closes), $model, $stage, $at
            """,
            {"closes": list(closes), "model": model, "stage": stage, "at": at, **stream_key(stream)},
        )


def newest_stored(con: duckdb.DuckDBPyConnection, stream: Stream) -> datetime | None:
    """The newest close that was stored live; None before the first."""
    # With a limit DuckDB reads the newest rows alone; max() would read them all, and nothing takes any from `timings`.
    sql = f"""
        select close_time
        from timings
        where {OF_STREAM} and stage = 'stored'
        order by close_time desc
        limit 1
        """
    found = con.execute(sql, stream_key(stream)).fetchall()
    return found[0][0] if found else None


def moved_since(con: duckdb.DuckDBPyConnection, stream: Stream, model: str, since: datetime) -> bool:
    """Whether a live call has brought this model any further since then."""
    sql = f"""
        select count(*)
        from timings
        where {OF_STREAM}
          and model = $model
          and reached_at > $since
        """
    return con.execute(sql, {"model": model, "since": since, **stream_key(stream)}).fetchall()[0][0] > 0


def lateness(con: duckdb.DuckDBPyConnection, since: datetime, timeframe: str | None = None) -> pl.DataFrame:
    """Per stream, model and stage of the closes from `since` on: how many, the newest, and seconds after the close.

    Closes that were stored live count, and none of the history that a model works through when it starts.
    `recent_seconds` is how late even the timeliest close of each of the last three passes was; null before there are
    three. An outage that is over leaves a late pass for each piece that it caught up with.
    """
    return select(
        con,
        """
        with every as (
          select *, epoch(reached_at - close_time) as seconds
          from timings
          where close_time >= $since and timeframe = coalesce($timeframe, timeframe)),
        noted as (
          select *
          from every
          semi join (select * from every where stage = 'stored') using (venue, symbol, timeframe, close_time)),
        passes as (
          select venue, symbol, timeframe, model, stage, reached_at, min(seconds) as timeliest
          from noted
          group by venue, symbol, timeframe, model, stage, reached_at),
        recent as (
          select venue, symbol, timeframe, model, stage,
                 if(count(*) >= 3, list_min(arg_max(timeliest, reached_at, 3)), null) as recent_seconds
          from passes
          group by venue, symbol, timeframe, model, stage)
        select venue, symbol, timeframe, model, stage, count(*) as closes, max(close_time) as newest,
               arg_max(seconds, close_time) as newest_seconds, any_value(recent_seconds) as recent_seconds,
               quantile_cont(seconds, 0.5) as p50, quantile_cont(seconds, 0.95) as p95,
               quantile_cont(seconds, 0.99) as p99, max(seconds) as slowest
        from noted
        join recent using (venue, symbol, timeframe, model, stage)
        group by venue, symbol, timeframe, model, stage
        order by venue, symbol, timeframe, model, stage
        """,
        since=since,
        timeframe=timeframe,
    )
