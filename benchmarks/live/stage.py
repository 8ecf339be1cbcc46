"""Everything that runs while something is measured: a venue, `hindsight up` on it, and two who watch from outside."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.live.ended import ended
from benchmarks.live.up import Up, entered, environment, up
from benchmarks.live.venue import Venue, venue
from hindsight.settings import Settings, load
from hindsight.store.warehouse import Warehouse

# The figures are those of a machine without a GPU, wherever they are taken.
COMMON = {"source": "simulated", "device": "cpu", "models": "transformer"}


@dataclass(slots=True)
class Stage:
    """What runs, and where it writes."""

    folder: Path
    told: dict[str, str]
    settings: Settings
    venue: Venue
    up: Up

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse of the home."""
        return Warehouse(path=self.settings.warehouse_path, lock_timeout_seconds=60.0)

    @property
    def readings(self) -> list[dict[str, Any]]:
        """What the reader has noted."""
        return _noted(self.folder / "readings.jsonl")

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The turns of the lock that have ended."""
        return _noted(self.folder / "turns.jsonl")


@contextmanager
def stage(
    folder: Path, *, speed: float, start: datetime, read_every_seconds: float | None = None, **settings: object
) -> Iterator[Stage]:
    """All of it in `folder`, whose subfolder `home` is the home; stopped at the end, the newest first.

    Nobody watches where `read_every_seconds` is None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    told = environment(home, **COMMON, **settings)
    with ExitStack() as stack:
        market = stack.enter_context(venue(told, folder, speed, start))
        told |= {"HINDSIGHT_VENUE_URL": market.url, "HINDSIGHT_VENUE_SPEED": str(speed)}
        with entered(told):
            found = load()
        if read_every_seconds is not None:
            stack.enter_context(_watching(folder, home, told, read_every_seconds))
        yield Stage(folder, told, found, market, stack.enter_context(up(told, folder)))


@contextmanager
def _watching(folder: Path, home: Path, told: dict[str, str], read_every_seconds: float) -> Iterator[None]:
    # Not among the processes of the home: they are the benchmark's.
    plain = {name: value for name, value in told.items() if not name.startswith("HINDSIGHT_")}
    commands = [
        ("turns", str(home), str(folder / "turns.jsonl")),
        ("reader", str(home), str(folder / "readings.jsonl"), str(read_every_seconds)),
    ]
    with (folder / "watching.log").open("wb") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.live.{name}", *arguments],
                stdout=log,
                stderr=log,
                env=plain,
                cwd=folder,
            )
            for name, *arguments in commands
        ]
    try:
        yield
    finally:
        for process in started:
            ended(process, 5.0)


def _noted(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may be growing."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
