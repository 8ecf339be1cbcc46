"""Losses of predictions that the market has answered. Lower is better.

Legend: N references, beside their labels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hindsight.inference.frames import Frames, Rows
from hindsight.inference.labels import VALIDATED, Labels
from hindsight.inference.predictions import SERVED

MINIMUM_PROBABILITY = 1e-6
CHANCE = (np.log(2), np.log(3), np.log(2))  # what who knows nothing loses on action, trend, side of the next pivot

Bools = NDArray[np.bool_]


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


class Part(NamedTuple):
    """One question of each reference: at the close of which row its answer is known, whether there is one, the loss."""

    settled: Rows  # [N]
    has_answer: Bools  # [N]
    losses: Frames  # [N] means something where there is an answer


def parts(labels: Labels, said: Frames) -> tuple[Part, Part, Part]:
    """Log losses of action, trend and side of the next pivot; `said` [N, 5] has the columns of SERVED."""
    candle, pivot, trend = labels.candle, labels.pivot, labels.trend
    up, high = candle.log_returns[:, 3] > 0, pivot.next_type == 1
    came = said[np.arange(len(said)), 1 + np.maximum(trend.trend, 0)]
    turned: Bools = np.any(pivot.usable[:, :2], axis=1)
    return (
        Part(candle.settled, candle.usable & (candle.log_returns[:, 3] != 0), log_loss(of_what_came(said[:, 0], up))),
        Part(trend.settled, trend.status == VALIDATED, log_loss(came)),
        Part(pivot.settled[:, :2].min(1), turned, log_loss(of_what_came(said[:, 4], high))),
    )


def reference_losses(labels: Labels, said: Frames, event_row: int) -> Frames:
    """The loss [N] of each reference by the answers known at the close of `event_row`: its parts, added up. A part
    that has no answer counts 0; NaN where none has one. For `said` see `parts`.
    """
    found = parts(labels, said)
    known = [part.has_answer & (part.settled <= event_row) for part in found]
    total = sum(np.where(is_known, part.losses, 0) for is_known, part in zip(known, found, strict=True))
    return np.where(np.any(known, axis=0), total, np.nan)


def window_loss(labels: Labels, predictions: Frames, made: Bools, event_row: int, window: int) -> tuple[float, int]:
    """The prequential loss over what was settled in the last `window` closes, and how many candles that is.

    The mean loss of each part, added up; a part without any answer counts as chance. All arrays stand beside `labels`.
    Every prediction was made before its answer, by the weights of its own time, so the loss is out of sample by
    construction.
    """
    found = [
        part.losses[made & part.has_answer & (part.settled > event_row - window) & (part.settled <= event_row)]
        for part in parts(labels, predictions[:, SERVED])
    ]
    means = [float(each.mean()) if len(each) else chance for each, chance in zip(found, CHANCE, strict=True)]
    return sum(means), len(found[0])
