"""Metrics: what the checkpoints of a model are ranked by, and which way is better.

A model names its own in its `Model`; `LOG_LOSS` is that of most. Every metric is taken of predictions that were made
before their answers, by the weights of their time, and of nothing that was not known at the close it is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hindsight.inference.labels import Labels
from hindsight.inference.losses import window_loss
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.memory import Memory

Direction = Literal["lower", "higher"]


class Measured(NamedTuple):
    """A metric over the answers of a window."""

    value: float  # NaN where nothing can be said
    scored: int  # answers that it is of; 0: there is no value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A name with its unit, which `direction` is better, and how it is measured.

    `measure` is given labels and the memory beside them, the hyperparameters, the row of a close and a window: it
    judges what was answered at the last `window` closes up to that one.
    """

    name: str
    direction: Direction
    measure: Callable[[Labels, Memory, Hyperparameters, int, int], Measured]

    def __post_init__(self) -> None:
        if not self.name.strip() or self.direction not in ("lower", "higher"):
            raise ValueError(
                f'metric: expected a name and a direction of "lower" or "higher", found {self.name!r} and'
                f" {self.direction!r}"
            )


def _log_loss(labels: Labels, memory: Memory, hyper: Hyperparameters, row: int, window: int) -> Measured:
    return Measured(*window_loss(labels, memory.predictions, memory.made, row, window))


LOG_LOSS = Metric(name="log loss", direction="lower", measure=_log_loss)
