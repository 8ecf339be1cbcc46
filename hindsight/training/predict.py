"""Predictions: asked of the weights of now, and brought to memory when something needs them.

Legend: B references, D width of a hidden state, E extras. Rows are tape rows.

A device works on its own while the loop prepares the next step. What it was asked is aloft until it lands: at the
latest at the end, and before that as soon as an answer is held against it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hindsight.errors import ModelBroken
from hindsight.inference.blocks import Frame, check_frame
from hindsight.inference.frames import Frames, Rows
from hindsight.inference.predictions import SERVED, SERVED_UNIT, WIDTH, trend_predicted
from hindsight.training.engine import Lesson, Predict, alone, ask
from hindsight.training.learner import Learner
from hindsight.training.memory import Memory
from hindsight.training.resident import Gathers
from hindsight.training.step import to_tensors

AT_ONCE = 256  # references that one forward pass predicts: more would only take more memory
SMALLEST_BATCH = 4  # below it, sgemm picks another kernel and a prediction would depend on how many were made together


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
    land(learner, memory, alone(learner, launch(learner, blocks, memory, due, first, end)))


def launch(
    learner: Learner, blocks: Gathers, memory: Memory, due: NDArray[np.bool_], first: int, end: int
) -> Lesson[list[Flight]]:
    """Makes the references for the closes of rows [first, end). What is said of them lands later."""
    span = slice(first - memory.first_row, end - memory.first_row)
    rows = np.flatnonzero(due[span] & ~memory.made[span]) + first
    flights: list[Flight] = []
    if not len(rows):
        return flights
    at = rows - memory.first_row
    memory.made[at], memory.checkpoint[at], memory.served_by[at] = True, learner.number, learner.serving_id
    for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
        # A few more of the first one, where there are fewer than are made at once.
        asked = np.append(part, np.repeat(part[0], _size(len(part), learner.device) - len(part)))
        known = memory.norm_params[asked - memory.first_row]
        said = yield Predict(blocks=blocks, rows=asked, norm_params=known)
        flights.append(
            Flight(part - memory.first_row, learner.number, learner.serving_id, *_to_host(said[: len(part)]))
        )
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
    count, inside = len(frame.norm), to_tensors(frame, learner.device)
    lacking = _size(count, learner.device) - count
    if lacking:
        inside = inside.map(lambda block: torch.cat([block, block[:1].expand(lacking, *block.shape[1:])]))
    return _said(learner, ask(learner, inside)[:count].cpu().numpy(), learner.number, learner.serving_id)


def _size(count: int, device: torch.device) -> int:
    """As how many a few predictions are made: on a GPU one of a few sizes, each of which is recorded once."""
    if device.type == "cpu":
        return max(count, SMALLEST_BATCH)
    return SMALLEST_BATCH * 4 ** max(0, math.ceil(math.log(count / SMALLEST_BATCH, 4)))


def _to_host(said: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the host, and the event after which it is whole."""
    if said.device.type != "cuda":
        return said.cpu(), None
    host = torch.empty(said.shape, dtype=said.dtype, pin_memory=True)
    host.copy_(said, non_blocking=True)
    landed = torch.cuda.Event()
    landed.record()
    return host, landed


def _said(learner: Learner, values: Frames, number: int, serving_id: int) -> Said:
    """The parts of what `ask` has put side by side. Raises ModelBroken for what is not finite."""
    served_at = values.shape[1] - (len(SERVED) if serving_id >= 0 else 0)
    own, theirs = values[:, :served_at], values[:, served_at:]
    extras_at = WIDTH + learner.width
    with np.errstate(over="ignore"):  # what is too large for a float16 is found below
        hidden = own[:, WIDTH:extras_at].astype(np.float16)
    broken = len(own) - int((np.isfinite(own).all(axis=1) & np.isfinite(hidden).all(axis=1)).sum())
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
    return Said(own[:, :WIDTH], hidden, served, own[:, extras_at:])
