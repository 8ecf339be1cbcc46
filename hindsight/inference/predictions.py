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
from hindsight.inference.labels import PENDING, PIVOT_TARGETS, VALIDATED, Labels

WIDTH = 17
BUY, CANDLE, TREND, NEXT_HIGH = 0, slice(1, 5), slice(5, 8), 8
SERVED = [0, 5, 6, 7, 8]  # what is kept of the serving weights: buy, down, sideways, up, next_high
SERVED_UNIT = 65_535
PIVOT_RETURN, PIVOT_CANDLES = slice(9, 13), slice(13, 17)
MINIMUM_PROBABILITY = 1e-6
# Candles that a pivot usually lies away, by its level; each level is about four times the one below. Scales only.
USUAL_AGE = {1: 4.0, 2: 16.0, 3: 64.0, 4: 256.0, 5: 1024.0}
TARGET_AGES = np.array([USUAL_AGE[int(pivot_type[1])] for pivot_type in PIVOT_TARGETS], np.float32)

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]


def log_loss(probability: Frames) -> Frames:
    """−log of the probability given to what came true, at most −log(1e-6)."""
    return -np.log(np.maximum(probability, MINIMUM_PROBABILITY))


def of_what_came(probability: Frames, came: Bools) -> Frames:
    """The probability that a two-way prediction gave to what came true."""
    return np.where(came, probability, 1 - probability)


def huber(error: Frames) -> Frames:
    """Half the square up to 1, linear beyond. Source: Huber 1964, doi:10.1214/aoms/1177703732"""
    size = np.abs(error)
    return np.where(size <= 1, 0.5 * error**2, size - 0.5)


def reference_losses(labels: Labels, said: Frames, event_row: int) -> Frames:
    """The loss [N] of each reference by the answers known at the close of `event_row`: the log losses of action, trend
    and side of the next pivot, added up. A part that has no answer counts 0; NaN where none has one.

    `said` [N, 5] has the columns of SERVED and stands beside the labels.
    """
    candle, pivot, trend = labels.candle, labels.pivot, labels.trend
    moved = candle.usable & (candle.log_returns[:, 3] != 0) & (candle.settled <= event_row)
    graded = (trend.status == VALIDATED) & (trend.settled <= event_row)
    first_l2 = pivot.settled[:, :2].min(axis=1)
    turned = (first_l2 <= event_row) & pivot.usable[:, :2].any(axis=1)
    up, high = candle.log_returns[:, 3] > 0, pivot.next_type == 1
    came = said[np.arange(len(said)), 1 + np.maximum(trend.trend, 0)]
    parts = (
        np.where(moved, log_loss(of_what_came(said[:, 0], up)), 0),
        np.where(graded, log_loss(came), 0),
        np.where(turned, log_loss(of_what_came(said[:, 4], high)), 0),
    )
    return np.where(moved | graded | turned, sum(parts), np.nan)


def trend_predicted(predictions: Frames) -> NDArray[np.int8]:
    """The likeliest trend [N]: 0 down, 1 sideways, 2 up."""
    return predictions[:, TREND].argmax(axis=1).astype(np.int8)


def window_loss(labels: Labels, predictions: Frames, made: Bools, event_row: int, window: int) -> tuple[float, int]:
    """The prequential loss over what was settled in the last `window` closes, and how many candles that is.

    Mean log loss of the action, plus that of the trend, plus that of the side of the next pivot; a part without any
    answer counts as chance. All arrays stand beside `labels`. Every prediction was made before its answer, by the
    weights of its own time, so the loss is out of sample by construction.
    """

    def recent(settled: Rows) -> Bools:
        return made & (settled > event_row - window) & (settled <= event_row)

    candle, pivot, trend = labels.candle, labels.pivot, labels.trend
    moved = recent(candle.settled) & candle.usable & (candle.log_returns[:, 3] != 0)
    graded = recent(trend.settled) & (trend.status == VALIDATED)
    first_l2 = pivot.settled[:, :2].min(axis=1)
    turned = recent(first_l2) & (first_l2 < PENDING) & (pivot.usable[:, :2].any(axis=1))
    parts = (
        log_loss(of_what_came(predictions[moved, BUY], candle.log_returns[moved, 3] > 0)),
        log_loss(predictions[:, TREND][graded, trend.trend[graded]]),
        log_loss(of_what_came(predictions[turned, NEXT_HIGH], pivot.next_type[turned] == 1)),
    )
    chance = (np.log(2), np.log(3), np.log(2))
    total = sum(float(part.mean()) if len(part) else none for part, none in zip(parts, chance, strict=True))
    return total, int(moved.sum())
