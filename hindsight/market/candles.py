"""Candles: their schema, and the one door through which they enter.

| column | type | invariant |
|---|---|---|
| open_time | timestamp UTC | a multiple of the timeframe; first instant, included |
| open, high, low, close | float | finite, > 0, `low <= min(open, close)` and `max(open, close) <= high` |
| volume | float | finite, >= 0; base asset; 0 means quiet, which is known, not missing |
| revision | int | 0 as first delivered, +1 for each correction by the venue |
| recorded_at | timestamp UTC | when this revision could first be known: `close_time`, or the instant of the correction |
"""

import polars as pl

from hindsight.market.streams import EPOCH, Stream

TIME = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")
CANDLES = pl.Schema(
    {
        "open_time": TIME,
        "open": pl.Float64,
        "high": pl.Float64,
        "low": pl.Float64,
        "close": pl.Float64,
        "volume": pl.Float64,
        "revision": pl.Int32,
        "recorded_at": TIME,
    }
)
REFUSED = pl.Schema({"open_time": TIME, "reason": pl.String, "found": pl.String})


def first_delivery(frame: pl.DataFrame, stream: Stream) -> pl.DataFrame:
    """`frame` (open_time and OHLCV) with revision 0, known at its close, in the columns of CANDLES."""
    return frame.with_columns(
        revision=pl.lit(0, pl.Int32), recorded_at=pl.col("open_time") + stream.step
    ).select(CANDLES.names())


def accept(frame: pl.DataFrame, stream: Stream) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The well-formed candles of `frame`, sorted, and the refused ones with their reasons.

    Takes the columns of CANDLES in any order of rows. Of rows that share open_time and revision the first delivered is
    kept; a candle is never repaired. The second frame has the columns of REFUSED.
    """
    reasons = _reasons(stream)
    judged = frame.select(CANDLES.names()).with_columns(reason=pl.coalesce(reasons))
    repeated = ~pl.struct("open_time", "revision").is_first_distinct()
    judged = judged.with_columns(
        reason=pl.when(pl.col("reason").is_null() & repeated).then(pl.lit("duplicate")).otherwise("reason")
    )
    refused = judged.filter(pl.col("reason").is_not_null()).select(
        "open_time",
        "reason",
        found=pl.format(
            "open {} high {} low {} close {} volume {}", *[pl.col(c).cast(pl.String).fill_null("null") for c in (*PRICES, "volume")]
        ),
    )
    accepted = judged.filter(pl.col("reason").is_null()).drop("reason")
    return accepted.sort("open_time", "revision").cast(dict(CANDLES)), refused.cast(dict(REFUSED))


def _reasons(stream: Stream) -> list[pl.Expr]:
    """One expression per rule: null where the candle keeps it, else what is wrong, most basic first."""
    numbers = pl.col(*PRICES, "volume")
    offset = (pl.col("open_time") - EPOCH).dt.total_microseconds() % (stream.step_ms * 1000)
    rules = {
        "no open_time": pl.col("open_time").is_null(),
        f"open_time is not a multiple of {stream.timeframe}": offset != 0,
        "not a number": pl.any_horizontal(numbers.is_null() | ~numbers.is_finite()),
        "price is not positive": pl.min_horizontal(*PRICES) <= 0,
        "negative volume": pl.col("volume") < 0,
        "high below low": pl.col("high") < pl.col("low"),
        "open or close above high": pl.max_horizontal("open", "close") > pl.col("high"),
        "open or close below low": pl.min_horizontal("open", "close") < pl.col("low"),
        "known before its close": pl.col("recorded_at") < pl.col("open_time") + stream.step,
    }
    return [pl.when(broken).then(pl.lit(reason)) for reason, broken in rules.items()]
