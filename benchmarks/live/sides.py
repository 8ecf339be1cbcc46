"""What one configuration was measured at, between two instants of the venue's clock; and several side by side."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.table import Table

from benchmarks.live.journey import expected, journeys, pivots_confirmed
from benchmarks.live.processes import look
from benchmarks.live.spread import Spread
from benchmarks.live.stage import Stage
from benchmarks.live.up import entered

STORED, PREDICTED, TRAINED = "close → row in candles", "close → reference stored", "close → checkpoint on disk"
LESSON = "L2 pivot materialised → trend graded and trained"
TURN, TURNS, OTHERS = "a run's turn of DuckDB's lock", "one run's turns together", "a turn of others"
WAIT = "a reader's wait"


def spreads(running: Stage, since: datetime, until: datetime) -> dict[str, Spread]:
    """Every spread by its name."""
    venue, closes, found = running.venue, expected(running, since, until), journeys(running, since)
    begin, end = venue.here(since), venue.here(until)
    with entered(running.told), dg.DagsterInstance.get() as instance:
        confirmed = {close: at for close, at in pivots_confirmed(instance, begin).items() if close in set(closes)}
    trained = found.reached["trained"]
    lessons = [trained[close] - at for close, at in confirmed.items() if close in trained]
    turns = [(turn["kind"], turn["pid"], turn["until"] - turn["since"]) for turn in _during(running, begin, end)]
    of_run: dict[int, float] = defaultdict(float)
    for kind, pid, seconds in turns:
        of_run[pid] += seconds if kind == "run" else 0.0
    return {
        STORED: found.spread("stored", closes, venue),
        PREDICTED: found.spread("predicted", closes, venue),
        TRAINED: found.spread("trained", closes, venue),
        LESSON: Spread.of(lessons, unseen=len(confirmed) - len(lessons)),
        TURN: Spread.of([seconds for kind, _, seconds in turns if kind == "run"]),
        TURNS: Spread.of([seconds for seconds in of_run.values() if seconds]),
        OTHERS: Spread.of([seconds for kind, _, seconds in turns if kind != "run"]),
        WAIT: Spread.of([each["waited"] for each in running.readings if begin <= each["asked"] < end]),
    }


def notes(running: Stage, since: datetime, found: Mapping[str, Spread]) -> list[str]:
    """What explains the spreads of one configuration."""
    seen, home = journeys(running, since), Path(running.told["HINDSIGHT_HOME"])
    seconds: dict[str, float] = defaultdict(float)
    for each in look(home):
        seconds[each.kind] += each.seconds
        seconds["runs"] += each.of_children if each.kind in ("template", "code") else 0.0
    total = sum(turn["until"] - turn["since"] for turn in running.turns)
    span = (running.turns[-1]["until"] - running.turns[0]["since"]) if running.turns else 0.0
    return [
        f"{seen.by_turn} instants are the end of the turn of the lock in which they were noted, "
        f"{seen.by_note} the note itself",
        *(f"{name}: {found[name]}" for name in (TURN, TURNS, OTHERS, WAIT)),
        f"the lock was held {total / span:.0%} of the time" if span else "nobody took the lock",
        "processor seconds since the start: "
        + ", ".join(f"{kind} {spent:.0f}" for kind, spent in sorted(seconds.items())),
    ]


def side_by_side(sides: Mapping[str, Mapping[str, Spread]], console: Console) -> None:
    """Prints the spreads of all configurations, a column each."""
    table = Table("p50 / p95 / p99", *sides, title="Side by side", title_justify="left")
    for name in next(iter(sides.values()), {}):
        table.add_row(name, *(str(side[name]) for side in sides.values()))
    console.print(table)


def _during(running: Stage, begin: float, end: float) -> list[dict]:
    return [turn for turn in running.turns if begin <= turn["since"] < end]
