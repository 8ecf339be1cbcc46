"""The models by name: ours, and those that other packages bring.

A package adds a model as an entry point of the group `hindsight.models` whose object is a `Model`:

    [project.entry-points."hindsight.models"]
    linear = "its_package.linear:MODEL"
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from torch import nn

from hindsight.errors import ModelUnloadable, SettingRefused
from hindsight.inference.completeness import OPTIONAL
from hindsight.inference.shape import FrameShape
from hindsight.training.metrics import LOG_LOSS, Metric
from hindsight.training.objective import SUPERVISED, Objective
from hindsight.training.step import RULES

GROUP = "hindsight.models"
OURS = {name: f"hindsight.training.models.{name}" for name in ("transformer", "cnn", "lstm", "dqn")}


class Config(Protocol):
    """What every model's configuration has; its text is part of the schema hash."""

    @property
    def width(self) -> int:
        """The width of its hidden state."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A configuration, and what builds the module from it and a frame's shape with initial weights.

    `reads` names the models whose last output and hidden state it sees, `optional` the blocks that may be masked,
    `extras` what is stored beside its predictions; `objective` is how it learns, and `metric` what its checkpoints are
    ranked by.
    """

    config: Config
    build: Callable[[Any, FrameShape], nn.Module]
    reads: tuple[str, ...] = ()
    optional: tuple[str, ...] = OPTIONAL
    extras: tuple[str, ...] = ()
    objective: Objective = SUPERVISED
    metric: Metric = LOG_LOSS

    @property
    def text(self) -> str:
        """What frames go through and how it is trained, as it goes into the schema hash: a change of either begins a
        new lineage."""
        return f"{self.config}, {RULES}"


@cache
def model_of(name: str) -> Model:
    """The model of that name. Raises SettingRefused for one that is unknown, ModelUnloadable for one that another
    package names and cannot bring."""
    if name in OURS:
        return import_module(OURS[name]).MODEL
    theirs = {point.name: point for point in entry_points(group=GROUP)}
    if name not in theirs:
        known = ", ".join((*OURS, *theirs))
        raise SettingRefused(f"model {name!r} is unknown; the models are {known}")
    try:
        model = theirs[name].load()
    except Exception as error:  # whatever that package may raise
        raise ModelUnloadable(f"model {name!r} cannot be loaded from {theirs[name].value}: {error!r}") from error
    if not isinstance(model, Model):
        raise ModelUnloadable(f"model {name!r}: expected {theirs[name].value} to be a Model, found {type(model)}")
    return model


def in_order(names: Iterable[str]) -> list[str]:
    """The models in an order in which each comes after those that it reads, otherwise as they stand in `names`.

    Raises SettingRefused where they read each other in a circle.
    """
    return [name for level in in_levels(names) for name in level]


def in_levels(names: Iterable[str]) -> list[list[str]]:
    """The same, level by level: those of one level read none of each other, and may run side by side."""
    chosen = list(names)
    graph = TopologicalSorter({name: [read for read in _reads(name) if read in chosen] for name in chosen})
    try:
        graph.prepare()
    except CycleError as error:
        raise SettingRefused(f"setting models: {' reads '.join(error.args[1])}: none of them could go first") from None
    levels = []
    while graph.is_active():
        levels.append(sorted(graph.get_ready(), key=chosen.index))
        graph.done(*levels[-1])
    return levels


def unloadable(names: Iterable[str]) -> dict[str, ModelUnloadable]:
    """Of the models those that their packages cannot bring, and why. Raises SettingRefused for an unknown one."""
    found = {}
    for name in names:
        try:
            model_of(name)
        except ModelUnloadable as error:
            found[name] = error
    return found


def may_read(name: str, model: str) -> bool:
    """Whether one model reads another; of one that cannot be loaded, or is no longer there, nobody knows."""
    try:
        return model in model_of(name).reads
    except SettingRefused:
        return True


def _reads(name: str) -> tuple[str, ...]:
    """Whom a model reads; of one that cannot be loaded nobody knows, and its place in the order is as good as any."""
    try:
        return model_of(name).reads
    except ModelUnloadable:
        return ()
