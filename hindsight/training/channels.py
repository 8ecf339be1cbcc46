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

from hindsight.inference.frames import COLUMN, COLUMNS, PIVOT_TYPES
from hindsight.inference.predictions import USUAL_AGE

_PRICE_LIKE = [COLUMN[name] for name in ("sma_10", "sma_20", "sma_50", "ema_12", "ema_26")]
_BANDS = [COLUMN[name] for name in ("bb_upper", "bb_middle", "bb_lower")]
_MACD = [COLUMN[name] for name in ("macd", "macd_signal", "macd_hist")]
_BOUNDED = [COLUMN[name] for name in ("rsi_14", "stoch_k", "stoch_d")]
_PIVOT_PRICE = [COLUMN[f"{pivot_type}_price"] for pivot_type in PIVOT_TYPES]
_PIVOT_AGE = [COLUMN[f"{pivot_type}_age"] for pivot_type in PIVOT_TYPES]
_LEVEL_AGE = [USUAL_AGE[int(pivot_type[1])] for pivot_type in PIVOT_TYPES]
CHANNELS = len(COLUMNS)
LIMIT = 8.0  # a channel beyond this says "extreme" and no more


def channels(frames_BLF: Tensor, norm_B4: Tensor) -> Tensor:
    """Channels [B, L, C] of visible frames, in the order in which they are laid below."""
    close_BL1 = frames_BLF[..., 3:4]
    last_B11, scale_B11, volume_mean_B11, volume_scale_B11 = norm_B4[:, :, None, None].unbind(1)
    lookback = frames_BLF.shape[1]
    back_L1 = torch.arange(lookback, 0, -1, device=frames_BLF.device, dtype=frames_BLF.dtype).sqrt()[:, None]
    age_K = torch.tensor(_LEVEL_AGE, device=frames_BLF.device, dtype=frames_BLF.dtype)

    ohlc = torch.log(frames_BLF[..., :4] / last_B11) / (scale_B11 * back_L1)
    volume_and_mean = (torch.log1p(frames_BLF[..., _VOLUMES]) - volume_mean_B11) / volume_scale_B11
    averages = torch.log(frames_BLF[..., _PRICE_LIKE + _BANDS] / close_BL1) / (4 * scale_B11)
    unit_BL1 = close_BL1 * scale_B11
    macd = frames_BLF[..., _MACD] / unit_BL1
    atr = torch.log(frames_BLF[..., [COLUMN["atr_14"]]].clamp_min(1e-12) / unit_BL1)
    bounded = (frames_BLF[..., _BOUNDED] - 50) / 50
    adx = (frames_BLF[..., [COLUMN["adx_14"]]] - 25) / 25
    flow = (
        frames_BLF[..., [COLUMN["obv_change"]]] / frames_BLF[..., [COLUMN["volume_sma_20"]]].clamp_min(1e-12)
    ).clamp(-4, 4) / 4
    distance = torch.log(frames_BLF[..., _PIVOT_PRICE] / close_BL1) / (scale_B11 * age_K.sqrt())
    age = frames_BLF[..., _PIVOT_AGE]
    staleness = age / (age + age_K)
    laid = torch.cat(
        [
            ohlc,
            volume_and_mean,
            averages,
            macd,
            atr,
            bounded,
            adx,
            flow,
            torch.nan_to_num(distance, nan=0.0),
            torch.nan_to_num(staleness, nan=1.0),
        ],
        dim=-1,
    )
    return laid.clamp(-LIMIT, LIMIT)


_VOLUMES = [COLUMN["volume"], COLUMN["volume_sma_20"]]
