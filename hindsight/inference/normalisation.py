"""Normalisation: four numbers computed from the visible input alone, stored with the reference, reused for its target.

`norm_params` = last close c · return scale s · log volume mean m · log volume scale v
A price p becomes log(p / c) / s, a volume (log(1 + volume) − m) / v. s is the standard deviation of the visible
close-to-close log returns; a frame whose prices do not move has no scale, and is refused.
"""

import numpy as np
from numpy.typing import NDArray

from hindsight.inference.frames import COLUMN, Frames

MINIMUM_RETURN_SCALE = 1e-7  # under it, log returns drown in the rounding of float32 prices
MINIMUM_VOLUME_SCALE = 1e-3

NormParams = NDArray[np.float32]


def norm_params(frames_BLF: Frames) -> NormParams:
    """Parameters [B, 4] of the visible frames; NaN where a frame has no scale or holds a NaN or an infinity."""
    close_BL = frames_BLF[:, :, COLUMN["close"]].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # an infinite price makes NaNs, and those are refused
        log_volume_BL = np.log1p(frames_BLF[:, :, COLUMN["volume"]].astype(np.float64))
        scale_B = np.diff(np.log(close_BL), axis=1).std(axis=1)
        params_B4 = np.stack(
            [
                close_BL[:, -1],
                np.where(scale_B >= MINIMUM_RETURN_SCALE, scale_B, np.nan),
                log_volume_BL.mean(axis=1),
                np.maximum(log_volume_BL.std(axis=1), MINIMUM_VOLUME_SCALE),
            ],
            axis=1,
        )
    params_B4[~np.isfinite(params_B4).all(axis=1)] = np.nan
    return params_B4.astype(np.float32)
