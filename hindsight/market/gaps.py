"""Gaps: candles that nobody delivered. A quiet candle (volume 0) was delivered and is none."""

from datetime import datetime

import polars as pl

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream

GAPS = pl.Schema({"start_time": TIME, "end_time": TIME, "candles": pl.Int64, "known_at": TIME})


def find_gaps(open_times: pl.Series, stream: Stream, previous: datetime | None) -> pl.DataFrame:
    """Every hole between consecutive open times (sorted, each once), and between `previous` and the first of them.

    A gap is [start_time, end_time), `candles` long, and known at the close of the candle that ends it. `previous` is
    the open time of the last candle before; without it, nothing is known to be missing before the first.
    """
    before = pl.Series([previous], dtype=TIME) if previous is not None else pl.Series([], dtype=TIME)
    present = pl.concat([before, open_times.cast(TIME)]).to_frame("end_time")
    return (
        present.with_columns(start_time=pl.col("end_time").shift(1) + stream.step)
        .filter(pl.col("start_time") < pl.col("end_time"))
        .select(
            "start_time",
            "end_time",
            candles=(pl.col("end_time") - pl.col("start_time")).dt.total_milliseconds() // stream.step_ms,
            known_at=pl.col("end_time") + stream.step,
        )
    )
