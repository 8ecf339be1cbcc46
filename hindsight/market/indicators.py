"""Indicators by TA-Lib's definitions, the same to the bit whatever stretch they were computed in (DESIGN §4).

Some indicators remember everything since they were started, and TA-Lib's moving averages are running sums, whose
rounding depends on where they began. So all candles of one UTC day are computed from one fixed candle: `anchor`, which
lies WARMUP candles before the day, far enough for the start to vanish below 1e-9. What a candle's value depends on is
therefore bounded, and nothing after the candle is in it.
Source: https://ta-lib.org/functions/
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import talib

from hindsight.market.candles import TIME
from hindsight.market.streams import Window, floor_to, to_ms

WARMUP = 512
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of consecutive candles, as contiguous float64 arrays."""

    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray

    def between(self, start: int, end: int) -> "Columns":
        """The candles from row `start` to row `end`, excluded; views, not copies."""
        return Columns(self.high[start:end], self.low[start:end], self.close[start:end], self.volume[start:end])


def _obv_change(c: Columns) -> np.ndarray:
    # Taken directly: the difference of TA-Lib's OBV is the same but for the rounding of its ever growing sum.
    return np.concatenate([[np.nan], np.sign(np.diff(c.close)) * c.volume[1:]])


# One line per TA-Lib call; NaN is what is not warm yet. Add a line here and its columns to schema.sql.
TABLE: dict[tuple[str, ...], Callable[[Columns], np.ndarray | tuple[np.ndarray, ...]]] = {
    ("sma_10",): lambda c: talib.SMA(c.close, 10),
    ("sma_20",): lambda c: talib.SMA(c.close, 20),
    ("sma_50",): lambda c: talib.SMA(c.close, 50),
    ("ema_12",): lambda c: talib.EMA(c.close, 12),
    ("ema_26",): lambda c: talib.EMA(c.close, 26),
    ("macd", "macd_signal", "macd_hist"): lambda c: talib.MACD(c.close, 12, 26, 9),
    ("rsi_14",): lambda c: talib.RSI(c.close, 14),
    ("atr_14",): lambda c: talib.ATR(c.high, c.low, c.close, 14),
    ("bb_upper", "bb_middle", "bb_lower"): lambda c: talib.BBANDS(c.close, 20, 2.0, 2.0),
    ("stoch_k", "stoch_d"): lambda c: talib.STOCH(
        c.high, c.low, c.close, fastk_period=14, slowk_period=3, slowd_period=3
    ),
    ("adx_14",): lambda c: talib.ADX(c.high, c.low, c.close, 14),
    ("obv_change",): _obv_change,
    # A running sum that falls back to nothing may be left a rounding below it.
    ("volume_sma_20",): lambda c: np.maximum(talib.SMA(c.volume, 20), 0.0),
}
NAMES: tuple[str, ...] = tuple(name for names in TABLE for name in names)


def anchor(moment: datetime, step: timedelta) -> datetime:
    """The open time of the first candle that the values of a candle opening at `moment` depend on."""
    return floor_to(moment, DAY) - WARMUP * step


def compute(candles: pl.DataFrame, window: Window, step: timedelta) -> pl.DataFrame:
    """open_time and NAMES for the candles that open in `window`; null until warm.

    `candles` (open_time, high, low, close, volume; sorted, each once) must reach back to `anchor(window.start)` as far
    as candles exist; more on either side changes nothing. A missing candle is no candle: the ones around it are
    neighbours.
    """
    open_ms = candles["open_time"].cast(TIME).to_physical().to_numpy() // 1000
    first, end = np.searchsorted(open_ms, [to_ms(window.start), to_ms(window.end)])
    columns = Columns(*(np.ascontiguousarray(candles[name], np.float64) for name in ("high", "low", "close", "volume")))
    values = np.empty((len(NAMES), end - first))
    day_ms, step_ms = DAY // timedelta(milliseconds=1), step // timedelta(milliseconds=1)
    day = open_ms[first:end] // day_ms
    starts = np.flatnonzero(np.diff(day, prepend=-1)) + first
    anchors = np.searchsorted(open_ms, day[starts - first] * day_ms - WARMUP * step_ms)
    for since, start, until in zip(anchors, starts, np.append(starts, end)[1:], strict=True):
        block = columns.between(since, until)
        values[:, start - first : until - first] = [row[start - since :] for row in _all(block)]
    return pl.DataFrame(
        [candles["open_time"][first:end].cast(TIME).alias("open_time")]
        + [pl.Series(name, row, nan_to_null=True) for name, row in zip(NAMES, values, strict=True)]
    )


def _all(block: Columns) -> list[np.ndarray]:
    rows: list[np.ndarray] = []
    for formula in TABLE.values():
        found = formula(block)
        rows += found if isinstance(found, tuple) else (found,)
    return rows
