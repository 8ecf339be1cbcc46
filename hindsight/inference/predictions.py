"""Predictions in natural units: what a reference stores, one float32 row of 17 numbers.

| columns | unit |
|---|---|
| buy | probability that the target candle closes above the last close |
| open high low close | log return against the last close |
| down sideways up | probabilities of the trend |
| next_high | probability that the next confirmed L2 pivot is a high |
| L2L L2H L3L L3H return | log return to the pivot's price |
| L2L L2H L3L L3H candles | candles to the pivot, 1 is the target candle |
"""

import numpy as np
from numpy.typing import NDArray

from hindsight.inference.frames import Frames
from hindsight.inference.labels import PIVOT_TARGETS

WIDTH = 17
BUY, CANDLE, TREND, NEXT_HIGH = 0, slice(1, 5), slice(5, 8), 8
SERVED = [0, 5, 6, 7, 8]  # what is kept of the serving weights: buy, down, sideways, up, next_high
SERVED_UNIT = 65_535
PIVOT_RETURN, PIVOT_CANDLES = slice(9, 13), slice(13, 17)
# Candles that a pivot usually lies away, by its level; each level is about four times the one below. Scales only.
USUAL_AGE = {1: 4.0, 2: 16.0, 3: 64.0, 4: 256.0, 5: 1024.0}
TARGET_AGES = np.array([USUAL_AGE[int(pivot_type[1])] for pivot_type in PIVOT_TARGETS], np.float32)


def trend_predicted(predictions: Frames) -> NDArray[np.int8]:
    """The likeliest trend [N]: 0 down, 1 sideways, 2 up."""
    return predictions[:, TREND].argmax(axis=1).astype(np.int8)
