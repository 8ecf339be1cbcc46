"""What is written down while it is measured: JSON that is whole on disk at any moment, and lines on the terminal."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.figure import Figure, show
from benchmarks.sampling import machine


@dataclass(slots=True)
class Report:
    """Everything that became known so far. Written anew with each change, so that an interrupted run still tells it."""

    console: Console
    path: Path | None = None
    begun: float = field(default_factory=time.monotonic)
    told: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.told |= {"machine": machine(), "begun": datetime.now(UTC).isoformat(timespec="seconds"), "figures": []}

    def say(self, line: str) -> None:
        """One line of progress, with the minutes since the beginning."""
        self.console.print(f"[dim]{(time.monotonic() - self.begun) / 60:6.1f} min[/dim]  {line}", highlight=False)

    def note(self, chapter: str, name: str, what: object) -> None:
        """Puts `what` (of JSON's types) down under a name, in the place of what stood there."""
        self.told.setdefault(chapter, {})[name] = what
        self.write()

    def add(self, figure: Figure) -> None:
        """A figure, shown and put down."""
        self.figures.append(figure)
        self.told["figures"].append({**asdict(figure), "verdict": figure.verdict, "machine": machine()})
        self.write()
        show(figure, self.console)

    def write(self) -> None:
        """Brings the file up to date."""
        if self.path is not None:
            draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            draft.write_text(json.dumps(_plain(self.told), indent=1, default=str))
            draft.replace(self.path)


def _plain(value: object) -> object:
    """The same without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
