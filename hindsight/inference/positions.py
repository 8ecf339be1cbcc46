"""Positions: what a model with action values holds after each close.

Legend: N closes, one per tape row from `first_row` on. An action is the position to hold from a close to the next:
SHORT, FLAT or LONG, always as its code; `POSITION[code]` is −1, 0 or 1. Action values q [N, 3, 3] are indexed
[close, position held before, action], so that one forward pass over a stretch holds every path through it.

The position of a row follows from its own values, and from the position before it. Where a model says nothing, as at
every missing candle, it goes flat: what was held into a gap is left there without reward or cost, and held no more.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import ModelBroken

SHORT, FLAT, LONG = 0, 1, 2
POSITION = np.array([-1, 0, 1])

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
