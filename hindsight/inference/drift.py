"""Drift: at which rows the prequential loss of a model has risen, judged by what was known there.

Two detectors see the same losses. ADWIN compares the halves of a window that it cuts by itself. Source: Bifet & Gavaldà
2007, "Learning from Time-Changing Data with Adaptive Windowing", doi:10.1137/1.9781611972771.42
Page-Hinkley adds up how far the losses lie above their mean. Source: Page 1954, "Continuous Inspection Schemes",
doi:10.1093/biomet/41.1-2.100

Both take their values for independent, and neighbouring losses are not: they share most of their answer. So the means
of `pool` losses in a row are what they see. Both are shown how many standard deviations such a mean lies off, in the
spread of the first means after they started: losses of any scale have the same thresholds.

Nothing is remembered between two calls. The time grid has an anchor every `restart_every` rows; drifts between two
anchors are found by detectors that started, without a memory, at the anchor before the earlier one. Hence every drift
follows from the rule and the losses since `first_row_needed`, also one that happens just as an anchor passes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MINIMUM_SPREAD = 1e-6  # of a loss that hardly ever changes

Detector = Literal["adwin", "page_hinkley"]
Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRule:
    """When a rise of the loss is a drift.

    | field | unit, meaning |
    |---|---|
    | pool | losses per mean that is shown to a detector: a few times as many as usually share an answer |
    | adwin_delta | probability at which ADWIN's bound is passed by chance; 0 turns it off |
    | page_hinkley_threshold | standard deviations of a mean, added up; infinity turns it off |
    | page_hinkley_delta | standard deviations by which a mean may lie too high and count for nothing |
    | page_hinkley_min | means that set the spread, and before which neither detector speaks |
    | cool_down | rows after a drift in which no other is reported |
    | restart_every | rows from anchor to anchor |
    """

    pool: int = 60
    adwin_delta: float = 0.002
    page_hinkley_threshold: float = 10.0
    page_hinkley_delta: float = 0.5
    page_hinkley_min: int = 30
    cool_down: int = 1440
    restart_every: int = 10_080

    def __post_init__(self) -> None:
        if self.pool < 1 or self.page_hinkley_min < 2 or self.cool_down < 0:
            raise ValueError(
                "expected a pool of at least 1, a page_hinkley_min of at least 2 and a cool_down of at least 0, found"
                f" {self.pool}, {self.page_hinkley_min} and {self.cool_down}"
            )
        if not (0 <= self.adwin_delta < 1 and self.page_hinkley_delta >= 0 and self.page_hinkley_threshold > 0):
            raise ValueError(
                "expected an adwin_delta in [0, 1), a page_hinkley_delta of at least 0 and a page_hinkley_threshold"
                f" above 0, found {self.adwin_delta}, {self.page_hinkley_delta} and {self.page_hinkley_threshold}"
            )
        if self.restart_every < self.pool * self.page_hinkley_min:
            raise ValueError(
                f"expected a restart_every that holds {self.page_hinkley_min} means of {self.pool} losses, found"
                f" {self.restart_every} rows"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A rise of the loss: the row at which it was known, and the mean losses before and after it set in."""

    row: int
    detector: Detector
    mean_before: float
    mean_after: float


def first_row_needed(row: int, rule: DriftRule) -> int:
    """The first row whose losses have a say in the drifts at `row` and later: the anchor before its anchor."""
    return (row // rule.restart_every - 1) * rule.restart_every


def drifts(rows: Ints, losses: Floats, *, rule: DriftRule, since: int = 0) -> list[Drift]:
    """The drifts at `since` and later, in order. `rows` [N] are those at which the `losses` [N] settled, ascending.

    They are the same whether the losses begin at `first_row_needed(since, rule)` or anywhere before it, and the first n
    losses give those of them that were known by then. The losses need not end anywhere in particular: a pool that is
    not full says nothing yet.

    A loss that is NaN has no answer and is passed over. From a drift on, both detectors start anew. The cool-down is
    that of the detectors that report: two drifts may lie closer together where an anchor lies between them.

    Raises ValueError for an infinite loss, for rows out of order, and for arrays of different lengths.
    """
    if len(rows) != len(losses) or (np.diff(rows) < 0).any():
        raise ValueError(f"expected ascending rows, one per loss, found {len(rows)} rows and {len(losses)} losses")
    if np.isinf(losses).any():
        raise ValueError(f"expected finite losses, or NaN, found {losses[np.isinf(losses)][0]}")
    is_answered = ~np.isnan(losses)
    rows, losses = rows[is_answered], losses[is_answered].astype(np.float64)
    found = []
    for anchor in (np.unique(rows[rows >= since] // rule.restart_every) * rule.restart_every).tolist():
        ends = (first_row_needed(anchor, rule), anchor + rule.restart_every)
        span = slice(*np.searchsorted(rows, ends))
        found += [each for each in _since_start(rows[span], losses[span], rule) if each.row >= max(anchor, since)]
    return found


def _since_start(rows: Ints, losses: NDArray[np.float64], rule: DriftRule) -> Iterator[Drift]:
    """What detectors report that start with the first of these losses."""
    pools = len(losses) // rule.pool
    means = losses[: pools * rule.pool].reshape(pools, rule.pool).mean(axis=1)
    known_rows = rows[rule.pool - 1 :: rule.pool].tolist()
    start, quiet_until = 0, 0
    while change := _first_change(means[start:], rule):
        index, detector, onset = change
        before, after = means[start : start + onset], means[start + onset : start + index + 1]
        row = known_rows[start + index]
        start += index + 1
        if after.mean() > before.mean() and row >= quiet_until:
            quiet_until = row + rule.cool_down
            yield Drift(row=row, detector=detector, mean_before=float(before.mean()), mean_after=float(after.mean()))


def _first_change(means: NDArray[np.float64], rule: DriftRule) -> tuple[int, Detector, int] | None:
    """The index at which a change of either direction is found, who found it, and the index at which it set in.

    That is where the means before and after differ most, in their own errors. Source: Hinkley 1970, "Inference about
    the Change-Point in a Sequence of Random Variables", doi:10.1093/biomet/57.1.1
    """
    least = rule.page_hinkley_min
    if len(means) < least:
        return None
    from river.drift import ADWIN, PageHinkley  # takes over a second to import

    spread = max(float(means[:least].std()), MINIMUM_SPREAD)
    values = (means - means[:least].mean()) / spread
    adwin = ADWIN(delta=rule.adwin_delta, clock=1, grace_period=least)
    page_hinkley = PageHinkley(
        min_instances=least,
        delta=rule.page_hinkley_delta,
        threshold=rule.page_hinkley_threshold,
        alpha=1.0,  # what is restarted need not forget
        mode="up",
    )
    for index, value in enumerate(values.tolist()):
        adwin.update(value)
        page_hinkley.update(value)
        if adwin.drift_detected or page_hinkley.drift_detected:
            size, earlier = index + 1, np.arange(1, index + 1)
            lean = np.cumsum(values[:size] - values[:size].mean())[:-1] / np.sqrt(earlier * (size - earlier))
            if adwin.drift_detected:
                return index, "adwin", int(np.argmax(np.abs(lean))) + 1
            return index, "page_hinkley", int(np.argmin(lean)) + 1  # which finds rises alone
    return None
