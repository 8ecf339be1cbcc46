"""Means of the imbalance over the last 5, 15 and 60 seconds; over one second it is its own mean."""

import math

import polars as pl

SPANS = (5, 15, 60)  # seconds
SHARE = 0.8  # of a span's seconds that must have an imbalance
REACH = 2 * max(SPANS) - 1  # seconds before a row that its means may depend on
MEANS = {f"imbalance_{span}": span for span in SPANS}
OF_MARKET = ("venue", "symbol")


def with_means(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` (venue, symbol, second, imbalance; sorted by second, each once) with the columns of MEANS.

    A mean covers the span up to and including its second: over those of its seconds that have an imbalance, if they are
    four in five and the record reaches back to the span's first second, or past it by less than one more span. Else it
    is null. So after a pause a mean of 60 s returns once 60 s have been recorded.
    """
    # In millionths, which is what an imbalance is rounded to: sums of integers do not depend on where a frame begins.
    millionths = (pl.col("imbalance").cast(pl.Float64) * 1_000_000).round().cast(pl.Int64)
    whole = frame.with_columns(millionths=millionths.fill_null(0), is_there=millionths.is_not_null().cast(pl.Int64))
    return whole.with_columns(**{name: _mean(span) for name, span in MEANS.items()}).drop("millionths", "is_there")


def _mean(span: int) -> pl.Expr:
    count = _over("is_there", span)
    reaches_back = _over("is_there", 2 * span - 1) > _over("is_there", span - 1)
    is_known = (count >= math.ceil(SHARE * span)) & reaches_back
    return pl.when(is_known).then(_over("millionths", span) / count / 1_000_000).cast(pl.Float32)


def _over(column: str, seconds: int) -> pl.Expr:
    """The sum of `column` over so many seconds up to and including the row's."""
    window = f"{seconds}s"
    return pl.col(column).rolling_sum_by("second", window_size=window, closed="right").over(OF_MARKET)
