"""Candles: their schema, and the one door through which they enter.

| column | type | invariant |
|---|---|---|
| open_time | timestamp UTC | a multiple of the timeframe, 1980 to 2200; first instant, included |
| open, high, low, close | float | finite, > 0, `low <= min(open, close)` and `max(open, close) <= high` |
| volume | float | finite, >= 0; base asset; 0 means quiet, which is known, not missing |
| revision | int | 0 as first delivered, +1 for each correction by the venue |
| recorded_at | timestamp UTC | when this revision was first known: `close_time`, or the instant of the correction |
"""

from datetime import UTC, datetime

import polars as pl

from hindsight.market.streams import Stream

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
# A stamp in another unit than it was read in lands in 1970 or beyond the year 50,000.
PLAUSIBLE = (datetime(1980, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
REFUSED = pl.Schema({"open_time": TIME, "reason": pl.String, "found": pl.String})


def first_delivery(frame: pl.DataFrame, stream: Stream) -> pl.DataFrame:
    """`frame` (open_time and OHLCV) with revision 0, known at its close, in the columns of CANDLES."""
    return frame.with_columns(revision=pl.lit(0, pl.Int32), recorded_at=pl.col("open_time") + stream.step).select(
        CANDLES.names()
    )


def accept(frame: pl.DataFrame, stream: Stream) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The well-formed candles of `frame`, sorted, and the refused ones with their reasons.

    Takes the columns of CANDLES in any order of rows. Of well-formed rows that share open_time and revision the first
    delivered is kept; a candle is never repaired. The second frame has the columns of REFUSED.
    """
    frame = frame.select(CANDLES.names()).cast(CANDLES)
    rules = _rules(stream)
    is_broken = pl.any_horizontal(rules.values()).fill_null(True)
    if frame.select(is_broken.any()).item():
        reason = pl.coalesce(pl.when(broken).then(pl.lit(name)) for name, broken in rules.items())
        good, malformed = frame.filter(~is_broken), frame.filter(is_broken).with_columns(reason=reason)
    else:
        good, malformed = frame, frame.clear().with_columns(reason=pl.lit(None, pl.String))
    if (good["open_time"].to_physical().diff() > 0).all():
        return good, _refused(malformed)
    good = good.sort("open_time", "revision", maintain_order=True)
    key = (pl.col("open_time"), pl.col("revision"))
    is_repeated = pl.all_horizontal(part == part.shift(1) for part in key).fill_null(False)
    repeated = good.filter(is_repeated).with_columns(reason=pl.lit("duplicate"))
    return good.filter(~is_repeated), _refused(pl.concat([malformed, repeated]))


def _refused(judged: pl.DataFrame) -> pl.DataFrame:
    texts = (pl.col(name).cast(pl.String).fill_null("null") for name in (*PRICES, "volume"))
    found = pl.format("open {} high {} low {} close {} volume {}", *texts)
    return judged.select("open_time", "reason", found=found).cast(REFUSED)


def _rules(stream: Stream) -> dict[str, pl.Expr]:
    """What can be wrong with a candle, most basic first: true where it is."""
    numbers = (pl.col(name) for name in (*PRICES, "volume"))
    lowest, highest = pl.col("low"), pl.col("high")
    offset = pl.col("open_time").to_physical() % (stream.step_ms * 1000)
    return {
        "no open_time": pl.col("open_time").is_null(),
        "open_time is not in 1980..2199 (wrong unit?)": ~pl.col("open_time").is_between(*PLAUSIBLE, closed="left"),
        f"open_time is not a multiple of {stream.timeframe}": offset != 0,
        "not a number": pl.any_horizontal(~number.is_finite().fill_null(False) for number in numbers),
        "price is not positive": pl.any_horizontal(pl.col(name) <= 0 for name in PRICES),
        "negative volume": pl.col("volume") < 0,
        "high below low": highest < lowest,
        "open or close above high": (pl.col("open") > highest) | (pl.col("close") > highest),
        "open or close below low": (pl.col("open") < lowest) | (pl.col("close") < lowest),
        "no revision": (pl.col("revision") < 0).fill_null(True),
        "known before its close": (pl.col("recorded_at") < pl.col("open_time") + stream.step).fill_null(True),
    }
