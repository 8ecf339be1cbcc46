"""The models by name: ours, and those that other packages bring.

A package adds a model as an entry point of the group `hindsight.models` whose object is a `Model`:

    [project.entry-points."hindsight.models"]
    linear = "its_package.linear:MODEL"
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from torch import nn

from hindsight.errors import SettingRefused

GROUP = "hindsight.models"
OURS = {name: f"hindsight.training.models.{name}" for name in ("transformer", "cnn", "lstm")}


class Config(Protocol):
    """What every model's configuration has; its text is part of the schema hash."""

    @property
    def lookback(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A configuration, and what builds the module from it with initial weights."""

    config: Config
    build: Callable[[Any], nn.Module]


def model_of(name: str) -> Model:
    """The model of that name. Raises SettingRefused for one that is unknown, or that another package cannot bring."""
    if name in OURS:
        return import_module(OURS[name]).MODEL
    theirs = {point.name: point for point in entry_points(group=GROUP)}
    if name not in theirs:
        known = ", ".join((*OURS, *theirs))
        raise SettingRefused(f"model {name!r} is unknown; the models are {known}")
    try:
        model = theirs[name].load()
    except Exception as error:  # whatever that package may raise
        raise SettingRefused(f"model {name!r} cannot be loaded from {theirs[name].value}: {error!r}") from error
    if not isinstance(model, Model):
        raise SettingRefused(f"model {name!r}: expected {theirs[name].value} to be a Model, found {type(model)}")
    return model
