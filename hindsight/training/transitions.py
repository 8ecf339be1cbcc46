"""Transitions: what the positions of references earned, and would have earned, as far as known at an event.

Legend: N references of a memory, B of them chosen, by position in it; S rewards of each. Positions and their rewards
are those of `inference.positions` and `inference.trading`; a position is held to the next close at which a prediction
is due.

A trader this small does not move the market, so that the rewards of all nine (position held before, action) are known
once one of them is. As q[previous][action] = worth[action] − cost · |action − previous|, three numbers hold all nine:
the worth of being short, flat or long from a close on. What it costs to get there is no matter of opinion.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hindsight.inference.frames import Frames, Rows
from hindsight.inference.labels import Labels
from hindsight.inference.positions import FLAT, POSITION, hold_along
from hindsight.inference.trading import rewards_of, rewards_of_all
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.memory import Memory

EXTRAS = ("previous", "action", "q_short", "q_flat", "q_long")  # q of the three actions, from `previous`
PREVIOUS, ACTION, Q = 0, 1, slice(2, 5)
TURNOVER = np.abs(POSITION[:, None] - POSITION)  # [3, 3] from a position to another

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def take_positions(memory: Memory, at: Rows, worth_B3: Frames, hyper: Hyperparameters) -> Frames:
    """EXTRAS [B, 5] of the references at positions `at`, in order of time: at each close the action of largest value
    from the position that is held there, which is flat after a close at which none was made."""
    every = hyper.predict_every
    q_B33 = (worth_B3[:, None, :] - _cost(memory, at, hyper)[:, None, None] * TURNOVER).astype(np.float32)
    found = np.empty((len(at), len(EXTRAS)), np.float32)
    runs = np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) != every) + 1)
    for run in runs if len(at) else ():
        before = at[run[:1]] - every
        held = int(memory.extras[before[0], ACTION]) if _is_made(memory, before)[0] else FLAT
        decided = hold_along(q_B33[run], first_row=memory.first_row + int(at[run[0]]), previous=held)
        found[run, PREVIOUS], found[run, ACTION] = decided.previous, decided.actions
        found[run, Q] = q_B33[run, decided.previous]
    return found


class Transitions(NamedTuple):
    """From each reference [B] on, for each first position: a few rewards, and where the values go on from there."""

    rewards_B3: Floats  # discounted and added up, in return scales of the reference, without the way to that position
    reached_B3: Rows  # position held at the end
    next_at: Rows  # [B] the reference there, by position in the memory; its own where nothing is known
    discount_B: Floats  # of the values there, in return scales of the reference
    cost_B: Floats  # of one unit of turnover there, in its own return scales
    known_B: Bools


def transitions(labels: Labels, memory: Memory, at: Rows, row: int, hyper: Hyperparameters) -> Transitions:
    """The next `return_steps` rewards of the references at positions `at`, as far as known at the close of `row`.

    After the first position they follow the values on record, from whatever position that leads to: from the one that
    was held, to those that were held. They end early before a candle that is missing or not there yet, and before a
    close without a reference; where that is the first, nothing is known.
    Source: Hessel et al. 2017, "Rainbow", https://arxiv.org/abs/1710.02298, multi-step learning
    """
    every, steps, cost = hyper.predict_every, hyper.return_steps, hyper.trading_cost
    start_SB = at + every * np.arange(steps)[:, None]
    log_return = returns_to_next(labels, start_SB.ravel(), row, every)
    comes = np.isfinite(log_return) & _is_made(memory, start_SB.ravel() + every, row)
    goes_on_SB = np.logical_and.accumulate(comes.reshape(start_SB.shape))
    reward_SB33 = rewards_of_all(log_return, cost).reshape(*start_SB.shape, 3, 3)
    later = np.where(goes_on_SB, start_SB, at)[1:]
    followed = _followed(memory, later.ravel(), hyper).reshape(*later.shape, 3)
    position_B3 = np.tile(np.arange(3), (len(at), 1))
    rewards_B3, each = np.zeros((len(at), 3)), np.arange(len(at))[:, None]
    for nth, goes_on_B in enumerate(goes_on_SB):
        action_B3 = followed[nth - 1][each, position_B3] if nth else position_B3
        reward_B3 = reward_SB33[nth][each, position_B3, action_B3]
        rewards_B3 += np.where(goes_on_B[:, None], hyper.discount**nth * reward_B3, 0)
        position_B3 = np.where(goes_on_B[:, None], action_B3, position_B3)
    count_B, scale_B = goes_on_SB.sum(axis=0), memory.norm_params[at, 1].astype(np.float64)
    next_at = at + every * count_B
    discount_B = np.array([hyper.discount**nth for nth in range(steps + 1)])[count_B]
    return Transitions(
        rewards_B3=rewards_B3 / scale_B[:, None],
        reached_B3=position_B3,
        next_at=next_at,
        discount_B=discount_B * memory.norm_params[next_at, 1] / scale_B,
        cost_B=_cost(memory, next_at, hyper),
        known_B=count_B > 0,
    )


class Settled(NamedTuple):
    """What the positions of references [B] came to; `td_error` in return scales."""

    log_return: Floats  # to the next close at which a prediction is due
    reward: Floats  # share of the equity, net of costs
    td_error: Floats  # by the values on record at both ends; NaN where no reference was made at the other


def settle(labels: Labels, memory: Memory, at: Rows, row: int, hyper: Hyperparameters) -> Settled:
    """What came of the references at positions `at` by the close of `row`; NaN where that is not known, or unusable."""
    every, scale = hyper.predict_every, memory.norm_params[:, 1]
    log_return = returns_to_next(labels, at, row, every)
    said = memory.extras.take(at, axis=0)
    previous, action = said[:, PREVIOUS].astype(np.int8), said[:, ACTION].astype(np.int8)
    reward = rewards_of(log_return, previous, action, hyper.trading_cost)
    goes_on = _is_made(memory, at + every, row)
    then = np.where(goes_on, at + every, at)
    short, flat, long = memory.extras.take(then, axis=0)[:, Q].T
    best = np.maximum(np.maximum(short, flat), long)  # far faster than the largest along an axis of three
    value = said[np.arange(len(at)), Q.start + action]
    td_error = (reward + hyper.discount * best * scale[then]) / scale[at] - value
    return Settled(log_return, reward, np.where(goes_on, td_error, np.nan))


def traded(memory: Memory, at: Rows) -> Bools:
    """Which of the references at positions `at` hold a position on record."""
    return memory.made[at] & np.isfinite(memory.extras[at, ACTION])


def returns_to_next(labels: Labels, at: Rows, row: int, every: int) -> Floats:
    """The log returns [B] over the `every` candles after each position; NaN unless all came, by the close of `row`."""
    known = labels.first_row + at + every <= row
    span = np.where(known, at, 0)[:, None] + np.arange(every)
    span = np.minimum(span, len(labels.candle.usable) - 1)
    usable = known & labels.candle.usable[span].all(axis=1)
    return np.where(usable, labels.candle.log_returns[span, 3].astype(np.float64).sum(axis=1), np.nan)


def _is_made(memory: Memory, at: Rows, row: int | None = None) -> Bools:
    """Whether a reference with a position on record was made at each position, none of them after `row`."""
    inside = (at >= 0) & (at < len(memory.made) if row is None else memory.first_row + at <= row)
    return inside & np.isfinite(memory.extras[np.where(inside, at, 0), ACTION])


def _followed(memory: Memory, at: Rows, hyper: Hyperparameters) -> Rows:
    """[B, 3] the action of largest value on record, from each position that could have been held there."""
    said = memory.extras[at]
    saved = TURNOVER[said[:, PREVIOUS].astype(np.int8), :][:, None, :] - TURNOVER
    q_B33 = said[:, None, Q] + _cost(memory, at, hyper)[:, None, None] * saved
    keeps = np.diagonal(q_B33, axis1=1, axis2=2) == q_B33.max(axis=2)
    return np.where(keeps, np.arange(3), q_B33.argmax(axis=2))


def _cost(memory: Memory, at: Rows, hyper: Hyperparameters) -> Floats:
    """What a unit of turnover costs, in the return scales of each reference."""
    return hyper.trading_cost.per_turnover / memory.norm_params[at, 1].astype(np.float64)
