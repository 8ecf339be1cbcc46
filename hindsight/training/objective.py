"""How a model learns: which answers it is to be corrected by first, what a batch of them is, and the loss on it.

`SUPERVISED` is the way of most: every answer of the market is a target. A model with a way of its own names it in its
`Model`.
"""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from hindsight.inference.frames import Frames, Rows
from hindsight.inference.labels import VALIDATED, Labels
from hindsight.market.streams import Stream
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.memory import Memory
from hindsight.training.resident import Gathers
from hindsight.training.step import (
    Batch,
    Examples,
    Loss,
    Says,
    loss_of,
    make_batch,
    to_tensors,
)

if TYPE_CHECKING:
    from hindsight.training.learner import Learner


class Objective(Protocol):
    """What the loop asks of a way to learn. Everything follows from its arguments: recorded steps are taken again."""

    def act(self, learner: "Learner", memory: Memory, at: Rows, extras: Frames) -> Frames:
        """What is stored of the extras that the model gave for the references at these positions, in order of time."""
        ...

    def corrective(self, learner: "Learner", labels: Labels, memory: Memory, since: int, row: int) -> NDArray[np.bool_]:
        """Which references [N] are of high priority, by what was known at the close of `row`. Asked about are those
        made at row `since` and later."""
        ...

    def remembered(self, learner: "Learner", labels: Labels, memory: Memory, examples: Examples) -> Examples:
        """The examples of one event with what this learner alone knows of them: all else of a batch is the market's, so
        that those of many learners are made at once."""
        ...

    def batch(self, blocks: Gathers, labels: Labels, examples: Any, device: torch.device) -> Any:
        """What has been `remembered` as tensors [B, …] on the device, with all that was known of each example at the
        close of its event."""
        ...

    def loss(self, says: Says, mean_says: Says, batch: Any, hyper: Hyperparameters) -> Loss:
        """The loss on a batch by what the weights that learn say, and their running mean. Nothing in it may wait for
        the device."""
        ...

    def records(
        self, learner: "Learner", model: str, stream: Stream, labels: Labels, memory: Memory, first: int, end: int
    ) -> dict[str, pl.DataFrame]:
        """What is stored beside outcomes and steps, by table, of what settled at the closes of rows [first, end)."""
        ...


class Supervised:
    """Every answer is a target, a trend once, when its pivot confirms it. A reference whose trend was predicted wrongly
    is corrective."""

    def act(self, learner: "Learner", memory: Memory, at: Rows, extras: Frames) -> Frames:
        return extras

    def corrective(self, learner: "Learner", labels: Labels, memory: Memory, since: int, row: int) -> NDArray[np.bool_]:
        start = max(since - memory.first_row, 0)
        span = slice(start, int(np.searchsorted(labels.trend.settled, row, side="right")))
        is_wrong = np.zeros(len(memory.made), np.bool_)
        is_wrong[span] = memory.made[span] & (labels.trend.status[span] == VALIDATED)
        is_wrong[span] &= memory.trend[span] != labels.trend.trend[span]
        return is_wrong

    def remembered(self, learner: "Learner", labels: Labels, memory: Memory, examples: Examples) -> Examples:
        return examples

    def batch(self, blocks: Gathers, labels: Labels, examples: Examples, device: torch.device) -> Batch:
        frame = to_tensors(blocks.gather(examples.rows, examples.norm_params), device)
        return make_batch(frame, labels, examples, device)

    def loss(self, says: Says, mean_says: Says, batch: Batch, hyper: Hyperparameters) -> Loss:
        return loss_of(says(batch.frame), batch, hyper)

    def records(
        self, learner: "Learner", model: str, stream: Stream, labels: Labels, memory: Memory, first: int, end: int
    ) -> dict[str, pl.DataFrame]:
        return {}


SUPERVISED = Supervised()
