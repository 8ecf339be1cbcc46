"""Candles that the market's tests share: a made-up walk, and two recorded months."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.market.candles import TIME

START = datetime(2022, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def walk_candles() -> Callable[..., pl.DataFrame]:
    """Makes candles of a random walk on a grid of `tick`, so that equal highs and lows are common."""

    def make(n: int, seed: int, tick: float = 0.5, step: timedelta = timedelta(minutes=1)) -> pl.DataFrame:
        chance = np.random.default_rng(seed)
        walk = chance.normal(size=n).cumsum()
        close = 200 + (np.round(walk * 0.5 / tick) * tick if tick else walk)
        close += max(0.0, 10 - close.min())  # prices stay positive
        open_ = np.concatenate([close[:1], close[:-1]])
        spread = chance.integers(0, 3, (2, n)) * tick if tick else chance.random((2, n))
        return pl.DataFrame(
            {
                "open_time": pl.datetime_range(START, START + (n - 1) * step, step, eager=True).cast(TIME),
                "open": open_,
                "high": np.maximum(open_, close) + spread[0],
                "low": np.minimum(open_, close) - spread[1],
                "close": close,
                "volume": chance.random(n) * 100,
                "atr_14": [None] * min(14, n) + [1.25] * (n - 14),
            },
            schema_overrides={"atr_14": pl.Float64},
        )

    return make


@pytest.fixture(scope="session")
def recorded(shared_data: Path) -> pl.DataFrame:
    """ETH/USDT 1m of 2023-02-15 to 2023-04-15, with the outage of 80 minutes on 2023-03-24."""
    path = shared_data / "candles" / "ethusdt_1m_binance_spot_2022_2023.parquet"
    frame = pl.read_parquet(path).with_columns(open_time=pl.from_epoch("ts_ms", "ms").dt.replace_time_zone("UTC"))
    period = pl.col("open_time").is_between(
        datetime(2023, 2, 15, tzinfo=UTC), datetime(2023, 4, 15, tzinfo=UTC), closed="left"
    )
    return frame.filter(period).with_columns(pl.col("open_time").cast(TIME), atr_14=pl.lit(1.5))
