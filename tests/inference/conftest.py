"""A made-up market with its labels' ingredients: rows of a tape, and the pivots that its candles confirmed."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from hindsight.inference.frames import COLUMN, COLUMNS
from hindsight.market.candles import TIME
from hindsight.market.pivots import PivotState, advance
from hindsight.market.streams import from_ms

FIRST_ROW = 28_000_000
STEP_MS = 60_000


@pytest.fixture(scope="session")
def walk() -> Callable[..., tuple[np.ndarray, pl.DataFrame]]:
    """Makes rows [N, F] of a tape from row 28,000,000 on, some candles missing, and all their pivots."""

    def make(count: int, seed: int, missing: float = 0.0) -> tuple[np.ndarray, pl.DataFrame]:
        chance = np.random.default_rng(seed)
        close = 300 + np.round(chance.normal(size=count).cumsum()) / 2  # a coarse grid: equal prices are common
        open_ = np.concatenate([close[:1], close[:-1]])
        spread = chance.integers(0, 3, (2, count)) / 2
        prices = {"open": open_, "high": np.maximum(open_, close) + spread[0]}
        prices |= {"low": np.minimum(open_, close) - spread[1], "close": close}
        rows = np.zeros((count, len(COLUMNS)), np.float32)
        for name, values in prices.items():
            rows[:, COLUMN[name]] = values
        rows[:, COLUMN["volume"]] = chance.random(count) * 100
        rows[:, COLUMN["atr_14"]] = 0.5 + chance.random(count)
        is_missing = chance.random(count) < missing
        opens = pl.Series([from_ms((FIRST_ROW + row) * STEP_MS) for row in range(count)], dtype=TIME)
        candles = pl.DataFrame({"open_time": opens, **prices, "atr_14": np.ones(count)}).filter(~pl.Series(is_missing))
        _, pivots = advance(PivotState.initial(), candles, timedelta(milliseconds=STEP_MS), max_gap=3)
        rows[is_missing] = np.nan
        return rows, pivots

    return make
