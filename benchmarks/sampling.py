"""Measuring on a machine that others use too: rivals take turns, and medians, minima and processor time are kept."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: wall seconds, and processor seconds of all threads (and of child processes where they did the work)."""

    wall: float
    processor: float


@dataclass(slots=True)
class Samples:
    """The runs of one contender."""

    runs: list[Sample] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Wall seconds of the middle run."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def minimum(self) -> float:
        """Wall seconds of the fastest run."""
        return min(run.wall for run in self.runs)

    @property
    def processor(self) -> float:
        """Processor seconds of the middle run."""
        return statistics.median(run.processor for run in self.runs)


def timed(work: Callable[[], object]) -> Sample:
    """One run of `work` in this process."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Sample(time.perf_counter() - wall, time.process_time() - processor)


def take_turns(
    repeats: int, contenders: dict[str, Callable[[], Sample]], warm_ups: Iterable[str] = ()
) -> dict[str, Samples]:
    """`repeats` runs of each contender, in rounds, so that what else the machine does falls on all alike.

    Those named in `warm_ups` run once before, unmeasured.
    """
    for name in warm_ups:
        contenders[name]()
    samples = {name: Samples() for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            samples[name].runs.append(run())
    return samples


def machine() -> str:
    """Cores, model and present load of this machine, in a line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    return f"{os.cpu_count()} cores, {model}, load average {load}, Python {platform.python_version()}"
