"""Hidden states in DuckDB: what a model knew at each close, in float16, for the models that read it."""

from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.inference.shape import Read
from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, in_order, insert, select, stream_key


def append_hidden(
    con: duckdb.DuckDBPyConnection,
    model: str,
    stream: Stream,
    made_at: pl.Series,
    states: NDArray[np.float16],
    now: datetime | None,
    passed: datetime | None,
) -> None:
    """Appends a state [D] beside each reference.

    A state is known at `made_at`, or `now` where its target had not closed yet: that is live. One that comes after
    models that read it have gone on without, `passed` this close, is known too late for them, and stays so.
    """
    blobs = pl.Series([state.tobytes() for state in states], dtype=pl.Binary)
    made, later = pl.col("made_at"), pl.lit(now, made_at.dtype)
    is_live = (made + stream.step > later).fill_null(False)
    is_passed = (made <= pl.lit(passed, made_at.dtype)).fill_null(False)
    rows = pl.DataFrame({"made_at": made_at, "state": blobs}).with_columns(
        available_at=pl.when(is_passed)
        .then(pl.max_horizontal(later, made + 2 * stream.step))
        .when(is_live)
        .then(pl.max_horizontal(later, made))
        .otherwise(made)
    )
    insert(con, "hidden_states", rows.with_columns(model=pl.lit(model)), stream)


def read_hidden(con: duckdb.DuckDBPyConnection, read: Read, stream: Stream, window: Window) -> pl.DataFrame:
    """made_at and state of the closes in (start, end], those of the width that is read and known in time."""
    found = select(
        con,
        f"""
        select made_at, state
        from hidden_states
        where {OF_STREAM} and model = $model
          and made_at > $start
          and made_at <= $until
          and available_at <= made_at + $deadline
          and octet_length(state) = 2 * $width
        """,
        model=read.model,
        start=window.start,
        until=window.end,
        deadline=timedelta(milliseconds=read.deadline_ms),
        width=read.width,
        **stream_key(stream),
    )
    return in_order(found, "made_at")
