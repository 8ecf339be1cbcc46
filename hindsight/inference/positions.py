"""Positions: what a model with action values holds after each close, and which of its experience it learns from again.

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
PRIORITY_QUOTA = 0.5  # of a draw that goes by priority; the rest is every experience's alike
LEAST_PRIORITY = 0.05
CERTAIN = 1 - 1e-9  # a chance from which on an experience is simply drawn

Actions = NDArray[np.int8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What is held from each close to the next, as codes."""

    actions: Actions  # [N]
    previous: Actions  # [N] held before: the action of the row before
    explored: Bools  # [N] the action was drawn, not chosen


def decide(q: Floats, *, first_row: int, previous: int = FLAT, epsilon: float = 0.0, seed: int = 0) -> Decided:
    """The actions of largest value along the path that they make, from `previous` on, the one held before `first_row`.

    `q` [N, 3, 3] is NaN throughout a row at which the model says nothing. Of equal values the position held before is
    kept, else the flat one, else the lower code. With the chance `epsilon` the action of a row is drawn instead, all
    three alike: chance follows from (seed, row), so that any pieces of a stretch give the whole.

    Raises ModelBroken for any other value that is not finite.
    """
    if q.shape[1:] != (3, 3) or not SHORT <= previous <= LONG or not 0 <= epsilon <= 1:
        raise ValueError(
            "expected values [N, 3, 3], a previous position of 0 to 2 and an epsilon of 0 to 1, found"
            f" {list(q.shape)}, {previous} and {epsilon}"
        )
    is_silent: Bools = np.all(np.isnan(q), axis=(1, 2))
    _check_values(q, is_silent, first_row)
    chosen = _best(np.where(is_silent[:, None, None], 0, q))
    explored, drawn = _chance(first_row, len(q), epsilon, seed)
    explored &= ~is_silent
    chosen[explored] = drawn[explored, None]
    chosen[is_silent] = FLAT
    path = [previous]
    for of_previous in chosen.tolist():
        path.append(of_previous[path[-1]])
    held = np.array(path, np.int8)
    return Decided(actions=held[1:], previous=held[:-1], explored=explored)


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


def _chance(first_row: int, count: int, epsilon: float, seed: int) -> tuple[Bools, Rows]:
    """Whether each row explores [N], and the action that it then takes [N].

    The generator counts blocks of four words, and the block of a row is that of its number. Source: Salmon et al. 2011,
    "Parallel Random Numbers: As Easy as 1, 2, 3", doi:10.1145/2063384.2063405
    """
    if epsilon == 0:
        return np.zeros(count, np.bool_), np.full(count, FLAT)
    words = np.random.Philox(key=seed, counter=first_row).random_raw(4 * count).reshape(count, 4)
    return (words[:, 0] >> 11) * 2.0**-53 < epsilon, (words[:, 1] % 3).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns:
    """What the positions taken from each close on earned over the next few, and where the values go on from there."""

    total: NDArray[np.float64]  # [N] discounted rewards; NaN: no experience, or not yet
    bootstrap: Rows  # [N] index of the close whose values take over; -1 where there is no experience
    discount: NDArray[np.float64]  # [N] of those values; 0 where there is no experience


