"""The loop: predict, settle, learn, in event order. Backfill and live are this one function, wide or narrow.

Legend: B references of a batch, L lookback, F tape columns. Rows are tape rows; `row` closes at the event's time.

At the close of each row the reference for the next candle is made with the weights that earlier events left; then the
events of that close train: the cadence ("candle"), then a confirmed level-2 pivot ("pivot"). Between two events the
weights do not change, so the predictions of all closes in between are one forward pass.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hindsight.inference.frames import Frames, Tape
from hindsight.inference.labels import VALIDATED, Labels
from hindsight.inference.predictions import TARGET_AGES, WIDTH, trend_predicted, window_loss
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.replay import Draw, ReplayRule, draw, step_seed
from hindsight.training.step import LOSS_PARTS, Hyperparameters, Loss, make_batch, train_step

SMALLEST_BATCH = 4  # below it, sgemm picks another kernel and a prediction would depend on how many were made together

Rows = NDArray[np.int64]
Prove = Callable[[Tape, "Memory", Rows], NDArray[np.bool_]]  # positions in memory: which still match their digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """When a model predicts and trains, and how large a batch is. Counted on the time grid, so it follows from time."""

    predict_every: int = 1
    train_every: int = 15
    batch_size: int = 32
    snapshot_every: int = 1000
    score_window: int = 1440


@dataclass(slots=True, kw_only=True)
class Memory:
    """What is known of the references made at rows first_row, first_row + 1, …: arrays beside the labels."""

    first_row: int
    predictable: NDArray[np.bool_]  # [N] the frame is whole and has a scale
    norm_params: Frames  # [N, 4]
    made: NDArray[np.bool_]  # [N] a reference exists
    trusted: NDArray[np.bool_]  # [N] it resolves to what its digest says; the others are settled, but not trained on
    predictions: Frames  # [N, 17]
    trend: NDArray[np.int8]  # [N] the likeliest one in `predictions`
    checkpoint: NDArray[np.int32]  # [N] that made it
    uses: NDArray[np.int16]  # [N] times trained on
    trained_as_candle: int  # every reference before this row has been *new* in a candle step


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
    """Weights and optimizer after a step, and the prequential loss that brought them there."""

    number: int
    event_row: int
    tensors: dict[str, torch.Tensor]
    prequential_loss: float
    scored: int


@dataclass(slots=True, kw_only=True)
class Learner:
    """One model of one stream: weights, optimizer and the number of steps behind them."""

    model: nn.Module
    average: nn.Module  # of the model's weights; the one that predicts
    optimizer: torch.optim.Optimizer
    number: int
    lookback: int
    device: torch.device
    hyper: Hyperparameters
    seconds_inside: float = 0.0  # forward, backward, optimizer
    trained_row: int | None = None  # at whose close the last step was, once there was one
    born_at: int = 0  # the steps behind an older lineage of another schema, if there was one


@dataclass(slots=True)
class Learned:
    """What one pass of the loop left behind, beside the filled `Memory`."""

    steps: list[Step] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)


def learn_rows(
    learner: Learner,
    tape: Tape,
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
    for row, trigger in events(tape, first, end, pivot_rows, cadence.train_every):
        predict(learner, tape, memory, due, unpredicted, row + 1)
        unpredicted = row + 1
        settled = newly_settled(labels, memory, row, trigger)
        if prove is not None:
            settled = settled[prove(tape, memory, settled)]
        wrong = memory.made & (labels.trend.status == VALIDATED) & (labels.trend.settled <= row)
        wrong &= memory.trend != labels.trend.trend
        settled = np.concatenate([settled[wrong[settled]], settled[~wrong[settled]]])  # the corrective ones first
        seed = step_seed(learner.hyper.seed, row, trigger)
        drawn = _replayed(labels, memory, settled, wrong, row, cadence, replay, seed)
        while prove is not None and not prove(tape, memory, drawn.rows - memory.first_row).all():
            drawn = _replayed(labels, memory, settled, wrong, row, cadence, replay, seed)  # without those
        if len(settled) + len(drawn.rows) == 0:
            continue
        started = time.perf_counter()
        loss = train(learner, tape, labels, memory.norm_params, settled + memory.first_row, drawn, row)
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
            prequential, scored = window_loss(labels, memory.predictions, memory.made, row, cadence.score_window)
            learned.snapshots.append(
                Snapshot(
                    number=learner.number,
                    event_row=row,
                    tensors=snapshot(learner),
                    prequential_loss=prequential,
                    scored=scored,
                )
            )
    predict(learner, tape, memory, due, unpredicted, end + ahead)
    return learned


def events(tape: Tape, first: int, end: int, pivot_rows: Rows, train_every: int) -> Sequence[tuple[int, str]]:
    """The training events among the closes of rows [first, end), in order, candle before pivot."""
    present = ~np.isnan(tape.first_known(first, end)[:, 0])  # a candle that came late closed for nobody
    rows = np.flatnonzero(present) + first
    found = [(int(row), "candle") for row in rows[(rows + 1) % train_every == 0]]
    found += [(int(row), "pivot") for row in np.unique(pivot_rows) if first <= row < end]
    return sorted(found)  # "candle" sorts before "pivot"


def newly_settled(labels: Labels, memory: Memory, row: int, trigger: str) -> Rows:
    """Positions in `memory` of the references that this event settles: their candle, or their trend; each once."""
    if trigger == "pivot":
        graded = (labels.trend.settled == row) & (labels.trend.status == VALIDATED)
        return np.flatnonzero(memory.made & memory.trusted & graded)
    start = memory.trained_as_candle - memory.first_row
    stop = int(np.searchsorted(labels.candle.settled, row, side="right"))
    memory.trained_as_candle = max(memory.trained_as_candle, memory.first_row + stop)
    fresh = np.arange(start, max(start, stop))
    return fresh[(memory.made & memory.trusted & labels.candle.usable)[fresh]]


def train(
    learner: Learner, tape: Tape, labels: Labels, norm_params: Frames, settled: Rows, drawn: Draw, row: int
) -> Loss:
    """The step that the event at `row` makes; `norm_params` stand beside `labels`. Used to learn and to re-live."""
    rows = np.concatenate([settled, drawn.rows])
    normal = len(drawn.rows) - drawn.high
    weights = np.concatenate(
        [np.ones(len(settled)), np.full(drawn.high, drawn.weight_high), np.full(normal, drawn.weight_normal)]
    ).astype(np.float32)
    known = norm_params[rows - labels.first_row]
    batch = make_batch(tape, labels, known, rows, weights, row, learner.lookback, learner.device)
    started = time.perf_counter()
    number = learner.number + 1 - learner.born_at
    loss = train_step(learner.model, learner.average, learner.optimizer, batch, learner.hyper, number)
    learner.number += 1
    learner.trained_row = row
    learner.seconds_inside += time.perf_counter() - started
    return loss


def predict(learner: Learner, tape: Tape, memory: Memory, due: NDArray[np.bool_], first: int, end: int) -> None:
    """References for the closes of rows [first, end), into `memory`, all with the weights of now."""
    span = slice(first - memory.first_row, end - memory.first_row)
    rows = np.flatnonzero(due[span] & ~memory.made[span]) + first
    if not len(rows):
        return
    at = rows - memory.first_row
    memory.predictions[at] = forward(learner, tape.gather(rows, learner.lookback), memory.norm_params[at])
    memory.trend[at] = trend_predicted(memory.predictions[at])
    memory.made[at] = True
    memory.checkpoint[at] = learner.number


@torch.inference_mode()
def forward(learner: Learner, frames_BLF: Frames, norm_B4: Frames) -> Frames:
    """Predictions [B, 17] in natural units."""
    count = len(frames_BLF)
    fill = max(SMALLEST_BATCH - count, 0)
    frames = torch.from_numpy(np.concatenate([frames_BLF, frames_BLF[:1].repeat(fill, 0)])).to(learner.device)
    norm = torch.from_numpy(np.concatenate([norm_B4, norm_B4[:1].repeat(fill, 0)])).to(learner.device)
    started = time.perf_counter()
    output = learner.average(frames, norm)
    values = natural_units(output, norm).cpu().numpy()[:count]
    learner.seconds_inside += time.perf_counter() - started
    return values


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
