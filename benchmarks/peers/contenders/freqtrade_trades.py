"""freqtrade: candles of trades by its converter, `trades_to_ohlcv`."""

import numpy as np
import pandas as pd
from freqtrade.constants import DEFAULT_TRADES_COLUMNS
from freqtrade.data.converter import trades_to_ohlcv


def prepare(trades: str, timeframes: list[str], loops: int, answer: str | None):
    """The work that makes the candles of all timeframes, `loops` times over; `trades` is a Parquet file."""
    found = pd.read_parquet(trades)
    frame = pd.DataFrame(
        {
            "timestamp": found["ts_ms"],
            "id": found["trade_id"].astype(str),
            "type": None,
            "side": found["side"],
            "price": found["price"],
            "amount": found["qty"],
            "cost": found["price"] * found["qty"],
        },
        columns=DEFAULT_TRADES_COLUMNS,
    )
    frame["date"] = pd.to_datetime(frame["timestamp"], unit="ms", utc=True)  # as its data handlers leave it
    trades_to_ohlcv(frame.head(1000), timeframes[0])  # what it imports late is no part of the work

    def work() -> dict[str, object]:
        candles: list[pd.DataFrame] = []
        for _ in range(loops):
            candles = [trades_to_ohlcv(frame, timeframe) for timeframe in timeframes]
        if answer:
            np.save(answer, np.concatenate([_values(each) for each in candles]))
        return {"candles": sum(map(len, candles))}

    return work


def _values(candles: pd.DataFrame) -> np.ndarray:
    opened = candles["date"].dt.as_unit("ms").astype("int64")
    return np.column_stack([opened, candles[["open", "high", "low", "close", "volume"]]])
