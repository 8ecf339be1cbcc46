"""Every model of some streams over history, each by itself: one that fails stops none of the others."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from hindsight.decide import DecideReport, decide
from hindsight.errors import ModelUnloadable
from hindsight.learn import Progress, learn
from hindsight.market.streams import Stream
from hindsight.settings import Settings
from hindsight.store.failure_tables import MIXTURE, note_outcomes
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_order, model_of, unloadable
from hindsight.write import LearnReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a call did, by what it is about, and what failed, by stream and model, or "mixture"."""

    reports: dict[str, LearnReport | DecideReport] = field(default_factory=dict)
    failures: dict[tuple[Stream, str], Exception] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raises what was raised, once everything else is done and told; of several, an ExceptionGroup."""
        failures = list(self.failures.values())
        if failures:
            raise failures[0] if len(failures) == 1 else ExceptionGroup(f"{len(failures)} lessons failed", failures)


def learn_each(
    settings: Settings,
    lessons: Sequence[tuple[Stream, datetime]],
    heard: Callable[[Stream, str], Progress | None],
    now: datetime,
    models: Sequence[str] = (),
) -> Taught:
    """Takes every model of each stream to its instant, a model after those that it reads, and decides there.

    With `models`, those alone. A failure stops nobody but those that read the model, and the decisions: history loses
    nothing by waiting, so they wait until it is mended, or no longer among the settings. It is noted in the tables, as
    of `now`. Raises SettingRefused for models that are unknown or read each other in a circle.
    """
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    chosen = in_order([*settings.models, *(name for name in models if name not in settings.models)])
    taught, (loaded, _, refused) = Taught(), told_apart(settings)
    for stream, until in lessons:
        for model in (name for name in chosen if not models or name in models):
            key = (stream, model)
            try:
                if model in refused:
                    raise refused[model]
                report = learn(loaded, stream, model, until, heard(stream, model))
            except Exception as error:
                _fail(taught, warehouse, key, error, now)
            else:
                taught.reports[f"{model}, {stream} until {until:%F %T}"] = report
                note_outcomes(warehouse, {}, [key] if report.until else [], now)
        try:
            report = decide(settings, stream, until)
        except Exception as error:
            _fail(taught, warehouse, (stream, MIXTURE), error, now)
        else:
            taught.reports[f"decisions, {stream} until {until:%F %T}"] = report
            note_outcomes(warehouse, {}, [(stream, MIXTURE)] if report.until else [], now)
    return taught


class Teachable(NamedTuple):
    """The settings with those models alone that can be loaded; of them those that can be taught, in order; and why
    others cannot."""

    settings: Settings
    models: list[str]
    refused: dict[str, ModelUnloadable]


def told_apart(settings: Settings) -> Teachable:
    """Which models can be taught: not one that reads one that cannot be loaded, for how wide its frame is, nobody
    knows. Raises SettingRefused for an unknown one."""
    missing = unloadable(settings.models)
    loaded = tuple(name for name in settings.models if name not in missing)
    refused = dict(missing)
    for name in loaded:
        for read in model_of(name).reads:
            if read in missing:
                refused[name] = ModelUnloadable(f"model {name!r} reads {read!r}: {missing[read]}")
    teachable = [name for name in in_order(loaded) if name not in refused]
    return Teachable(settings.model_copy(update={"models": loaded}), teachable, refused)


def _fail(taught: Taught, warehouse: Warehouse, key: tuple[Stream, str], error: Exception, now: datetime) -> None:
    logger.error("%s, %s", *key, exc_info=error)
    taught.failures[key] = error
    note_outcomes(warehouse, {key: error}, (), now)
