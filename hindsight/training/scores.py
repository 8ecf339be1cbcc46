"""Prequential scores: the model and its baselines, on the same references, summed per UTC day of made_at.

| target | baselines |
|---|---|
| action | `always_up`, `class_prior` (share of the window before the day), `logistic_regression` |
| trend | `class_prior`, `logistic_regression` |
| next_pivot | `opposite_side` of the last confirmed L2 pivot, `class_prior`, `logistic_regression` |
| candle | `no_change` (all four at the last close), `last_range` (the last candle's shape, again) |

A baseline of a day has learned only from what was settled before that day began: shares and regressions are fitted on
the references of the FITTED days before. The rules `always_up` and `opposite_side` speak with the probability at which
they were right in that window, so that a log loss can be asked of them.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hindsight.inference.frames import COLUMN, Frames, Tape
from hindsight.inference.labels import PENDING, VALIDATED, Labels
from hindsight.inference.losses import huber, log_loss
from hindsight.inference.predictions import BUY, CANDLE, NEXT_HIGH, TREND
from hindsight.market.streams import EPOCH, Stream
from hindsight.training.channels import channels
from hindsight.training.memory import Memory

FITTED = timedelta(days=7)
THINNED = 3  # every third reference is fitted: neighbours share most of their answer
ENOUGH = 200  # references below which nothing is fitted and the class prior stands in
DAY_MS = 86_400_000

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One classification target: its classes, when each answer was known, and what the model said."""

    name: str
    answer: NDArray[np.int64]  # [N]
    known_row: NDArray[np.int64]  # [N] PENDING where there is no answer to score
    probability: Frames  # [N, C] of the model
    rule: NDArray[np.int64] | None  # [N] what the simple rule says, if the target has one
    rule_name: str

    def within(self, span: slice) -> Self:
        """The same of a stretch of its references alone."""
        return replace(
            self,
            answer=self.answer[span],
            known_row=self.known_row[span],
            probability=self.probability[span],
            rule=None if self.rule is None else self.rule[span],
        )


