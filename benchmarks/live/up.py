"""`hindsight up` in a process, with a home and settings of its own, and everything that it says, with when it did."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from benchmarks.fresh import CHECKOUT
from benchmarks.live.ended import ended

STOP_SECONDS = 90.0


@dataclass(slots=True)
class Up:
    """All of Hindsight, running. `lines` are (seconds since 1970, line)."""

    home: Path
    process: subprocess.Popen[bytes]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def said(self, since: float, until: float = float("inf")) -> list[str]:
        """What it said from `since` to `until`."""
        return [line for at, line in list(self.lines) if since <= at < until]

    def stop(self) -> bool:
        """Stops everything, as Ctrl-C does; whether it ended in time by itself."""
        return ended(self.process, STOP_SECONDS)


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's environment with these settings of Hindsight, and no others."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HINDSIGHT_")}
    told = {f"HINDSIGHT_{name.upper()}": str(value) for name, value in settings.items()}
    return {**plain, "PYTHONPATH": str(CHECKOUT), "HINDSIGHT_HOME": str(home), **told}


@contextmanager
def entered(told: Mapping[str, str]) -> Iterator[None]:
    """This process has an environment like `told`, for what reads settings, or opens Dagster's instance, in it."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(told, DAGSTER_HOME=str(Path(told["HINDSIGHT_HOME"]) / "dagster"))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def up(told: Mapping[str, str], folder: Path) -> Iterator[Up]:
    """`hindsight up` on a free port, stopped at the end. What it says stands in `folder`/up.log as well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hindsight", "up", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(told),
        cwd=folder,
        start_new_session=True,
    )
    found = Up(Path(told["HINDSIGHT_HOME"]), process)
    assert process.stdout is not None
    listener = threading.Thread(target=_listen, args=(process.stdout, folder / "up.log", found.lines), daemon=True)
    listener.start()
    try:
        yield found
    finally:
        found.stop()
        listener.join(10.0)


def _listen(pipe: IO[bytes], path: Path, lines: list[tuple[float, str]]) -> None:
    with path.open("w") as log:
        for raw in pipe:
            at, line = time.time(), raw.decode(errors="replace").rstrip()
            lines.append((at, line))
            print(f"{at:.3f} {line}", file=log, flush=True)
