"""Both sides of a row in turns: what they answer is compared once, then their runs are measured."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.environments import Environment, Ours, Took, take
from benchmarks.sampling import Sample, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a row: the Python it runs in, its file below `contenders`, and what it is given.

    A contender takes `answer` besides: the name of an .npy file to leave its answer in, or null while it is measured.
    """

    environment: Environment | Ours
    contender: str
    given: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Took:
        """One measured run."""
        return take(self.environment, self.contender, **self.given, answer=None)

    def answer(self) -> np.ndarray:
        """What it answers, from a run that is not measured."""
        with tempfile.TemporaryDirectory(prefix="answer-") as folder:
            file = Path(folder) / "answer.npy"
            take(self.environment, self.contender, **self.given, answer=str(file))
            return np.load(file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The runs of all sides by name, and what to print of them."""

    runs: dict[str, list[Took]]

    @property
    def samples(self) -> dict[str, Samples]:
        """Wall and processor seconds of every run."""
        return {name: Samples([Sample(run.wall, run.processor) for run in runs]) for name, runs in self.runs.items()}

    @property
    def footprint(self) -> list[str]:
        """A note per side on memory and bytes written."""
        return [
            f"{name}: peak of memory {max(run.peak_bytes for run in runs) / 1e6:,.0f} MB (whole process, imports and "
            f"preparation too), written {median(run.written_bytes for run in runs) / 1e3:,.1f} kB"
            for name, runs in self.runs.items()
        ]


def in_turns(repeats: int, runs: Mapping[str, Callable[[], Took]]) -> Taken:
    """`repeats` runs of each side, in rounds, so that what else the machine does falls on all alike."""
    taken: dict[str, list[Took]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(run())
    return Taken(runs=taken)


def check(
    expected: np.ndarray, sides: dict[str, Side], names: Iterable[str], relative: float, absolute: float = 0
) -> None:
    """Raises RuntimeError where a side answers anything further than that from `expected`; NaN equals NaN."""
    for name in names:
        found = sides[name].answer()
        try:
            np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute)
        except AssertionError as error:
            raise RuntimeError(f"{name} answers otherwise than expected: {error}") from error