def first_scored(first: int, end: int, ttl: int, stream: Stream) -> int:
    """The first row whose reference is needed to score the days that become complete in [first, end); `first` when
    there are none: that of the first reference of the FITTED days before."""
    per_day = DAY_MS // stream.step_ms
    day = (first - ttl) // per_day  # the first one that is complete later than at row `first`
    if (day + 1) * per_day + ttl > end:
        return first
    return (day - FITTED // timedelta(days=1)) * per_day - 1


def score_days(
    tape: Tape, memory: Memory, labels: Labels, first: int, end: int, ttl: int, stream: Stream, model: str
) -> pl.DataFrame:
    """Scores of the UTC days that became complete at the closes of rows [first, end): when the last trend has expired.

    What was answered later than that (a pivot may be) is not scored.
    """
    row_day = (np.arange(len(memory.made)) + labels.first_row + 1) * stream.step_ms // DAY_MS
    complete = [
        day for day in np.unique(row_day[memory.made]) if first < (day + 1) * DAY_MS // stream.step_ms + ttl <= end
    ]
    targets = _targets(tape, memory, labels)
    records = [
        _record(model, day, target.name, predictor, *sums)
        for day in complete
        for target in targets
        for predictor, sums in _score(target, tape, memory, labels, row_day, int(day), ttl, stream).items()
    ]
    records += [
        _record(model, day, "candle", predictor, *sums)
        for day in complete
        for predictor, sums in _score_candle(tape, memory, labels, row_day == day).items()
    ]
    schema = {
        "model": pl.String,
        "day": pl.Date,
        "target": pl.String,
        "predictor": pl.String,
        "settled": pl.Int32,
        "correct": pl.Int32,
        "log_loss_sum": pl.Float64,
        "regression_loss_sum": pl.Float64,
    }
    key = {"venue": stream.venue, "symbol": stream.symbol, "timeframe": stream.timeframe}
    return pl.DataFrame(records, schema=schema, orient="row").with_columns(**{k: pl.lit(v) for k, v in key.items()})


def _targets(tape: Tape, memory: Memory, labels: Labels) -> list[Target]:
    candle, pivot, trend = labels.candle, labels.pivot, labels.trend
    returns = candle.log_returns[:, 3]
    moved = memory.made & candle.usable & (returns != 0)
    turned = memory.made & (pivot.next_type >= 0) & pivot.usable[:, :2].any(axis=1)
    graded = memory.made & (trend.status == VALIDATED)
    rows = tape.rows[labels.first_row - tape.first_row :]
    last_was_high = np.nan_to_num(rows[:, COLUMN["L2H_age"]], nan=np.inf) < np.nan_to_num(
        rows[:, COLUMN["L2L_age"]], nan=np.inf
    )
    buy, high = memory.predictions[:, BUY], memory.predictions[:, NEXT_HIGH]
    return [
        Target(
            name="action",
            answer=(returns > 0).astype(np.int64),
            known_row=np.where(moved, candle.settled, PENDING),
            probability=np.stack([1 - buy, buy], axis=1),
            rule=np.ones(len(returns), np.int64),
            rule_name="always_up",
        ),
        Target(
            name="trend",
            answer=np.maximum(trend.trend, 0).astype(np.int64),
            known_row=np.where(graded, trend.settled, PENDING),
            probability=memory.predictions[:, TREND],
            rule=None,
            rule_name="",
        ),
        Target(
            name="next_pivot",
            answer=(pivot.next_type == 1).astype(np.int64),
            known_row=np.where(turned, pivot.settled[:, :2].min(axis=1), PENDING),
            probability=np.stack([1 - high, high], axis=1),
            rule=(~last_was_high).astype(np.int64),
            rule_name="opposite_side",
        ),
    ]


def _score(
    target: Target,
    tape: Tape,
    memory: Memory,
    labels: Labels,
    row_day: NDArray[np.int64],
    day: int,
    ttl: int,
    stream: Stream,
) -> dict[str, tuple[int, int, float, None]]:
    day_row, next_day_row = (each * DAY_MS // stream.step_ms for each in (day, day + 1))
    start, end = np.searchsorted(row_day, (day - FITTED // timedelta(days=1), day + 1))
    target, row_day, first_row = target.within(slice(start, end)), row_day[start:end], labels.first_row + int(start)
    learnt = (row_day < day) & (target.known_row < day_row)
    # Not what is known by now: that would depend on how far this piece of history happens to go.
    asked = (row_day == day) & (target.known_row < next_day_row + ttl)
    classes = target.probability.shape[1]
    answer = target.answer[asked]
    share = (np.bincount(target.answer[learnt], minlength=classes) + 1) / (learnt.sum() + classes)
    said = {"model": target.probability[asked], "class_prior": np.tile(share, (asked.sum(), 1))}
    if target.rule is not None:
        right = ((target.rule == target.answer)[learnt].sum() + 1) / (learnt.sum() + 2)
        chosen = target.rule[asked]
        said[target.rule_name] = np.where(np.arange(2) == chosen[:, None], right, 1 - right)
    said["logistic_regression"] = said["class_prior"]
    thinned = np.flatnonzero(learnt)[::THINNED]
    if learnt.sum() >= ENOUGH and len(np.unique(target.answer[thinned])) == classes and asked.any():
        said["logistic_regression"] = _logistic(
            _features(tape, memory, thinned + first_row),
            target.answer[thinned],
            _features(tape, memory, np.flatnonzero(asked) + first_row),
        )
    return {
        name: (
            len(answer),
            # a rule is judged by what it says, not by the likelier side of its probability
            int(
                (
                    (target.rule[asked] if name == target.rule_name and target.rule is not None else p.argmax(1))
                    == answer
                ).sum()
            ),
            float(log_loss(p[np.arange(len(answer)), answer]).sum()),
            None,
        )
        for name, p in said.items()
    }


def _features(tape: Tape, memory: Memory, rows: NDArray[np.int64]) -> Frames:
    """The channels of each reference's last two candles, as the model sees them."""
    norm = torch.from_numpy(memory.norm_params[rows - memory.first_row])
    last_BLF = torch.from_numpy(tape.gather(rows, 2))
    return channels(last_BLF, norm).flatten(1).numpy()


def _logistic(features: Frames, answer: NDArray[np.int64], asked: Frames) -> Frames:
    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=0.1, solver="newton-cholesky", max_iter=50).fit(scaler.transform(features), answer)
    return fitted.predict_proba(scaler.transform(asked))


def _score_candle(tape: Tape, memory: Memory, labels: Labels, day: Bools) -> dict[str, tuple[int, None, None, float]]:
    at = np.flatnonzero(day & memory.made & labels.candle.usable & (labels.candle.settled < PENDING))
    scale = memory.norm_params[at, 1:2]
    truth = labels.candle.log_returns[at]
    now = tape.gather(at + labels.first_row, 2)[:, :, :4].astype(np.float64)
    last_shape = np.log(now[:, 1] / now[:, :1, 3])
    said = {"model": memory.predictions[at, CANDLE], "no_change": np.zeros_like(truth), "last_range": last_shape}
    return {
        name: (len(at), None, None, float(huber((prediction - truth) / scale).mean(axis=1).sum()))
        for name, prediction in said.items()
    }


def _record(model: str, day: int, target: str, predictor: str, *sums: float | int | None) -> tuple[object, ...]:
    when: date = (EPOCH + timedelta(days=int(day))).date()
    return (model, when, target, predictor, *sums)