def n_step(
    rewards: Floats, gamma: float, n: int, *, first_row: int, event_row: int, predictable: Bools | None = None
) -> Returns:
    """The sum of the next `n` rewards [N], discounted by `gamma` each, as far as known at the close of `event_row`.

    The reward of a row is settled at the close of the next one. Row r becomes experience at the close of r + n and not
    before: its return is then final. The sum ends early, at a close that was delivered, before a reward that is NaN
    (the next candle is missing), and where `predictable` [N] is given, at the last close that the model can value; a
    row without one after it is no experience. The values take over at that close with the position held before it.
    Source: Sutton & Barto 2018, Reinforcement Learning, §7.1; the rewards are those of the positions taken, whatever
    the model would take now.
    """
    if not 0 <= gamma <= 1 or n < 1:
        raise ValueError(f"expected a gamma of 0 to 1 and an n of at least 1, found {gamma} and {n}")
    count = len(rewards)
    valued = np.ones(count, np.bool_) if predictable is None else predictable
    total, bootstrap, discount = np.full(count, np.nan), np.full(count, -1), np.zeros(count)
    ready = min(event_row - first_row, count - 1) - n + 1  # rows whose n-th close is there
    if ready <= 0:
        return Returns(total=total, bootstrap=bootstrap, discount=discount)
    so_far, is_whole = np.zeros(ready), valued[:ready].copy()
    for step in range(1, n + 1):
        so_far += gamma ** (step - 1) * rewards[step - 1 : step - 1 + ready]
        is_whole &= np.isfinite(so_far)
        at = np.flatnonzero(is_whole & valued[step : step + ready])
        total[at], bootstrap[at], discount[at] = so_far[at], at + step, gamma**step
    return Returns(total=total, bootstrap=bootstrap, discount=discount)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperienceRule:
    """How unevenly experience is drawn again.

    | field | meaning |
    |---|---|
    | profit_share | of a priority that is profit, 0 to 1; the rest is surprise |
    | exponent | of priority, alpha in the source: 0 makes all alike, 1 draws in proportion |
    | correction | of importance, beta in the source: 0 corrects nothing, 1 undoes the priority altogether |
    """

    profit_share: float = 0.3
    exponent: float = 0.6
    correction: float = 0.5

    def __post_init__(self) -> None:
        for name in ("profit_share", "exponent", "correction"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingRefused(f"{name}: expected 0 to 1, found {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperienceDraw:
    """The drawn experience in the order of its rows, and the importance of each."""

    rows: Rows
    weights: NDArray[np.float64]


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


def draw_experience(
    rows: Rows, priorities: NDArray[np.float64], count: int, rule: ExperienceRule, seed: int
) -> ExperienceDraw:
    """`count` different experiences out of `rows` [M], or all where there are fewer; `priorities` [M] stand beside.

    `rows` holds only what is settled, recent enough, and not used too often. Half of the chance goes by priority and
    half to all alike, so that each is drawn at least half as often as without priorities, whatever the others are, and
    no weight exceeds 2 ** correction. The chances are exact: with a correction of 1 the mean of a draw, weights
    included, is on average the mean of all. A draw is spread evenly over the rows, in their order.
    Source of the mixture: Owen & Zhou 2000, "Safe and Effective Importance Sampling",
    doi:10.1080/01621459.2000.10473909; of the draw: Madow 1949, "On the Theory of Systematic Sampling, II",
    doi:10.1214/aoms/1177729988
    """
    available = len(rows)
    if len(priorities) != available or not (np.isfinite(priorities) & (priorities > 0)).all():
        raise ValueError(f"expected a finite priority above 0 for each of {available} rows, found {priorities}")
    if count >= available:
        return ExperienceDraw(rows=rows.copy(), weights=np.ones(available))
    if count <= 0:
        return ExperienceDraw(rows=rows[:0].copy(), weights=np.empty(0))
    pull = priorities**rule.exponent
    share = (1 - PRIORITY_QUOTA) / available + PRIORITY_QUOTA * pull / pull.sum()
    chance = _chance_of_each(share, count)
    start = np.random.Generator(np.random.PCG64(seed)).random()
    is_sure = chance == 1
    marks = start + np.arange(count - int(is_sure.sum()))
    picked = np.searchsorted(np.cumsum(chance[~is_sure]), marks, side="right")
    unsure = np.flatnonzero(~is_sure)
    at = np.sort(np.concatenate([np.flatnonzero(is_sure), unsure[np.minimum(picked, len(unsure) - 1)]]))
    return ExperienceDraw(rows=rows[at], weights=(count / available / chance[at]) ** rule.correction)


def _chance_of_each(share: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The chances of being among `count` drawn, in proportion to `share`, none above 1; they sum up to `count`."""
    is_sure = np.zeros(len(share), np.bool_)
    while True:
        chance = share * (count - is_sure.sum()) / share[~is_sure].sum()
        is_over = ~is_sure & (chance >= CERTAIN)
        if not is_over.any():
            return np.where(is_sure, 1.0, chance)
        is_sure |= is_over
