"""Hidden states in DuckDB: what a model knew at each close, in float16, for the models that read it."""

from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.market.streams import Stream, Window
from hindsight.store.rows import insert, select, stream_key


def append_hidden(
    con: duckdb.DuckDBPyConnection,
    model: str,
    stream: Stream,
    made_at: pl.Series,
    states: NDArray[np.float16],
    now: datetime | None,
) -> None:
    """Appends a state [D] beside each reference; they are known `now`, or at `made_at` in a backfill."""
    blobs = pl.Series([state.tobytes() for state in states], dtype=pl.Binary)
    rows = pl.DataFrame({"made_at": made_at, "state": blobs})
    known = pl.col("made_at") if now is None else pl.max_horizontal("made_at", pl.lit(now, made_at.dtype))
    insert(con, "hidden_states", rows.with_columns(model=pl.lit(model), available_at=known), stream)


def read_hidden(
    con: duckdb.DuckDBPyConnection, model: str, stream: Stream, window: Window, width: int, deadline: timedelta
) -> pl.DataFrame:
    """made_at and state of the closes in (start, end], of those `width` numbers that were known within `deadline`."""
    return select(
        con,
        """
        select made_at, state
        from hidden_states
        where model = $model
          and venue = $venue
          and symbol = $symbol
          and timeframe = $timeframe
          and made_at > $start
          and made_at <= $until
          and available_at <= made_at + $deadline
          and octet_length(state) = 2 * $width
        order by made_at
        """,
        model=model,
        start=window.start,
        until=window.end,
        deadline=deadline,
        width=width,
        **stream_key(stream),
    )
