"""What a lesson asks of the device: predictions, and training steps. Here one learner does it by itself.

Legend: B references, D width of a hidden state, E extras.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from hindsight.inference.blocks import Frame, check_frame
from hindsight.inference.frames import Frames, Rows
from hindsight.inference.labels import Labels
from hindsight.inference.predictions import SERVED, TARGET_AGES, WIDTH
from hindsight.training.constants import constant
from hindsight.training.learner import Learner
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.resident import Gathers
from hindsight.training.step import LOSS_PARTS, Examples, Says, opinion, pull_of, to_tensors, train_step

_AGES = tuple(TARGET_AGES.tolist())
Taught = TypeVar("Taught")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predict:
    """Say of the frames made at `rows` [B] what `said_by` says."""

    blocks: Gathers
    rows: Rows
    norm_params: Frames  # [B, 4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Take a step on these examples, and tell the parts of its loss [6], beside LOSS_PARTS."""

    blocks: Gathers
    labels: Labels
    examples: Examples


Work: TypeAlias = Predict | Train
Lesson: TypeAlias = Generator[Work, Tensor, Taught]


def alone(learner: Learner, lesson: Lesson[Taught], beat: Callable[[], None] | None = None) -> Taught:
    """Does what the lesson asks, one after the other, to its end, and tells of each piece of work that is done."""
    try:
        work = next(lesson)
        while True:
            work = lesson.send(do(learner, work))
            if beat:
                beat()
    except StopIteration as end:
        return end.value


def do(learner: Learner, work: Work) -> Tensor:
    """What comes of the work, on the device."""
    match work:
        case Predict():
            frame = frame_of(learner, work)
            started = time.perf_counter()
            found = ask(learner, frame)
        case Train():
            batch = learner.objective.batch(work.blocks, work.labels, work.examples, learner.device)
            started = time.perf_counter()
            learner.pull.fill_(pull_of(learner.hyper, learner.number + 1 - learner.born_at))
            found = learner.run(("step", learner.hyper), lambda batch: _step(learner, batch), batch)
    learner.seconds_inside += time.perf_counter() - started
    return found


def frame_of(learner: Learner, work: Predict) -> Frame[Tensor]:
    """What a prediction is made from, on the device. Raises FrameRefused for frames of another shape than the weights
    were made for."""
    frame = to_tensors(work.blocks.gather(work.rows, work.norm_params), learner.device)
    check_frame(frame, learner.shape)
    return frame


@torch.inference_mode()
def ask(learner: Learner, frame: Frame[Tensor]) -> Tensor:
    """[B, 17 + D + E + 5]: what the running mean says, as in `said_by`, and what the serving weights predict, where
    some do."""

    def say(frame: Frame[Tensor]) -> Tensor:
        found = said_by(lambda frame: opinion(learner.average, frame, learner.hyper), frame)
        if learner.serving is None:
            return found
        theirs = natural_units(opinion(learner.serving, frame, learner.hyper), frame.norm)
        served = constant(tuple(SERVED), theirs.device, torch.int64)
        return torch.cat([found, theirs.index_select(1, served)], dim=1)

    return learner.run(("say", learner.serving_id, learner.hyper), say, frame)


def said_by(says: Says, frame: Frame[Tensor]) -> Tensor:
    """[B, 17 + D + E]: predictions in natural units, hidden states, extras."""
    output = says(frame)
    parts = [natural_units(output, frame.norm), output.hidden_BD]
    return torch.cat(parts if output.extras_BE is None else [*parts, output.extras_BE], dim=1)


def natural_units(output: ModelOutput, norm_B4: Tensor) -> Tensor:
    """The output [B, 17] in the columns and units of `inference.predictions`."""
    scale, ages = norm_B4[:, 1:2], constant(_AGES, norm_B4.device)
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


def _step(learner: Learner, batch: Any) -> Tensor:
    learning = (learner.model, learner.average, learner.optimizer)
    loss = train_step(*learning, batch, learner.hyper, learner.pull, learner.objective.loss)
    return torch.stack([getattr(loss, name) for name in LOSS_PARTS])
