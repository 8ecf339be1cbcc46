"""References, outcomes and trend validations in DuckDB, and how far each model has come."""

from collections.abc import Iterable
from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.streams import EPOCH, Stream, Window
from hindsight.store.rows import OF_STREAM, in_order, insert, select, stream_key
from hindsight.store.timings import newest_stored


def read_references(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, window: Window) -> pl.DataFrame:
    """The references made in (start, end], sorted by made_at."""
    found = select(
        con,
        f"""
        select inference_id, made_at, norm_params, action, action_confidence, predicted_candle, trend_probabilities,
            next_pivot_high, predicted_pivots, serving_id, served, extras, checkpoint_id, schema_hash, digest
        from inference_references
        where {OF_STREAM} and model = $model
          and made_at > $start
          and made_at <= $until
        """,
        model=model,
        start=window.start,
        until=window.end,
        **stream_key(stream),
    )
    return in_order(found, "made_at")


def find_reference(con: duckdb.DuckDBPyConnection, inference_id: int) -> pl.DataFrame:
    """The reference of that id, all columns; empty when there is none."""
    return select(
        con,
        """
        select *
        from inference_references
        where inference_id = $inference_id
        """,
        inference_id=inference_id,
    )


def append(con: duckdb.DuckDBPyConnection, table: str, stream: Stream, records: list[pl.DataFrame]) -> int:
    """Appends the frames to a table of this room; the watermark keeps them from being written twice."""
    filled = [frame for frame in records if len(frame)]
    return insert(con, table, pl.concat(filled), stream) if filled else 0


def predicted_until(con: duckdb.DuckDBPyConnection, model: str, stream: Stream) -> datetime | None:
    """The last close at which this model has made its reference, or is done without one; None before the first."""
    # With a limit DuckDB reads the newest references alone; max() would read every one that was ever made.
    found = con.execute(
        f"""
        select max(known)
        from (
            (select made_at as known
            from inference_references
            where {OF_STREAM} and model = $model
            order by made_at desc
            limit 1)
            union all
            select until
            from learned_until
            where {OF_STREAM} and model = $model
        )
        """,
        {"model": model, **stream_key(stream)},
    ).fetchall()
    return found[0][0]


def note_schema(con: duckdb.DuckDBPyConnection, schema_hash: str, shape: str, model_config: str) -> None:
    """Says what a schema hash stands for, once."""
    con.execute(
        """
        insert into schemas (schema_hash, shape, model_config)
        select $schema_hash, $shape, $model_config
        where $schema_hash not in (select schema_hash from schemas)
        """,
        {"schema_hash": schema_hash, "shape": shape, "model_config": model_config},
    )


def find_schema(con: duckdb.DuckDBPyConnection, schema_hash: str) -> tuple[str, str] | None:
    """Shape and model configuration of a schema hash; None for one that no reference was made with."""
    found = con.execute(
        """
        select shape, model_config
        from schemas
        where schema_hash = $schema_hash
        """,
        {"schema_hash": schema_hash},
    ).fetchall()
    return found[0] if found else None


def add_refusals(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, frame: pl.DataFrame) -> None:
    """Adds refused closes to those of their day and block, so that the rows do not depend on how history is cut."""
    if frame.is_empty():
        return
    key = {"model": model, **stream_key(stream)}
    days = frame["day"].unique().to_list()
    stored = select(
        con,
        f"""
        select day, block, need, fewest, closes, first_at, last_at
        from refused_frames
        where {OF_STREAM} and model = $model
          and list_contains($days, day)
        """,
        days=days,
        **key,
    ).cast({"first_at": frame.schema["first_at"], "last_at": frame.schema["last_at"]})
    con.execute(
        f"""
        delete from refused_frames
        where {OF_STREAM} and model = $model
          and list_contains($days, day)
        """,
        {"days": days, **key},
    )
    together = (
        pl.concat([stored, frame.select(stored.columns)])
        .group_by("day", "block", "need")
        .agg(pl.col("fewest").min(), pl.col("closes").sum(), pl.col("first_at").min(), pl.col("last_at").max())
        .sort("first_at", "block")
    )
    insert(con, "refused_frames", together.with_columns(model=pl.lit(model)), stream)


def learners_of(con: duckdb.DuckDBPyConnection, stream: Stream) -> list[str]:
    """The models that have ever learned from `stream`, by name."""
    sql = f"select distinct model from learned_until where {OF_STREAM} order by model"
    return [model for (model,) in con.execute(sql, stream_key(stream)).fetchall()]


def learned_until(con: duckdb.DuckDBPyConnection, model: str, stream: Stream) -> tuple[datetime, datetime] | None:
    """The first close that was looked at and the last one that is done with; None before the first."""
    found = con.execute(
        f"""
        select since, until
        from learned_until
        where {OF_STREAM} and model = $model
        """,
        {"model": model, **stream_key(stream)},
    ).fetchall()
    return found[0] if found else None


def left_unlearned(
    con: duckdb.DuckDBPyConnection, streams: Iterable[Stream], models: Iterable[str]
) -> dict[tuple[str, str], datetime]:
    """By stream and model, the newest close that was stored live and is not done with."""
    sql = "select concat_ws(' ', venue, symbol, timeframe), model, until from learned_until"
    done = {(stream, model): until for stream, model, until in con.execute(sql).fetchall()}
    stored = {str(stream): newest_stored(con, stream) for stream in sorted(streams, key=str)}
    names = sorted(models)
    return {
        (stream, model): close
        for stream, close in stored.items()
        for model in names
        if close is not None and close > done.get((stream, model), EPOCH)
    }


def move_watermark(
    con: duckdb.DuckDBPyConnection, model: str, stream: Stream, since: datetime, until: datetime
) -> None:
    """Moves the watermark from `since` to `until`, in the same transaction as what it stands for.

    Raises RuntimeError when it does not stand at `since`: somebody else has done the work in between.
    """
    key = {"model": model, **stream_key(stream)}
    stands = learned_until(con, model, stream)
    if stands is None:
        con.execute(
            """
            insert into learned_until (model, venue, symbol, timeframe, since, until)
            values ($model, $venue, $symbol, $timeframe, $since, $until)
            """,
            {**key, "since": since, "until": until},
        )
        return
    if stands[1] != since:
        raise RuntimeError(f"{model} of {stream} stands at {stands[1]}, expected {since}: two learners ran at once")
    con.execute(
        f"""
        update learned_until
        set until = $until
        where {OF_STREAM} and model = $model
        """,
        {**key, "until": until},
    )


def oldest_pending(
    con: duckdb.DuckDBPyConnection, stream: Stream, at: datetime, types: tuple[str, ...]
) -> datetime | None:
    """Of the newest pivots of each type confirmed at or before `at`, the earliest pivot_time.

    Every reference made at or before it has all its pivot outcomes. None while a type has no pivot yet.
    """
    found = con.execute(
        f"""
        select min(newest), count(*)
        from (
            select max(pivot_time) as newest
            from pivots
            where {OF_STREAM}
              and confirmed_at <= $at
              and list_contains($types, pivot_type)
            group by pivot_type
        )
        """,
        {"at": at, "types": list(types), **stream_key(stream)},
    ).fetchall()
    newest, count = found[0]
    return newest if count == len(types) else None
