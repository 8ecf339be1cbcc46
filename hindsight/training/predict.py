"""Predictions: asked of the weights of now, and brought to memory when something needs them.

Legend: B references, D width of a hidden state, E extras. Rows are tape rows.

A device works on its own while the loop prepares the next step. What it was asked is aloft until it lands: at the
latest at the end, and before that as soon as an answer is held against it.
"""

import math
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hindsight.errors import ModelBroken
from hindsight.inference.blocks import Frame, check_frame
from hindsight.inference.frames import Frames, Rows
from hindsight.inference.predictions import SERVED, SERVED_UNIT, TARGET_AGES, WIDTH, trend_predicted
from hindsight.training.constants import constant
from hindsight.training.learner import Learner
from hindsight.training.memory import Memory
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.resident import Gathers
from hindsight.training.step import opinion, to_tensors

AT_ONCE = 512  # references that one forward pass predicts: more would only take more memory
SMALLEST_BATCH = 4  # below it, sgemm picks another kernel and a prediction would depend on how many were made together

_AGES = tuple(TARGET_AGES.tolist())


class Said(NamedTuple):
    """What a model says of B references, as it is stored."""

    predictions: Frames  # [B, 17] in natural units
    hidden: NDArray[np.float16]  # [B, D]
    served: Frames  # [B, 5] as the serving weights see it, in 65,535ths; NaN while none serve
    extras: Frames  # [B, E] as the model has them


class Flight(NamedTuple):
    """What was asked of the weights after one step and has not landed yet."""

    at: Rows  # [B] positions in memory
    number: int
    serving_id: int
    said: Tensor  # [B, …] on the host
    landed: torch.cuda.Event | None  # after which it is there


def predict(learner: Learner, blocks: Gathers, memory: Memory, due: NDArray[np.bool_], first: int, end: int) -> None:
    """References for the closes of rows [first, end), into `memory`, all with the weights of now."""
    land(learner, memory, launch(learner, blocks, memory, due, first, end))


def launch(
    learner: Learner, blocks: Gathers, memory: Memory, due: NDArray[np.bool_], first: int, end: int
) -> list[Flight]:
    """Makes the references for the closes of rows [first, end). What is said of them lands later."""
    span = slice(first - memory.first_row, end - memory.first_row)
    rows = np.flatnonzero(due[span] & ~memory.made[span]) + first
    if not len(rows):
        return []
    at = rows - memory.first_row
    memory.made[at], memory.checkpoint[at], memory.served_by[at] = True, learner.number, learner.serving_id
    flights = []
    for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
        at = part - memory.first_row
        said, landed = _to_host(_ask(learner, to_tensors(blocks.gather(part, memory.norm_params[at]), learner.device)))
        flights.append(Flight(at, learner.number, learner.serving_id, said, landed))
    return flights


def land(learner: Learner, memory: Memory, flights: list[Flight]) -> None:
    """Brings what was said to `memory`, in order, and leaves none aloft. Raises ModelBroken for what is not finite."""
    for flight in flights:
        if flight.landed is not None:
            flight.landed.synchronize()
        at, said = flight.at, _said(learner, flight.said.numpy(), flight.number, flight.serving_id)
        memory.predictions[at], memory.hidden[at], memory.served[at] = said.predictions, said.hidden, said.served
        memory.trend[at] = trend_predicted(said.predictions)
        memory.extras[at] = learner.objective.act(learner, memory, at, said.extras)
    flights.clear()


def forward(learner: Learner, frame: Frame[Frames]) -> Said:
    """What the weights of now say of a frame. Raises FrameRefused for one of another shape, and ModelBroken for an
    output that is not finite."""
    check_frame(frame, learner.shape)
    said = _ask(learner, to_tensors(frame, learner.device)).cpu().numpy()
    return _said(learner, said, learner.number, learner.serving_id)


@torch.inference_mode()
def _ask(learner: Learner, frame: Frame[Tensor]) -> Tensor:
    """[B, 17 + D + E + 5]: predictions, hidden states, extras, and what the serving weights predict, where some do."""

    def ask(frame: Frame[Tensor]) -> Tensor:
        output = opinion(learner.average, frame, learner.hyper)
        parts = [natural_units(output, frame.norm), output.hidden_BD]
        if output.extras_BE is not None:
            parts.append(output.extras_BE)
        if learner.serving is not None:
            parts.append(natural_units(opinion(learner.serving, frame, learner.hyper), frame.norm)[:, SERVED])
        return torch.cat(parts, dim=1)

    count, started = len(frame.norm), time.perf_counter()
    lacking = _size(count, learner.device) - count
    if lacking:
        frame = frame.map(lambda block: torch.cat([block, block[:1].expand(lacking, *block.shape[1:])]))
    said = learner.run(("ask", learner.serving_id, learner.hyper), ask, frame)[:count]
    learner.seconds_inside += time.perf_counter() - started
    return said


def _size(count: int, device: torch.device) -> int:
    """As how many a few predictions are made: on a GPU one of a few sizes, each of which is recorded once."""
    if device.type != "cuda":
        return max(count, SMALLEST_BATCH)
    return SMALLEST_BATCH * 4 ** max(0, math.ceil(math.log(count / SMALLEST_BATCH, 4)))


def _to_host(said: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the host, and the event after which it is whole."""
    if said.device.type != "cuda":
        return said, None
    host = torch.empty(said.shape, dtype=said.dtype, pin_memory=True)
    host.copy_(said, non_blocking=True)
    landed = torch.cuda.Event()
    landed.record()
    return host, landed


def _said(learner: Learner, values: Frames, number: int, serving_id: int) -> Said:
    """The parts of what `_ask` has put side by side. Raises ModelBroken for what is not finite."""
    served_at = values.shape[1] - (len(SERVED) if serving_id >= 0 else 0)
    own, theirs = values[:, :served_at], values[:, served_at:]
    broken = len(own) - int(np.isfinite(own).all(axis=1).sum())
    if broken:
        raise ModelBroken(
            f"expected finite outputs, found {broken} of {len(own)} predictions that are not, by the weights after step"
            f" {number}. Show one of the closes around it to whoever wrote the model"
        )
    if not np.isfinite(theirs).all():
        raise ModelBroken(
            f"expected finite outputs, found some that are not, by the serving checkpoint {serving_id}. Let"
            " another one serve: `hindsight models rollback`"
        )
    served = np.full((len(values), len(SERVED)), np.nan, np.float32)
    if serving_id >= 0:
        served = np.round(theirs * SERVED_UNIT) / np.float32(SERVED_UNIT)
    extras_at = WIDTH + learner.width
    return Said(own[:, :WIDTH], own[:, WIDTH:extras_at].astype(np.float16), served, own[:, extras_at:])


def natural_units(output: ModelOutput, norm_B4: Tensor) -> Tensor:
    """The output [B, 17] in the columns and units of `inference.predictions`."""
    scale = norm_B4[:, 1:2]
    ages = constant(_AGES, norm_B4.device)
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
