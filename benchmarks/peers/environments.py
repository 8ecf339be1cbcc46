"""A Python for each contender: rivals have pinned environments of their own, below the cache; ours is this one."""

import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fresh import CHECKOUT

CACHE = CHECKOUT / ".hindsight" / "peers"
CONTENDERS = Path(__file__).parent / "contenders"
INSIDE = Path(__file__).parent / "inside.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What one run took, and what came of it. Processor seconds are of all its threads and processes."""

    wall: float
    processor: float
    written_bytes: int
    peak_bytes: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A Python with packages of its own; `requirements` are pinned, and installed once."""

    name: str
    requirements: tuple[str, ...]

    @property
    def python(self) -> Path:
        """Its interpreter, installed when it is asked for the first time."""
        folder = CACHE / self.name
        installed, wanted = folder / "requirements.txt", "\n".join(self.requirements)
        if not installed.exists() or installed.read_text() != wanted:
            venv.create(folder, clear=True, with_pip=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *self.requirements], check=True)
            installed.write_text(wanted)
        return folder / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The Python that runs this benchmark, with Hindsight."""

    name: str = "hindsight"

    @property
    def python(self) -> Path:
        return Path(sys.executable)


def take(environment: Environment | Ours, contender: str, **given: Any) -> Took:
    """Runs the contender of that name once in a fresh process. Raises RuntimeError with what it said when it failed."""
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        outcome = Path(folder) / "outcome"
        script = CONTENDERS / f"{contender}.py"
        done = subprocess.run(
            [environment.python, INSIDE, script, json.dumps(given), outcome],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)} if isinstance(environment, Ours) else dict(os.environ),
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{contender} in {environment.name} failed:\n{done.stderr[-4000:]}")
        return Took(**json.loads(outcome.read_text()))
