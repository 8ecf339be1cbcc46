"""TA-Lib: at each new candle its functions once more over the last candles, and of each result the newest value."""

import numpy as np
import talib

WAYS = {
    "five": lambda high, low, close, volume: (
        talib.SMA(close, 20),
        talib.EMA(close, 12),
        talib.RSI(close, 14),
        *talib.MACD(close, 12, 26, 9),
        talib.ATR(high, low, close, 14),
    ),
    "thirteen": lambda high, low, close, volume: (
        talib.SMA(close, 10),
        talib.SMA(close, 20),
        talib.SMA(close, 50),
        talib.EMA(close, 12),
        talib.EMA(close, 26),
        *talib.MACD(close, 12, 26, 9),
        talib.RSI(close, 14),
        talib.ATR(high, low, close, 14),
        *talib.BBANDS(close, 20, 2.0, 2.0),
        *talib.STOCH(high, low, close, fastk_period=14, slowk_period=3, slowd_period=3),
        talib.ADX(high, low, close, 14),
        talib.MOM(talib.OBV(close, volume), 1),
        talib.SMA(volume, 20),
    ),
}


def prepare(candles: str, rows: list[int], window: int, way: str, loops: int, answer: str | None):
    """The work for the candle of each row, `loops` times over; `candles` (.npy) is [4, T]: high, low, close, volume."""
    columns, functions = np.load(candles), WAYS[way]

    def work() -> dict[str, object]:
        values: list[list[float]] = []
        for _ in range(loops):
            values = [[each[-1] for each in functions(*columns[:, row + 1 - window : row + 1])] for row in rows]
        if answer:
            np.save(answer, values)
        return {"candles": loops * len(values)}

    return work
