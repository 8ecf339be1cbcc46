"""Training steps, checkpoints and scores in DuckDB."""

from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, insert, select, stream_key


def newest_step(con: duckdb.DuckDBPyConnection, model: str, stream: Stream) -> tuple[int, datetime | None]:
    """The number of the last training step, 0 for none, and the event time of the last candle-triggered one."""
    found = con.execute(
        f"""
        select coalesce(max(step), 0), max(event_time) filter (trigger = 'candle')
        from training_steps
        where {OF_STREAM} and model = $model
        """,
        {"model": model, **stream_key(stream)},
    ).fetchall()
    return found[0]


def first_step(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, schema: str) -> int | None:
    """The number of the first step of the lineage that has this input schema; None before it."""
    found = con.execute(
        f"""
        select min(step)
        from training_steps
        where {OF_STREAM} and model = $model
          and schema_hash = $schema
        """,
        {"model": model, "schema": schema, **stream_key(stream)},
    ).fetchall()
    return found[0][0]


def newest_hyperparameters(
    con: duckdb.DuckDBPyConnection, model: str, stream: Stream, through: int | None = None
) -> str | None:
    """The JSON that the last training step, or the last one up to step `through`, was taken with; None before the
    first."""
    found = con.execute(
        f"""
        select arg_max(hyperparameters, step)
        from training_steps
        where {OF_STREAM} and model = $model
          and ($through is null or step <= $through)
        """,
        {"model": model, "through": through, **stream_key(stream)},
    ).fetchall()
    return found[0][0]


def read_steps(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, after: int, through: int) -> pl.DataFrame:
    """The steps numbered after + 1 … through, in order."""
    return select(
        con,
        f"""
        select step, trigger, event_time, settled, replayed, replayed_high, weight_normal, weight_high, schema_hash,
            hyperparameters
        from training_steps
        where {OF_STREAM} and model = $model
          and step > $after
          and step <= $through
        order by step
        """,
        model=model,
        after=after,
        through=through,
        **stream_key(stream),
    )


def times_used(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, since: datetime) -> pl.DataFrame:
    """inference_id and in how many steps later than `since` it was trained on."""
    return select(
        con,
        f"""
        select inference_id, count(*) as uses
        from (
            select unnest(list_concat(settled, replayed)) as inference_id
            from training_steps
            where {OF_STREAM} and model = $model
              and event_time > $since
        )
        group by inference_id
        """,
        model=model,
        since=since,
        **stream_key(stream),
    )


def read_checkpoints(con: duckdb.DuckDBPyConnection, model: str, stream: Stream) -> pl.DataFrame:
    """Every checkpoint that is there, and those that have served, in the order of their ids."""
    return select(
        con,
        f"""
        select *
        from checkpoints
        where {OF_STREAM} and model = $model
        order by checkpoint_id
        """,
        model=model,
        **stream_key(stream),
    )


def kept_checkpoints(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, through: int) -> list[tuple[int, str]]:
    """Id and file of every checkpoint that was not evicted, those up to `through`; the newest first."""
    return con.execute(
        f"""
        select checkpoint_id, file
        from checkpoints
        where {OF_STREAM} and model = $model
          and evicted_at is null
          and checkpoint_id <= $through
        order by checkpoint_id desc
        """,
        {"model": model, "through": through, **stream_key(stream)},
    ).fetchall()


def replace_checkpoints(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, frame: pl.DataFrame) -> None:
    """Puts `frame` in the place of all the model's checkpoints of the stream; few are kept."""
    con.execute(
        f"""
        delete from checkpoints
        where {OF_STREAM} and model = $model
        """,
        {"model": model, **stream_key(stream)},
    )
    insert(con, "checkpoints", frame)


def replace_scores(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, frame: pl.DataFrame) -> None:
    """Puts `frame` in the place of the scores of the days it covers."""
    if frame.is_empty():
        return
    con.execute(
        f"""
        delete from scores
        where {OF_STREAM} and model = $model
          and list_contains($days, day)
        """,
        {"model": model, "days": frame["day"].unique().to_list(), **stream_key(stream)},
    )
    insert(con, "scores", frame)
