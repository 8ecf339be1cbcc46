"""Memory and processor time of everything that runs, every few seconds."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.live.processes import look

STAYING = ("up", "feed", "code", "template", "daemon", "webserver")  # a run comes and goes
AROUND_SECONDS = 60.0


@dataclass(slots=True)
class Memory:
    """Samples of one home. Processor seconds are kept of processes that have ended since, as they were last seen."""

    home: Path
    began: float
    samples: list[dict[str, Any]] = field(default_factory=list)
    _seconds: dict[tuple[int, int, str], float] = field(default_factory=dict)

    def sample(self, at: float, **more: object) -> dict[str, Any]:
        """One sample: by kind, how many processes, their memory and processor seconds; and whatever else was seen."""
        count: dict[str, int] = defaultdict(int)
        resident: dict[str, int] = defaultdict(int)
        share: dict[str, int] = defaultdict(int)
        for each in look(self.home):
            count[each.kind] += 1
            resident[each.kind] += each.resident
            share[each.kind] += each.share
            self._seconds[each.pid, each.started, each.kind] = each.seconds
            if each.kind in ("template", "code"):  # they wait for the runs that they start
                self._seconds[each.pid, each.started, "runs"] = each.of_children
        sample = {
            "second": round(at - self.began, 1),
            "processes": dict(count),
            "resident": dict(resident),
            "share": dict(share),
            "processor": {kind: round(spent, 2) for kind, spent in self.seconds().items()},
            **more,
        }
        self.samples.append(sample)
        return sample

    def seconds(self) -> dict[str, float]:
        """Processor seconds so far, by kind; those of runs as whoever started them counts them when they end."""
        total: dict[str, float] = defaultdict(float)
        for (_, _, kind), spent in self._seconds.items():
            if kind != "run":
                total[kind] += spent
        return dict(total)

    def at_minute(self, minute: float) -> dict[str, float]:
        """Bytes by kind of what stays, around a minute: the median of the samples about it.

        Resident ones: the share of the template halves whenever a run shares its pages.
        """
        near = [each for each in self.samples if abs(each["second"] - minute * 60) <= AROUND_SECONDS]
        return {kind: _median([each["resident"].get(kind, math.nan) for each in near]) for kind in STAYING}


def _median(values: Sequence[float]) -> float:
    return median(values) if values else float("nan")
