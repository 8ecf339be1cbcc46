"""The loop: predict, settle, learn, in event order. Backfill and live are this one function, wide or narrow.

Legend: B references of a batch, D width of a hidden state. Rows are tape rows; `row` closes at the event's time.

At the close of each row the reference for the next candle is made with the weights that earlier events left; then the
events of that close train: the cadence ("candle"), then a confirmed level-2 pivot ("pivot"). Between two events the
weights do not change, so the predictions of all closes in between are one forward pass.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hindsight.errors import ModelBroken
from hindsight.inference.blocks import Blocks, Frame, check_frame
from hindsight.inference.drift import Drift, DriftRule, drifts, first_row_needed
from hindsight.inference.frames import Frames, Tape
from hindsight.inference.labels import VALIDATED, Labels
from hindsight.inference.predictions import (
    BUY,
    SERVED,
    SERVED_UNIT,
    TARGET_AGES,
    WIDTH,
    log_loss,
    of_what_came,
    trend_predicted,
)
from hindsight.training.learner import Learner
from hindsight.training.memory import Memory
from hindsight.training.metrics import Measured
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.replay import Draw, ReplayRule, draw, step_seed
from hindsight.training.step import LOSS_PARTS, Loss, to_tensors

AT_ONCE = 512  # references that one forward pass predicts: more would only take more memory
SMALLEST_BATCH = 4  # below it, sgemm picks another kernel and a prediction would depend on how many were made together

Rows = NDArray[np.int64]
Prove = Callable[[Blocks, "Memory", Rows], NDArray[np.bool_]]  # positions in memory: which still match their digest


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
    loss: dict[str, float]
    seconds: float


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


def learn_rows(
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
) -> Learned:
    """Advance from the close of row `first` to that of row `end` − 1, filling `memory`; no reference is made twice.

    `prove` is asked before a reference is trained on. The references of `ahead` more closes are made as well, and
    nothing is learned there yet. What was done is added to `into`.
    """
    learned = into or Learned()
    due = memory.predictable & (
        np.arange(memory.first_row + 1, memory.first_row + len(memory.made) + 1) % cadence.predict_every == 0
    )
    unpredicted = first
    for row, trigger in events(blocks.own, first, end, pivot_rows, cadence):
        predict(learner, blocks, memory, due, unpredicted, row + 1)
        unpredicted = row + 1
        drift = drifted(labels, memory, row, cadence) if trigger == "drift" else None
        before = learner.number
        for nth in range({"drift": cadence.retrain_steps if drift else 0}.get(trigger, 1)):
            settled = newly_settled(labels, memory, row, trigger)
            if prove is not None:
                settled = settled[prove(blocks, memory, settled)]
            wrong = learner.objective.corrective(learner, labels, memory, row - replay.replay_window, row)
            settled = np.concatenate([settled[wrong[settled]], settled[~wrong[settled]]])  # the corrective ones first
            seed = step_seed(learner.hyper.seed, row, trigger, nth)
            drawn = _replayed(labels, memory, settled, wrong, row, cadence, replay, seed)
            while prove is not None and not prove(blocks, memory, drawn.rows - memory.first_row).all():
                drawn = _replayed(labels, memory, settled, wrong, row, cadence, replay, seed)  # without those
            if len(settled) + len(drawn.rows) == 0:
                break
            started = time.perf_counter()
            loss = train(learner, blocks, labels, memory, settled + memory.first_row, drawn, row, trigger)
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
                    loss={name: float(getattr(loss, name)) for name in LOSS_PARTS},
                    seconds=time.perf_counter() - started,
                )
            )
            if learner.number % cadence.snapshot_every == 0:
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
    predict(learner, blocks, memory, due, unpredicted, end + ahead)
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
        graded = (labels.trend.settled == row) & (labels.trend.status == VALIDATED)
        return np.flatnonzero(memory.made & memory.trusted & graded)
    start = memory.trained_as_candle - memory.first_row
    stop = int(np.searchsorted(labels.candle.settled, row, side="right"))
    memory.trained_as_candle = max(memory.trained_as_candle, memory.first_row + stop)
    fresh = np.arange(start, max(start, stop))
    return fresh[(memory.made & memory.trusted & labels.candle.usable)[fresh]]


def train(
    learner: Learner,
    blocks: Blocks,
    labels: Labels,
    memory: Memory,
    settled: Rows,
    drawn: Draw,
    row: int,
    trigger: str,
) -> Loss:
    """The step that the event at `row` makes; `memory` stands beside `labels`. Used to learn and to re-live.

    What a pivot has graded is asked for its trend, and nothing else is.
    """
    rows = np.concatenate([settled, drawn.rows])
    normal = len(drawn.rows) - drawn.high
    weights = np.concatenate(
        [np.ones(len(settled)), np.full(drawn.high, drawn.weight_high), np.full(normal, drawn.weight_normal)]
    ).astype(np.float32)
    graded = len(settled) if trigger == "pivot" else 0
    batch = learner.objective.batch(learner, blocks, labels, memory, rows, graded, weights, row)
    started = time.perf_counter()
    loss = learner.objective.step(learner, batch)
    learner.number += 1
    learner.trained_row = row
    learner.seconds_inside += time.perf_counter() - started
    return loss


def predict(learner: Learner, blocks: Blocks, memory: Memory, due: NDArray[np.bool_], first: int, end: int) -> None:
    """References for the closes of rows [first, end), into `memory`, all with the weights of now."""
    span = slice(first - memory.first_row, end - memory.first_row)
    rows = np.flatnonzero(due[span] & ~memory.made[span]) + first
    if not len(rows):
        return
    for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
        at = part - memory.first_row
        said = forward(learner, blocks.gather(part, memory.norm_params[at]))
        memory.predictions[at], memory.hidden[at] = said.predictions, said.hidden
        memory.served[at], memory.served_by[at] = said.served, learner.serving_id
        memory.extras[at] = learner.objective.act(learner, memory, at, said.extras)
    at = rows - memory.first_row
    memory.trend[at] = trend_predicted(memory.predictions[at])
    memory.made[at] = True
    memory.checkpoint[at] = learner.number


class Said(NamedTuple):
    """What a model says of B references, as it is stored."""

    predictions: Frames  # [B, 17] in natural units
    hidden: NDArray[np.float16]  # [B, D]
    served: Frames  # [B, 5] as the serving weights see it, in 65,535ths
    extras: Frames  # [B, E] as the model has them


@torch.inference_mode()
def forward(learner: Learner, frame: Frame[Frames]) -> Said:
    """Predictions, hidden states and extras. Raises FrameRefused for a frame of another shape, and ModelBroken
    for an output that is not finite."""
    check_frame(frame, learner.shape)
    count = len(frame.norm)
    if count < SMALLEST_BATCH:
        frame = frame.map(lambda block: np.concatenate([block, block[:1].repeat(SMALLEST_BATCH - count, 0)]))
    inside = to_tensors(frame, learner.device)
    started = time.perf_counter()
    output = learner.average(inside)
    values = natural_units(output, inside.norm).cpu().numpy()[:count]
    hidden = output.hidden_BD.half().cpu().numpy()[:count]
    extras = np.empty((count, 0), np.float32) if output.extras_BE is None else output.extras_BE.cpu().numpy()[:count]
    served = np.full((count, len(SERVED)), np.nan, np.float32)
    if learner.serving is not None:
        probabilities = natural_units(learner.serving(inside), inside.norm)[:, SERVED].cpu().numpy()[:count]
        served = np.round(probabilities * SERVED_UNIT) / np.float32(SERVED_UNIT)
    learner.seconds_inside += time.perf_counter() - started
    parts = (values, hidden, extras)
    broken = count - int(np.logical_and.reduce([np.isfinite(part).all(axis=1) for part in parts]).sum())
    if broken:
        raise ModelBroken(
            f"expected finite outputs, found {broken} of {count} predictions that are not, by the weights after step"
            f" {learner.number}. Show one of the closes around it to whoever wrote the model"
        )
    if learner.serving is not None and not np.isfinite(served).all():
        raise ModelBroken(
            f"expected finite outputs, found some that are not, by the serving checkpoint {learner.serving_id}. Let"
            " another one serve: `hindsight models rollback`"
        )
    return Said(values, hidden, served, extras)


def natural_units(output: ModelOutput, norm_B4: torch.Tensor) -> torch.Tensor:
    """The output [B, 17] in the columns and units of `inference.predictions`."""
    scale = norm_B4[:, 1:2]
    ages = torch.from_numpy(TARGET_AGES).to(norm_B4.device)
    values = torch.cat(
        [
            1 - (1 - output.buy_logit_B.sigmoid()[:, None]),  # survives being stored as the confidence of an action
            output.candle_B4 * scale,
            output.trend_logits_B3.softmax(dim=1),
            output.high_logit_B.sigmoid()[:, None],
            output.pivot_return_B4 * scale * ages.sqrt(),
            output.pivot_candles_B4.clamp(-20, 12).exp() * ages,
        ],
        dim=1,
    )
    assert values.shape[1] == WIDTH
    return values


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
    may = np.zeros(len(memory.made), np.bool_)
    span = slice(start, stop)
    may[span] = memory.made[span] & labels.candle.usable[span] & (labels.candle.settled[span] <= row)
    may[span] &= memory.trusted[span] & (memory.uses[span] < rule.max_uses)
    may[settled] = False
    batches = -(-(len(settled) + rule.replay_minimum) // cadence.batch_size)
    count = batches * cadence.batch_size - len(settled)
    drawn = draw(np.flatnonzero(may & ~wrong), np.flatnonzero(may & wrong), count, rule, seed)
    return Draw(
        rows=drawn.rows + memory.first_row,
        high=drawn.high,
        weight_normal=drawn.weight_normal,
        weight_high=drawn.weight_high,
    )
