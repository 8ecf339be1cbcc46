"""Positions: what a model with action values holds after each close, and how much its experience is worth another look.

Legend: N closes, one per tape row from `first_row` on; M experiences. An action is the position to hold from a close to
the next: SHORT, FLAT or LONG, always as its code; `POSITION[code]` is −1, 0 or 1. Action values q [N, 3, 3] are indexed
[close, position held before, action], so that one forward pass over a stretch holds every path through it.

The position of a row follows from its own values, and from the position before it. Where a model says nothing, as at
every missing candle, it goes flat: what was held into a gap is left there without reward or cost, and held no more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import ModelBroken, SettingRefused

SHORT, FLAT, LONG = 0, 1, 2
POSITION = np.array([-1, 0, 1])
LEAST_PRIORITY = 0.05

Actions = NDArray[np.int8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What is held from each close to the next, as codes."""

    actions: Actions  # [N]
    previous: Actions  # [N] held before: the action of the row before


def hold_along(q: Floats, *, first_row: int, previous: int = FLAT) -> Decided:
    """The actions of largest value along the path that they make, from `previous` on, the one held before `first_row`.

    `q` [N, 3, 3] is NaN throughout a row at which the model says nothing. Of equal values the position held before is
    kept, else the flat one, else the lower code. Any pieces of a stretch give the whole.

    Raises ModelBroken for any other value that is not finite.
    """
    if q.shape[1:] != (3, 3) or not SHORT <= previous <= LONG:
        raise ValueError(
            f"expected values [N, 3, 3] and a previous position of 0 to 2, found {list(q.shape)} and {previous}"
        )
    is_silent: Bools = np.all(np.isnan(q), axis=(1, 2))
    _check_values(q, is_silent, first_row)
    chosen = _best(np.where(is_silent[:, None, None], 0, q))
    chosen[is_silent] = FLAT
    path = [previous]
    for of_previous in chosen.tolist():
        path.append(of_previous[path[-1]])
    held = np.array(path, np.int8)
    return Decided(actions=held[1:], previous=held[:-1])


def _check_values(q: Floats, is_silent: Bools, first_row: int) -> None:
    is_broken = ~np.all(np.isfinite(q), axis=(1, 2)) & ~is_silent
    if is_broken.any():
        at = int(np.flatnonzero(is_broken)[0])
        raise ModelBroken(
            f"expected nine finite action values, or nine times NaN, found {q[at].tolist()} at row {first_row + at}"
        )


def _best(q: Floats) -> Rows:
    """[N, 3] the action chosen from each position held before."""
    is_best = q == q.max(axis=2, keepdims=True)
    chosen = np.where(is_best[:, :, FLAT], FLAT, is_best.argmax(axis=2))
    return np.where(np.diagonal(is_best, axis1=1, axis2=2), np.arange(3), chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperienceRule:
    """What makes experience worth another look: `profit_share` of it is profit, 0 to 1; the rest is surprise."""

    profit_share: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.profit_share <= 1:
            raise SettingRefused(f"profit_share: expected 0 to 1, found {self.profit_share}")


def priority(td_error: Floats, reward: Floats, rule: ExperienceRule) -> NDArray[np.float64]:
    """LEAST_PRIORITY to 1 for each experience [M]: how far its value was off, and what it earned, if it earned.

    Both are in units of what a candle usually moves, the scale of the frame; one such unit counts as half of the most.
    An error that is not finite, or not known yet, is as large as can be. Raises ValueError for such a reward.
    Source of the priority by |TD error|: Schaul et al., "Prioritized Experience Replay",
    https://arxiv.org/abs/1511.05952, §3.3
    """
    if not np.isfinite(reward).all():
        raise ValueError("expected finite rewards: what has no usable outcome is no experience")
    # 1 − 1 / (1 + x) has a value at infinity, which x / (1 + x) has not.
    surprise = 1 - 1 / (1 + np.abs(np.where(np.isnan(td_error), np.inf, td_error.astype(np.float64))))
    profit = 1 - 1 / (1 + np.maximum(reward.astype(np.float64), 0))
    mixed = (1 - rule.profit_share) * surprise + rule.profit_share * profit
    return LEAST_PRIORITY + (1 - LEAST_PRIORITY) * mixed
