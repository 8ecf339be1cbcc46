"""What was found on looking at one thing of the live path: a verdict, and a sentence that says what a person should do.

One cause is one call. What only follows from another finding (no candle because the feed is dead, no prediction because
no candle came) is late or dead as well, and calls nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from hindsight.store.standings import Lateness

Verdict = Literal["ok", "late", "dead", "off"]
Kind = Literal["candles", "inference_references", "checkpoints", "skill", "order_book", "feed", "connection", "home"]
NAMES: dict[Kind, str] = {
    "candles": "candles of {}",
    "inference_references": "predictions of {}",
    "checkpoints": "learning of {}",
    "skill": "skill of {}",
    "order_book": "order book of {}",
    "feed": "the {}",
    "connection": "connection {}",
    "home": "{}",
}
Figures = Mapping[str, float | int | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. Figures are seconds of ours unless their name says otherwise."""

    kind: Kind
    about: str
    verdict: Verdict
    sentence: str
    needs_a_person: bool = False
    figures: Figures = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is looked at, the same at every look and unlike any other."""
        return NAMES[self.kind].format(self.about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The venue's clock, how fast it runs, and after how many seconds of ours something is late."""

    at: datetime
    speed: float
    late_seconds: float

    def since(self, moment: datetime) -> float:
        """Seconds of ours since `moment` of the venue's clock; negative where that is still to come."""
        return (self.at - moment).total_seconds() / self.speed


def ok(kind: Kind, about: str, sentence: str, figures: Figures) -> Finding:
    """All is well."""
    return Finding(kind=kind, about=about, verdict="ok", sentence=sentence, figures=figures)


def off(kind: Kind, about: str, sentence: str, figures: Figures) -> Finding:
    """There is nothing yet that could be late."""
    return Finding(kind=kind, about=about, verdict="off", sentence=sentence, figures=figures)


def calls(kind: Kind, about: str, verdict: Verdict, sentence: str, figures: Figures) -> Finding:
    """Something that will not heal by itself."""
    return Finding(
        kind=kind, about=about, verdict=verdict, sentence=sentence, figures=figures, needs_a_person=True
    )  # fmt: skip


def follows(kind: Kind, about: str, verdict: Verdict, sentence: str, figures: Figures) -> Finding:
    """Something that ends with what it follows from, or by itself."""
    return Finding(kind=kind, about=about, verdict=verdict, sentence=sentence, figures=figures)


def timely(kind: Kind, about: str, stage: str, lateness: Lateness | None, figures: Figures, now: Now) -> Finding:
    """Whether the newest close came as far as `stage` in time; a person is needed where none of late did."""
    if lateness is None or lateness.newest <= now.late_seconds:
        return ok(kind, about, f"Closes are {stage} in time.", figures)
    newest = f"The newest close was {stage} after {span(lateness.newest)}"
    if lateness.recent is None or lateness.recent <= now.late_seconds:
        return follows(kind, about, "late", f"{newest}; nothing to do unless it goes on.", figures)
    sentence = (
        f"{newest}, and so were those before it (p95 {span(lateness.p95)}): this machine is too slow or too busy. See "
        "what else it runs and how long the runs of `advance` take, or record fewer streams."
    )
    return calls(kind, about, "late", sentence, figures)


def of_stage(stage: str, lateness: Lateness | None) -> dict[str, float | int | str | None]:
    """Seconds between closes and `stage`, as figures."""
    names = ("newest", "p50", "p95", "p99", "closes")
    return {f"{stage}_{name}": None if lateness is None else getattr(lateness, name) for name in names}


def span(seconds: float) -> str:
    """A duration for a sentence: 14 s, 3 min, 5 h, 2 days."""
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
