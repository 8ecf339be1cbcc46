"""From raw frames to the channels that a model reads: stated scales, nothing learned, nothing from outside the frame.

Legend: B batch, L lookback, F tape columns, C channels.

| channels | rule |
|---|---|
| open high low close | log(p / last close), over the spread of a random walk at that distance, s·√(1 + candles back) |
| volume, its SMA | (log(1 + v) − m) / v scale |
| moving averages, bands | log(x / close of that candle) / 4s |
| macd, signal, histogram | value / (close · s) |
| ATR | log(ATR / (close · s)) |
| RSI, stochastic, ADX | (x − 50) / 50, ADX (x − 25) / 25 |
| OBV change | over the volume's SMA, within ±4, a quarter of it |
| pivot price | log(price / close) / (s·√a), a the usual age at its level |
| pivot age | age / (age + a); a pivot that is not there yet is infinitely old: 1, at distance 0 |
"""

import torch
from torch import Tensor

from hindsight.inference.frames import COLUMNS, KIND, PIVOT_TYPES
from hindsight.inference.predictions import USUAL_AGE
from hindsight.training.constants import constant

CHANNELS = len(COLUMNS)
LIMIT = 8.0  # a channel beyond this says "extreme" and no more
PIVOT_AGES = tuple(float(USUAL_AGE[int(name[1])]) for name in PIVOT_TYPES)  # the usual one of each type
LEAST = 1e-12  # stands in for an ATR or a volume of zero, and for a band that a crash drives below zero


def channels(frames_BLF: Tensor, norm_B4: Tensor) -> Tensor:
    """Channels [B, L, C] of visible frames, in the order of the tape's columns."""
    kind = {name: frames_BLF[..., place] for name, place in KIND.items()}
    last_B11, scale_B11, volume_mean_B11, volume_scale_B11 = norm_B4[:, :, None, None].unbind(1)
    spread_BL1 = scale_B11 * torch.arange(frames_BLF.shape[1], 0, -1, device=frames_BLF.device)[:, None].sqrt()
    age_K = constant(PIVOT_AGES, frames_BLF.device)
    close_BL1 = frames_BLF[..., 3:4]
    unit_BL1 = close_BL1 * scale_B11

    scaled = {
        "candle": torch.log(kind["candle"] / last_B11) / spread_BL1,
        "average": torch.log((kind["average"] / close_BL1).clamp_min(LEAST)) / (4 * scale_B11),
        "pivot_price": torch.log(kind["pivot_price"] / close_BL1) / (scale_B11 * age_K.sqrt()),
        "volume": (torch.log1p(kind["volume"]) - volume_mean_B11) / volume_scale_B11,
        "difference": kind["difference"] / unit_BL1,
        "range": torch.log((kind["range"] / unit_BL1).clamp_min(LEAST)),
        "percent": (kind["percent"] - 50) / 50,
        "strength": (kind["strength"] - 25) / 25,
        "flow": (kind["flow"] / frames_BLF[..., KIND["volume"]][..., 1:].clamp_min(LEAST)).clamp(-4, 4) / 4,
        "pivot_age": kind["pivot_age"] / (kind["pivot_age"] + age_K),
    }
    scaled["pivot_price"] = scaled["pivot_price"].nan_to_num(nan=0.0)
    scaled["pivot_age"] = scaled["pivot_age"].nan_to_num(nan=1.0)
    return torch.cat([scaled[name] for name in KIND], dim=-1).clamp(-LIMIT, LIMIT)
