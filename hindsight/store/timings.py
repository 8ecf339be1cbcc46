"""How long after a close the live path stored it, predicted from it and learned from it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import duckdb
import polars as pl

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, insert, select, select_with, stream_key

Stage = Literal["stored", "predicted", "trained"]


def note(
    con: duckdb.DuckDBPyConnection, stream: Stream, model: str, stage: Stage, closes: Sequence[datetime], at: datetime
) -> None:
    """Notes that these closes had come as far as `stage` at `at`, by the venue's clock; `model` is empty for stored."""
    if len(closes):
        frame = pl.DataFrame({"close_time": closes}, schema={"close_time": TIME})
        insert(
            con,
            "timings",
            frame.with_columns(model=pl.lit(model), stage=pl.lit(stage), reached_at=pl.lit(at, TIME)),
            stream,
        )


def lateness(con: duckdb.DuckDBPyConnection, since: datetime) -> pl.DataFrame:
    """Per stream, model and stage of the closes from `since` on: how many, the newest, and seconds after the close."""
    return select(
        con,
        """
        select venue, symbol, timeframe, model, stage, count(*) as closes, max(close_time) as newest,
            arg_max(epoch(reached_at - close_time), close_time) as newest_seconds,
            quantile_cont(epoch(reached_at - close_time), 0.5) as p50,
            quantile_cont(epoch(reached_at - close_time), 0.95) as p95,
            quantile_cont(epoch(reached_at - close_time), 0.99) as p99,
            max(epoch(reached_at - close_time)) as slowest
        from timings
        where close_time >= $since
        group by venue, symbol, timeframe, model, stage
        order by venue, symbol, timeframe, model, stage
        """,
        since=since,
    )
