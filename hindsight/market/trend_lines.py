"""Trend lines: the straight line between two pivots, and what to call its direction (DESIGN §7)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Trend = Literal["down", "sideways", "up"]
TRENDS: tuple[Trend, ...] = ("down", "sideways", "up")  # the place of each is its code


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendLine:
    """The line from one pivot to a later one. Prices in quote currency, times in UTC."""

    slope: float  # price per second
    intercept: float  # price at start_time
    start_time: datetime
    end_time: datetime
    price_change: float
    time_duration: float  # seconds

    def price_at(self, moment: datetime) -> float:
        """The price of the line at `moment`, beyond its ends too."""
        return self.intercept + self.slope * (moment - self.start_time).total_seconds()


def line_through(*, start_time: datetime, start_price: float, end_time: datetime, end_price: float) -> TrendLine:
    """The line through two points. Raises ValueError where the second is not later than the first."""
    seconds = (end_time - start_time).total_seconds()
    if seconds <= 0:
        raise ValueError(f"a trend line needs two pivots in order of time, found {start_time} and {end_time}")
    change = end_price - start_price
    return TrendLine(
        slope=change / seconds,
        intercept=start_price,
        start_time=start_time,
        end_time=end_time,
        price_change=change,
        time_duration=seconds,
    )


def trend_codes(price_change: ArrayLike, atr: ArrayLike, flat_fraction: float) -> np.ndarray:
    """int8 codes, elementwise: 0 down, 1 sideways, 2 up.

    Up or down where the change exceeds `flat_fraction` x ATR14, else sideways. Raises ValueError where a number is
    missing: without a warm ATR there is no trend to name.
    """
    change, flat = np.asarray(price_change, np.float64), flat_fraction * np.asarray(atr, np.float64)
    if not (np.isfinite(change).all() and np.isfinite(flat).all()):
        raise ValueError("a trend needs a price change and a warm ATR14, found NaN or infinity")
    return (1 + (change > flat).astype(np.int8) - (change < -flat).astype(np.int8)).astype(np.int8)
