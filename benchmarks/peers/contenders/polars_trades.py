"""Polars: candles of trades by group_by_dynamic, in the order that its documentation asks for."""

import numpy as np
import polars as pl


def prepare(trades: str, timeframes: list[str], loops: int, answer: str | None):
    """The work that makes the candles of all timeframes, `loops` times over; `trades` is a Parquet file."""
    frame = (
        pl.read_parquet(trades)
        .rechunk()
        .select(time=pl.from_epoch("ts_ms", "ms").set_sorted(), price="price", amount="qty")
    )
    _candles(frame.head(1000), timeframes[0])  # what is made ready late is no part of the work

    def work() -> dict[str, object]:
        candles: list[pl.DataFrame] = []
        for _ in range(loops):
            candles = [_candles(frame, timeframe) for timeframe in timeframes]
        if answer:
            np.save(answer, np.concatenate([_values(each) for each in candles]))
        return {"candles": sum(map(len, candles))}

    return work


def _candles(trades: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    return trades.group_by_dynamic("time", every=timeframe).agg(
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("amount").sum(),
    )


def _values(candles: pl.DataFrame) -> np.ndarray:
    return candles.with_columns(pl.col("time").dt.epoch("ms")).to_numpy()
