"""The loop: predict, settle, learn, in event order. Backfill and live are this one function, wide or narrow.

Rows are tape rows; `row` closes at the event's time.

At the close of each row the reference for the next candle is made with the weights that earlier events left; then the
events of that close train: the cadence ("candle"), then a confirmed level-2 pivot ("pivot"). Between two events the
weights do not change, so the predictions of all closes in between are one forward pass. The loop waits for a device
only where a result decides what comes next.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hindsight.inference.blocks import Blocks
from hindsight.inference.drift import Drift, DriftRule, drifts, first_row_needed
from hindsight.inference.frames import Rows, Tape
from hindsight.inference.labels import VALIDATED, Labels
from hindsight.inference.losses import log_loss, of_what_came
from hindsight.inference.predictions import BUY
from hindsight.training.engine import Lesson, Train, do
from hindsight.training.learner import Learner
from hindsight.training.memory import Memory
from hindsight.training.metrics import Measured
from hindsight.training.predict import Flight, land, launch
from hindsight.training.replay import Draw, ReplayRule, draw, step_seed
from hindsight.training.resident import Gathers, on_device
from hindsight.training.step import LOSS_PARTS, Examples

Prove = Callable[[Blocks, Memory, Rows], NDArray[np.bool_]]  # positions in memory: which still match their digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """When a model predicts and trains, and how large a batch is. Counted on the time grid, so it follows from time."""

    predict_every: int = 1
    train_every: int = 15
    retrain_steps: int = 0  # where drift is found; 0: nobody looks for it
    drift: DriftRule = field(default_factory=DriftRule)
    batch_size: int = 32
    snapshot_every: int = 1000
    score_window: int = 1440


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One training step, with everything that its replay needs."""

    number: int
    trigger: str
    event_row: int
    settled: Rows
    replay: Draw
    seed: int
    losses: torch.Tensor  # [6] beside LOSS_PARTS
    seconds: float  # to prepare it; on a device it may still be running then

    @property
    def loss(self) -> dict[str, float]:
        """Each part, once the device has come to it."""
        return dict(zip(LOSS_PARTS, self.losses.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Weights and optimizer after a step, and how well they and those before them had done, by the model's metric."""

    number: int
    event_row: int
    tensors: dict[str, torch.Tensor]
    measured: Measured


class Retrained(NamedTuple):
    """A drift, the row of the close at which it was found, and how many training steps it triggered."""

    row: int
    drift: Drift
    steps: int


@dataclass(slots=True)
class Learned:
    """What one pass of the loop left behind, beside the filled `Memory`."""

    steps: list[Step] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    drifts: list[Retrained] = field(default_factory=list)


def lesson(
    learner: Learner,
    blocks: Blocks,
    labels: Labels,
    memory: Memory,
    first: int,
    end: int,
    pivot_rows: Rows,
    *,
    cadence: Cadence,
    replay: ReplayRule,
    snapshot: Callable[[Learner], dict[str, torch.Tensor]],
    prove: Prove | None = None,
    ahead: int = 0,
    into: Learned | None = None,
    seen: Gathers | None = None,
) -> Lesson[Learned]:
    """Advance from the close of row `first` to that of row `end` − 1, filling `memory`; no reference is made twice.

    `prove` is asked before a reference is trained on. The references of `ahead` more closes are made as well, and
    nothing is learned there yet. What was done is added to `into`. What is to be done on the device is yielded, and
    sent back: whoever drives the lesson may do that of many lessons at once, which share what they see as `seen`.
    """
    learned = into or Learned()
    due = memory.predictable & (
        np.arange(memory.first_row + 1, memory.first_row + len(memory.made) + 1) % cadence.predict_every == 0
    )
    seen = seen or on_device(blocks, learner.device)
    aloft, unpredicted = list[Flight](), first
    for row, trigger in events(blocks.own, first, end, pivot_rows, cadence):
        aloft += yield from launch(learner, seen, memory, due, unpredicted, row + 1)
        unpredicted = row + 1
        if _is_asked_for(aloft, labels, memory, row, trigger):
            land(learner, memory, aloft)
        drift = drifted(labels, memory, row, cadence) if trigger == "drift" else None
        before = learner.number
        steps = 1 if trigger != "drift" else cadence.retrain_steps if drift else 0
        for nth in range(steps):
            settled = newly_settled(labels, memory, row, trigger)
            if prove is not None:
                settled = settled[prove(blocks, memory, settled)]
            # After an outage what settles may be older than what replay draws from.
            oldest = min(row - replay.replay_window, memory.first_row + int(settled.min(initial=len(memory.made))))
            wrong = learner.objective.corrective(learner, labels, memory, oldest, row)
            settled = np.concatenate([settled[wrong[settled]], settled[~wrong[settled]]])  # the corrective ones first
            seed = step_seed(learner.hyper.seed, row, trigger, nth)
            drawn = _replayed(labels, memory, settled, wrong, row, cadence, replay, seed)
            while prove is not None and not prove(blocks, memory, drawn.rows - memory.first_row).all():
                drawn = _replayed(labels, memory, settled, wrong, row, cadence, replay, seed)  # without those
            if len(settled) + len(drawn.rows) == 0:
                break
            started = time.perf_counter()
            losses = yield step_at(learner, seen, labels, memory, settled + memory.first_row, drawn, row, trigger)
            learner.number, learner.trained_row = learner.number + 1, row
            memory.uses[settled] += 1
            memory.uses[drawn.rows - memory.first_row] += 1
            learned.steps.append(
                Step(
                    number=learner.number,
                    trigger=trigger,
                    event_row=row,
                    settled=settled + memory.first_row,
                    replay=drawn,
                    seed=seed,
                    losses=losses,
                    seconds=time.perf_counter() - started,
                )
            )
            if learner.number % cadence.snapshot_every == 0:
                land(learner, memory, aloft)
                learned.snapshots.append(
                    Snapshot(
                        number=learner.number,
                        event_row=row,
                        tensors=snapshot(learner),
                        measured=learner.metric.measure(labels, memory, learner.hyper, row, cadence.score_window),
                    )
                )
        if drift is not None:
            learned.drifts.append(Retrained(row=row, drift=drift, steps=learner.number - before))
    aloft += yield from launch(learner, seen, memory, due, unpredicted, end + ahead)
    land(learner, memory, aloft)
    return learned


def events(tape: Tape, first: int, end: int, pivot_rows: Rows, cadence: Cadence) -> Sequence[tuple[int, str]]:
    """The training events among the closes of rows [first, end), in order: candle, a look for drift, pivot."""
    present = ~np.isnan(tape.first_known(first, end)[:, 0])  # a candle that came late closed for nobody
    rows = np.flatnonzero(present) + first
    found = [(int(row), "candle") for row in rows[(rows + 1) % cadence.train_every == 0]]
    if cadence.retrain_steps:
        pool = cadence.drift.pool
        found += [(row, "drift") for row in range(first + -(first + 1) % pool, end, pool)]
    found += [(int(row), "pivot") for row in np.unique(pivot_rows) if first <= row < end]
    return sorted(found)  # the triggers sort by their names


def drifted(labels: Labels, memory: Memory, row: int, cadence: Cadence) -> Drift | None:
    """The drift of the loss of the action that became known since the last look, at the close of `row`; the last one
    of several."""
    rule, candle = cadence.drift, labels.candle
    start = max(first_row_needed(row, rule) - memory.first_row, 0)
    span = slice(start, int(np.searchsorted(candle.settled, row, side="right")))
    asked = np.flatnonzero(memory.made[span] & candle.usable[span] & (candle.log_returns[span, 3] != 0)) + start
    buy, up = memory.predictions[asked, BUY], candle.log_returns[asked, 3] > 0
    losses = log_loss(of_what_came(buy, up))
    found = drifts(candle.settled[asked], losses, rule=rule, since=row - rule.pool + 1)
    return found[-1] if found else None


def newly_settled(labels: Labels, memory: Memory, row: int, trigger: str) -> Rows:
    """Positions in `memory` of the references that this event settles: their candle, or their trend; each once."""
    if trigger == "drift":
        return np.empty(0, np.int64)
    if trigger == "pivot":
        first, end = np.searchsorted(labels.trend.settled, (row, row + 1))
        span = slice(first, end)
        graded = memory.made[span] & memory.trusted[span] & (labels.trend.status[span] == VALIDATED)
        return np.flatnonzero(graded) + first
    start = memory.trained_as_candle - memory.first_row
    stop = int(np.searchsorted(labels.candle.settled, row, side="right"))
    memory.trained_as_candle = max(memory.trained_as_candle, memory.first_row + stop)
    fresh = np.arange(start, max(start, stop))
    return fresh[memory.made[fresh] & memory.trusted[fresh] & labels.candle.usable[fresh]]


def _is_asked_for(aloft: list[Flight], labels: Labels, memory: Memory, row: int, trigger: str) -> bool:
    """Whether the event at `row` looks at what was said in a prediction that is aloft: a trend that is graded by now, a
    loss of the last hours, or a position that is held on from the one before."""
    held = memory.extras.shape[1] > 0
    return trigger == "drift" or held or any((labels.trend.settled[flight.at] <= row).any() for flight in aloft)


def train(
    learner: Learner,
    blocks: Gathers,
    labels: Labels,
    memory: Memory,
    settled: Rows,
    drawn: Draw,
    row: int,
    trigger: str,
) -> None:
    """The step that the event at `row` makes, by itself: how a recorded one is lived again."""
    do(learner, step_at(learner, blocks, labels, memory, settled, drawn, row, trigger))
    learner.number, learner.trained_row = learner.number + 1, row


def step_at(
    learner: Learner,
    blocks: Gathers,
    labels: Labels,
    memory: Memory,
    settled: Rows,
    drawn: Draw,
    row: int,
    trigger: str,
) -> Train:
    """The step that the event at `row` makes; `memory` stands beside `labels`.

    What a pivot has graded is asked for its trend, and nothing else is.
    """
    rows = np.concatenate([settled, drawn.rows])
    normal = len(drawn.rows) - drawn.high
    weights = np.concatenate(
        [np.ones(len(settled)), np.full(drawn.high, drawn.weight_high), np.full(normal, drawn.weight_normal)]
    ).astype(np.float32)
    examples = Examples(
        rows=rows,
        norm_params=memory.norm_params[rows - memory.first_row],
        weights=weights,
        event_rows=np.full(len(rows), row),
        is_graded=np.arange(len(rows)) < (len(settled) if trigger == "pivot" else 0),
    )
    return Train(blocks=blocks, labels=labels, examples=learner.objective.remembered(learner, labels, memory, examples))


def _replayed(
    labels: Labels,
    memory: Memory,
    settled: Rows,
    wrong: NDArray[np.bool_],
    row: int,
    cadence: Cadence,
    rule: ReplayRule,
    seed: int,
) -> Draw:
    """Fill the batch up to a multiple of its size with settled references of the replay window."""
    start = max(row - rule.replay_window - memory.first_row, 0)
    stop = max(row - memory.first_row, start)
    span = slice(start, stop)
    may = memory.made[span] & labels.candle.usable[span] & (labels.candle.settled[span] <= row)
    may &= memory.trusted[span] & (memory.uses[span] < rule.max_uses)
    may[settled[(settled >= start) & (settled < stop)] - start] = False
    normal, high = (np.flatnonzero(may & each) + start for each in (~wrong[span], wrong[span]))
    batches = -(-(len(settled) + rule.replay_minimum) // cadence.batch_size)
    count = batches * cadence.batch_size - len(settled)
    drawn = draw(normal, high, count, rule, seed)
    return Draw(
        rows=drawn.rows + memory.first_row,
        high=drawn.high,
        weight_normal=drawn.weight_normal,
        weight_high=drawn.weight_high,
    )
