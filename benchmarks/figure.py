"""A figure: what was promised, what was measured, and how far apart they are; and its table for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.sampling import Samples, machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the promise. `ratio` is what was measured over the limit, or over the rival: the goal says which."""

    name: str
    goal: str
    measured: str
    ratio: str
    is_reached: bool | None  # None: there is nothing to judge
    samples: dict[str, Samples] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """The judgement in one word."""
        return {True: "reached", False: "missed", None: "skipped"}[self.is_reached]


def wide_console(width: int = 150) -> Console:
    """The terminal; without one, as wide as tables need: cut to a log file's missing width they would say nothing."""
    return Console() if Console().is_terminal else Console(width=width)


def skipped(name: str, reason: str) -> Figure:
    """A figure that cannot be measured here."""
    return Figure(name=name, goal="", measured=reason, ratio="", is_reached=None)


def show(figure: Figure, console: Console) -> None:
    """Prints the runs behind one figure, then the figure, then what explains it."""
    console.rule(f"[b]{figure.name}[/b]", align="left")
    if figure.samples:
        table = Table("", box=None)
        for heading in ("runs", "median s", "minimum s", "processor s"):
            table.add_column(heading, justify="right")
        for name, taken in figure.samples.items():
            seconds = (taken.median, taken.minimum, taken.processor)
            table.add_row(name, str(len(taken.runs)), *(f"{value:.3f}" for value in seconds))
        console.print(table)
    console.print(f"goal {figure.goal}; measured {figure.measured}; ratio {figure.ratio}: [b]{figure.verdict}[/b]")
    for note in figure.notes:
        console.print(f"  {note}", highlight=False)
    console.print(f"  [dim]{machine()}[/dim]", highlight=False)


def summarise(figures: Sequence[Figure], console: Console) -> None:
    """Prints all figures in one table."""
    table = Table("figure", "goal", "measured", "ratio", "verdict", title="Figures", title_justify="left")
    for figure in figures:
        table.add_row(figure.name, figure.goal, figure.measured, figure.ratio, figure.verdict)
    console.print(table)
