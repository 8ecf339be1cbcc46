"""How long after a close its candle is stored, predicted from and learned from; and what a pivot's lesson takes.

Two streams of 1m candles, a training step at every close, order books and trades recorded as well, the venue at ten
times the speed of a market: a close of both streams every 6 s. The configurations take turns, each measured once its
first history is learned. Seconds are of this machine's clock, from the instant at which the venue's passes the close to
the one at which others can read the row (at which a checkpoint's file has been on disk for a moment).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figure import Figure, skipped
from benchmarks.live.postgres import postgres, programs
from benchmarks.live.report import Report
from benchmarks.live.sides import LESSON, PREDICTED, STORED, TRAINED, TURN, WAIT, notes, side_by_side, spreads
from benchmarks.live.spread import Spread, figure
from benchmarks.live.stage import Stage, stage
from hindsight.market.streams import EPOCH, floor_to, from_ms

START = datetime(2024, 3, 10, 12, tzinfo=UTC)  # 40 hours without an outage or late trades, and the history before
MINUTES, SPEED = 10.0, 10.0
WARM_CLOSES = 2  # not learned from yet: then the first history is
WARM_UP_SECONDS, DRAIN_SECONDS = 300.0, 120.0  # at most
GOALS = {
    STORED: (0.5, 1.0, 2.0),
    PREDICTED: (0.8, 1.6, 3.0),
    TRAINED: (1.0, 2.0, 3.5),
    LESSON: (1.0, 2.0, 4.0),
}
GOALS_ON = {"sqlite": GOALS, "postgres": {**GOALS, TRAINED: (0.6, 0.9, 1.5)}}
READ_EVERY_SECONDS = 0.5
LIMITS = {TURN: 0.25, WAIT: 0.3}  # p99


@dataclass(frozen=True, slots=True)
class Configuration:
    """How runs are started, and where Dagster keeps its instance."""

    launcher: str
    storage: str

    def __str__(self) -> str:
        return f"{self.launcher}, {self.storage}"


ALL = (Configuration("warm", "sqlite"), Configuration("warm", "postgres"), Configuration("stock", "sqlite"))


def measure(
    report: Report, folder: Path, configurations: tuple[Configuration, ...], minutes: float, speed: float
) -> None:
    """The figures of each configuration with the warm launcher; the stock one is for comparison."""
    sides: dict[str, dict[str, Spread]] = {}
    for each in configurations:
        if each.storage == "postgres" and programs() is None:
            report.add(skipped(f"latency ({each})", "PostgreSQL is not installed (Debian's package postgresql)"))
            continue
        place = folder / f"latency-{each.launcher}-{each.storage}"
        with _database(each.storage) as url, _running(place, each, url, speed) as running:
            since, until = _run(running, report, str(each), minutes)
            sides[str(each)] = found = spreads(running, since, until)
            explained = notes(running, since, found)
        report.note("latency", str(each), {"notes": explained, **{name: one.shown() for name, one in found.items()}})
        for one in _figures(each, found, explained):
            report.add(one)
    side_by_side(sides, report.console)


def _figures(configuration: Configuration, found: dict[str, Spread], explained: list[str]) -> Iterator[Figure]:
    if configuration.launcher == "stock":
        return  # nothing was promised of it
    for name, goals in GOALS_ON[configuration.storage].items():
        yield figure(f"{name} ({configuration})", found[name], goals, explained if name == STORED else [])
    for name, limit in LIMITS.items():
        p99 = found[name].at(0.99)
        yield Figure(
            name=f"{name} ({configuration})",
            goal=f"p99 under {limit:g} s",
            measured=f"{p99:.3f} s (n={len(found[name].seconds)})",
            ratio=f"{p99 / limit:.2f} of the limit",
            is_reached=p99 < limit,
        )


@contextmanager
def _database(storage: str) -> Iterator[str]:
    """The address of a database for Dagster's instance; empty for SQLite's files."""
    if storage == "postgres":
        with postgres() as url:
            yield url
    else:
        yield ""


@contextmanager
def _running(place: Path, configuration: Configuration, url: str, speed: float) -> Iterator[Stage]:
    settings = {"train_every": 1, "run_launcher": configuration.launcher, "postgres_url": url}
    with stage(place, speed=speed, start=START, read_every_seconds=READ_EVERY_SECONDS, **settings) as running:
        yield running


def _run(running: Stage, report: Report, name: str, minutes: float) -> tuple[datetime, datetime]:
    """The instants of the venue's clock between which closes count: from when all before were learned from."""
    started = time.monotonic()
    report.say(f"{name}: the first history is fetched and learned")
    while _closes_behind(running) > WARM_CLOSES and time.monotonic() - started < WARM_UP_SECONDS:
        time.sleep(1.0)
    report.say(f"{name}: warm after {time.monotonic() - started:.0f} s; measured for {minutes:g} minutes from here")
    since = from_ms(int(running.venue.now_ms()))
    time.sleep(minutes * 60)
    until = from_ms(int(running.venue.now_ms()))
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline and _learned_until(running) < floor_to(until, running.settings.streams[0].step):
        time.sleep(0.5)
    return since, until


def _closes_behind(running: Stage) -> float:
    """Closes of any stream that were not learned from yet, by the venue's clock."""
    step = running.settings.streams[0].step
    return (from_ms(int(running.venue.now_ms())) - _learned_until(running)) // step


def _learned_until(running: Stage) -> datetime:
    with running.warehouse.reading() as con:
        found = con.execute("select until from learned_until").fetchall()
    return min(until for (until,) in found) if len(found) == len(running.settings.streams) else EPOCH
