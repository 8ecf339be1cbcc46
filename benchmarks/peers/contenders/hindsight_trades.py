"""Hindsight: candles of trades by `candles_from_trades`."""

import numpy as np
import polars as pl

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.market.trades import TRADES, candles_from_trades


def prepare(trades: str, timeframes: list[str], loops: int, answer: str | None):
    """The work that makes the candles of all timeframes, `loops` times over; `trades` is a Parquet file."""
    frame = (
        pl.read_parquet(trades)
        .rechunk()
        .select("trade_id", "price", "side", time=(pl.col("ts_ms") * 1000).cast(TIME), amount="qty")
        .select(TRADES.names())
        .cast(TRADES)
    )
    streams = [Stream(venue="binance", symbol="ETH/USDT", timeframe=timeframe) for timeframe in timeframes]
    candles_from_trades(frame.head(1000), streams[0])  # what is made ready late is no part of the work

    def work() -> dict[str, object]:
        candles: list[pl.DataFrame] = []
        for _ in range(loops):
            candles = [candles_from_trades(frame, stream) for stream in streams]
        if answer:
            np.save(answer, np.concatenate([_values(each) for each in candles]))
        return {"candles": sum(map(len, candles))}

    return work


def _values(candles: pl.DataFrame) -> np.ndarray:
    return candles.with_columns(pl.col("open_time").dt.epoch("ms")).to_numpy()
