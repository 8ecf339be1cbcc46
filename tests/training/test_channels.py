"""Channels: stated scales, the same for a cheap coin as for a dear one, and finite whatever the frame."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hindsight.inference.frames import COLUMN, COLUMNS, PIVOT_TYPES
from hindsight.inference.normalisation import norm_params
from hindsight.inference.predictions import USUAL_AGE
from hindsight.training.channels import CHANNELS, LIMIT, channels

PRICES = ("open", "high", "low", "close", "sma_10", "sma_20", "sma_50", "ema_12", "ema_26")
PRICES += ("bb_upper", "bb_middle", "bb_lower", "macd", "macd_signal", "macd_hist", "atr_14")


@pytest.fixture
def frames(stretch) -> np.ndarray:
    return stretch.market.blocks.own.gather(stretch.first + np.arange(0, 60, 7), 300)


def laid(frames: np.ndarray) -> np.ndarray:
    return channels(torch.from_numpy(frames), torch.from_numpy(norm_params(frames))).numpy()


def test_channels_are_those_of_the_table(frames: np.ndarray):
    """Two roads: each rule once more, for one candle of one frame, in float64."""
    assert len(COLUMNS) == CHANNELS
    found = laid(frames)
    for which, row in ((0, 299), (3, 0), (8, 150)):
        candle = {name: float(frames[which, row, COLUMN[name]]) for name in COLUMNS}
        last, scale, mean, spread = (float(value) for value in norm_params(frames)[which])
        close = candle["close"]
        expected = {name: np.log(candle[name] / last) / (scale * np.sqrt(300 - row)) for name in PRICES[:4]}
        expected |= {name: np.log(candle[name] / close) / (4 * scale) for name in PRICES[4:12]}
        expected |= {name: candle[name] / (close * scale) for name in PRICES[12:15]}
        expected["atr_14"] = np.log(candle["atr_14"] / (close * scale))
        expected |= {name: (np.log1p(candle[name]) - mean) / spread for name in ("volume", "volume_sma_20")}
        expected |= {name: (candle[name] - 50) / 50 for name in ("rsi_14", "stoch_k", "stoch_d")}
        expected["adx_14"] = (candle["adx_14"] - 25) / 25
        expected["obv_change"] = np.clip(candle["obv_change"] / candle["volume_sma_20"], -4, 4) / 4
        for name in PIVOT_TYPES:
            age, usual = candle[f"{name}_age"], USUAL_AGE[int(name[1])]
            price = np.log(candle[f"{name}_price"] / close) / (scale * np.sqrt(usual))
            expected[f"{name}_age"] = 1.0 if np.isnan(age) else age / (age + usual)
            expected[f"{name}_price"] = 0.0 if np.isnan(price) else price
        assert expected.keys() == set(COLUMNS)
        for name, value in expected.items():
            clipped = np.clip(value, -LIMIT, LIMIT)
            assert found[which, row, COLUMN[name]] == pytest.approx(clipped, rel=2e-3, abs=2e-3), name


def test_a_market_at_twenty_times_the_price_looks_the_same(frames: np.ndarray):
    dear = frames.copy()
    columns = [COLUMN[name] for name in PRICES] + [COLUMN[f"{name}_price"] for name in PIVOT_TYPES]
    dear[:, :, columns] *= 16  # a power of two rounds nothing
    np.testing.assert_allclose(laid(dear), laid(frames), atol=2e-2)


def test_a_pivot_that_is_not_there_yet_is_infinitely_old_and_no_price_away(frames: np.ndarray):
    frames[:, :, [COLUMN["L5H_price"], COLUMN["L5H_age"]]] = np.nan
    found = laid(frames)
    assert (found[:, :, COLUMN["L5H_age"]] == 1).all()
    assert (found[:, :, COLUMN["L5H_price"]] == 0).all()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda frames: frames.__setitem__((0, slice(None), COLUMN["atr_14"]), 0), id="ATR of zero"),
        pytest.param(
            lambda frames: frames.__setitem__((0, slice(None), [COLUMN["volume"], COLUMN["volume_sma_20"]]), 0),
            id="no volume",
        ),
        pytest.param(lambda frames: frames.__setitem__((0, 10, COLUMN["volume"]), 1e30), id="enormous volume"),
        pytest.param(lambda frames: frames.__setitem__((0, 10, COLUMN["high"]), 1e30), id="enormous wick"),
    ],
)
def test_channels_are_finite_and_bounded_whatever_a_whole_frame_holds(frames: np.ndarray, spoil: Callable):
    """Trap 16."""
    spoil(frames)
    found = laid(frames)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= LIMIT
