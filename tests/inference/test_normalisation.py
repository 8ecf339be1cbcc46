"""Normalisation: from the visible input alone, and refused where there is no scale."""

from itertools import pairwise

import numpy as np
import pytest

from hindsight.inference.frames import COLUMN, COLUMNS
from hindsight.inference.normalisation import norm_params


def frames_of(count: int = 3, length: int = 50, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    frames = chance.random((count, length, len(COLUMNS))).astype(np.float32)
    frames[:, :, COLUMN["close"]] = 3000 * np.exp(chance.normal(0, 1e-3, (count, length)).cumsum(axis=1))
    frames[:, :, COLUMN["volume"]] *= 100
    return frames


def test_parameters_are_those_of_ten_plain_lines():
    frames = frames_of()
    for frame, params in zip(frames, norm_params(frames), strict=True):
        close = [float(value) for value in frame[:, COLUMN["close"]]]
        volume = [np.log(1 + float(value)) for value in frame[:, COLUMN["volume"]]]
        returns = [np.log(after / before) for before, after in pairwise(close)]
        mean = sum(returns) / len(returns)
        spread = np.sqrt(sum((value - mean) ** 2 for value in returns) / len(returns))
        volume_mean = sum(volume) / len(volume)
        volume_spread = np.sqrt(sum((value - volume_mean) ** 2 for value in volume) / len(volume))
        np.testing.assert_allclose(params, [close[-1], spread, volume_mean, volume_spread], rtol=1e-6)


def test_parameters_follow_from_close_and_volume_of_their_own_frame_and_from_nothing_else():
    """Trap 15: no other frame of the batch, no other column, nothing after the last candle."""
    frames = frames_of(count=4)
    expected = norm_params(frames)
    for index in range(4):
        np.testing.assert_array_equal(norm_params(frames[index : index + 1])[0], expected[index])
    others = [index for index in range(len(COLUMNS)) if index not in (COLUMN["close"], COLUMN["volume"])]
    frames[:, :, others] = 1e30
    np.testing.assert_array_equal(norm_params(frames), expected)


def test_a_frame_whose_price_does_not_move_has_no_scale():
    """Trap 16."""
    frames = frames_of()
    frames[1, :, COLUMN["close"]] = 3000
    params = norm_params(frames)
    assert np.isnan(params[1]).all()
    assert np.isfinite(params[[0, 2]]).all()


@pytest.mark.parametrize("bad", [pytest.param(np.nan, id="NaN"), pytest.param(np.inf, id="infinite")])
@pytest.mark.parametrize("column", ["close", "volume"])
@pytest.mark.parametrize("place", [0, 25, -1])
def test_a_frame_with_a_number_that_is_none_is_refused_and_its_neighbours_are_not(bad: float, column: str, place: int):
    """Trap 16."""
    frames = frames_of()
    frames[1, place, COLUMN[column]] = bad
    params = norm_params(frames)
    assert np.isnan(params[1]).all()
    np.testing.assert_array_equal(params[[0, 2]], norm_params(frames_of())[[0, 2]])


@pytest.mark.parametrize("volume", [0.0, 5.0])
def test_a_constant_volume_has_a_small_scale_and_nothing_is_divided_by_zero(volume: float):
    """Trap 16: a quiet market is no reason to refuse."""
    frames = frames_of()
    frames[:, :, COLUMN["volume"]] = volume
    params = norm_params(frames)
    assert np.isfinite(params).all()
    assert (params[:, 3] == np.float32(1e-3)).all()
