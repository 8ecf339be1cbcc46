"""Which alerts were told and have not ended: `alerts.json` below HINDSIGHT_HOME, shared by every process.

The file is rewritten in place, so that a full disk, which is worth an alert, does not make that alert come every time.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal

logger = logging.getLogger(__name__)
Level = Literal["info", "warning", "failure"]
LEVELS: tuple[Level, ...] = ("info", "warning", "failure")


@dataclass(slots=True, kw_only=True)
class Told:
    """An alert as it was told last."""

    at: datetime
    since: datetime  # told first, of those in a row
    level: Level
    times: int  # in a row
    held_back: int = 0  # since `at`
    is_open: bool = True


def worst(levels: Iterable[Level]) -> Level:
    """The highest of these levels."""
    return max(levels, key=LEVELS.index)


@contextmanager
def remembered(home: Path) -> Iterator[dict[str, Told]]:
    """What was told, by title; kept as the block leaves it. One process at a time.

    Where the file cannot be had, nothing was told: rather one alert too many.
    """
    memory: dict[str, Told] = {}
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(home / "alerts.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+")
    except OSError as error:
        logger.warning("alerts cannot be remembered, and come more often than needed: %s", error)
        yield memory
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        memory.update(_read(file))
        before = {title: asdict(told) for title, told in memory.items()}
        yield memory
        if before != {title: asdict(told) for title, told in memory.items()}:
            _write(file, memory)


def _read(file: IO[str]) -> dict[str, Told]:
    file.seek(0)
    try:
        return {
            title: Told(**{**kept, **{name: datetime.fromisoformat(kept[name]) for name in ("at", "since")}})
            for title, kept in json.loads(file.read() or "{}").items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # torn by a process that was killed
        logger.warning("%s cannot be read, so every alert counts as not told: %s", "alerts.json", error)
        return {}


def _write(file: IO[str], memory: dict[str, Told]) -> None:
    text = json.dumps({title: asdict(told) for title, told in memory.items()}, default=str, indent=1)
    try:
        file.seek(0)
        file.write(text)
        file.truncate()
        file.flush()
    except OSError as error:
        logger.warning("alerts cannot be remembered, and come more often than needed: %s", error)
