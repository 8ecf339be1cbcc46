"""Every model of some streams over history, each by itself: one that fails stops none of the others."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from hindsight.learn import Progress, learn
from hindsight.market.streams import Stream
from hindsight.settings import Settings
from hindsight.training.models.registry import in_order

logger = logging.getLogger(__name__)


def learn_each(
    settings: Settings, lessons: Sequence[tuple[Stream, datetime]], heard: Callable[[Stream, str], Progress | None]
) -> dict[str, Any]:
    """Takes every model of each stream to its instant, a model after those that it reads; the reports by name.

    Raises what one of them raised once all others are done; of several, an ExceptionGroup.
    """
    reports: dict[str, Any] = {}
    failures: list[Exception] = []
    for stream, until in lessons:
        for model in in_order(settings.models):
            try:
                reports[f"{model}, {stream} until {until:%F %T}"] = learn(
                    settings, stream, model, until, heard(stream, model)
                )
            except Exception as error:
                logger.exception("%s, %s", stream, model)
                failures.append(error)
    if failures:
        raise failures[0] if len(failures) == 1 else ExceptionGroup(f"{len(failures)} lessons failed", failures)
    return reports
