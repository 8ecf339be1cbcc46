"""How measured seconds are spread: median, 95 and 99 of 100, and the longest; and the figure made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.figure import Figure

LEAST = 60  # events that a figure needs


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds, one per event; and of how many events the end was never seen."""

    seconds: tuple[float, ...]
    unseen: int = 0

    @classmethod
    def of(cls, seconds: Sequence[float], unseen: int = 0) -> "Spread":
        return cls(tuple(seconds), unseen)

    def at(self, share: float) -> float:
        """The seconds that `share` of the events took at most; what was never seen took for ever."""
        endless = [float("inf")] * self.unseen
        values = [*self.seconds, *endless]
        return float(np.quantile(values, share, method="higher")) if values else float("nan")

    @property
    def percentiles(self) -> tuple[float, float, float]:
        return self.at(0.5), self.at(0.95), self.at(0.99)

    def __str__(self) -> str:
        unseen = f", {self.unseen} never" if self.unseen else ""
        return f"{' / '.join(f'{value:.2f}' for value in self.percentiles)} s (n={len(self.seconds)}{unseen})"

    def shown(self) -> dict[str, object]:
        """For JSON: the percentiles, and every event."""
        names = ("p50", "p95", "p99")
        return {
            **dict(zip(names, self.percentiles, strict=True)),
            "slowest": self.at(1.0),
            "events": len(self.seconds),
            "unseen": self.unseen,
            "seconds": [round(value, 4) for value in self.seconds],
        }


def figure(name: str, spread: Spread, goals: tuple[float, float, float], notes: Sequence[str] = ()) -> Figure:
    """A promise of p50, p95 and p99, and what became of it: the ratio is the worst of the three."""
    ratio = max(value / goal for value, goal in zip(spread.percentiles, goals, strict=True))
    few = [f"{len(spread.seconds)} events are fewer than the {LEAST} that a figure needs"]
    return Figure(
        name=name,
        goal=f"{' / '.join(f'{goal:g}' for goal in goals)} s",
        measured=str(spread),
        ratio=f"{ratio:.2f} of the goal",
        is_reached=ratio <= 1,
        notes=[*notes, *(few if len(spread.seconds) < LEAST else [])],
    )
