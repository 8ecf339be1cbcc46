"""Running a function in a Python process of its own: for clean peaks of memory, cold caches, and two learners at once.

The function is named, its arguments and its result travel as JSON.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the function returned, and what its process used."""

    result: dict[str, Any]
    processor_seconds: float
    peak_bytes: int


@dataclass(slots=True, kw_only=True)
class Running:
    """A process under way."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path

    def outcome(self) -> Outcome:
        """Waits for the process. Raises RuntimeError with what it said when it failed."""
        if self.process.wait() != 0:
            raise RuntimeError(f"{self.name} failed:\n{(self.folder / 'errors').read_text()[-4000:]}")
        return Outcome(**json.loads((self.folder / "outcome").read_text()))


def start(function: Callable[..., dict[str, Any]], environment: dict[str, str] | None = None, **given: Any) -> Running:
    """Starts `function` (of a module of this package) with JSON-able arguments in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="process-"))
    name = f"{function.__module__}:{function.__qualname__}"
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fresh", name, json.dumps(given), str(folder / "outcome")],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), **(environment or {})},
            stdout=errors,
            stderr=errors,
        )
    return Running(name=name, process=process, folder=folder)


def run(function: Callable[..., dict[str, Any]], environment: dict[str, str] | None = None, **given: Any) -> Outcome:
    """Runs `function` in a process of its own, and waits for it."""
    return start(function, environment, **given).outcome()


def _peak_bytes() -> int:
    """The most memory this process has held.

    Linux hands getrusage's ru_maxrss down from the process that started this one; VmHWM begins anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main(name: str, given: str, outcome: str) -> None:
    module, _, function = name.partition(":")
    result = getattr(importlib.import_module(module), function)(**json.loads(given))
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "result": result,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": _peak_bytes(),
    }
    Path(outcome).write_text(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
