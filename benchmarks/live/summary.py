"""What is to be said of a soak: a figure per promise, and tables of what each fault did and how late closes were."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure
from benchmarks.live.faults import Done
from benchmarks.live.lags import BEHIND_SECONDS, Disturbance, Lag, disturbances, lags, undisturbed
from benchmarks.live.likeness import Likeness
from benchmarks.live.memory import STAYING, Memory
from benchmarks.live.report import Report
from benchmarks.live.runs import Runs
from benchmarks.live.sound import Candles, absent
from benchmarks.live.spread import Spread
from benchmarks.live.stage import Stage
from hindsight.market.streams import from_ms
from hindsight.store.timings import lateness

MARGIN_SECONDS = 30.0  # after a fault, which count as disturbed in any case
WARM_SECONDS = 120.0  # at the beginning: imports, and learning the history that comes first
GROWTH = 1.1  # of memory, from a sixth of the time to its end
LONGEST_TURN, LONGEST_WAIT = 0.25, 0.3  # p99


@dataclass(slots=True, kw_only=True)
class Soaked:
    """Everything that a soak has left."""

    running: Stage
    state: Mapping[str, Any]
    began: float
    ended: float
    minutes: float
    memory: Memory
    done: list[Done]
    runs: Runs
    ticks: dict[str, dict[str, int]]
    rested: float | None
    answered: dict[str, int] = field(default_factory=dict)
    candles: dict[str, Candles] = field(default_factory=dict)
    likenesses: list[Likeness] = field(default_factory=list)


def figures(soaked: Soaked, report: Report) -> Iterator[Figure]:
    """The figures; what explains them goes to the terminal and into the file."""
    running, begin = soaked.running, soaked.began + WARM_SECONDS
    readings = [each for each in running.readings if begin <= each["asked"] < soaked.ended]
    found = lags(readings, running.venue, running.settings.streams, absent(running.settings, soaked.state))
    listed = disturbances(found, soaked.done, soaked.ended)
    calm = undisturbed(found, listed, MARGIN_SECONDS)
    report.note("soak", "disturbances", [asdict(each) for each in listed])
    report.note("soak", "lag", [[round(lag.at - soaked.began, 1), round(lag.most, 2)] for lag in found])
    _print_disturbances(listed, soaked, report.console)
    _print_lateness(soaked, report)
    yield _keeps_up(soaked, found, calm)
    yield _stays_small(soaked)
    yield _one_at_a_time(soaked)
    is_calm = _calm_at(listed)
    turns = [each for each in running.turns if each["kind"] == "run" and begin <= each["since"] < soaked.ended]
    held = Spread.of([each["until"] - each["since"] for each in turns if is_calm(each["since"])])
    yield _limited("DuckDB's lock held by a run's turn, outside of faults", held, LONGEST_TURN)
    waits = Spread.of([each["waited"] for each in readings if is_calm(each["asked"])])
    yield _limited("a reader's wait, outside of faults", waits, LONGEST_WAIT)
    yield _whole(soaked)


def _keeps_up(soaked: Soaked, found: Sequence[Lag], calm: Sequence[Lag]) -> Figure:
    """How far behind the tables were, outside of faults."""
    spread, every = Spread.of([lag.most for lag in calm]), Spread.of([lag.most for lag in found])
    by_stream = {
        str(stream): Spread.of([lag.by_stream[str(stream)] for lag in calm])
        for stream in soaked.running.settings.streams
    }
    most = spread.at(1.0)
    return Figure(
        name=f"keeps up for {soaked.minutes:g} minutes, {len(by_stream)} streams",
        goal=f"never more than {BEHIND_SECONDS:g} s behind",
        measured=f"{most:.1f} s at most outside of faults; {spread}",
        ratio=f"{most / BEHIND_SECONDS:.2f} of the limit",
        is_reached=most <= BEHIND_SECONDS and soaked.rested is not None,
        notes=[
            f"faults included: {every.at(1.0):.1f} s at most; {every}",
            *(f"{name}: {one.at(1.0):.1f} s at most; {one}" for name, one in by_stream.items()),
            "did not come to rest at the end"
            if soaked.rested is None
            else f"at rest {soaked.rested:.0f} s after the market stood still",
        ],
    )


def _stays_small(soaked: Soaked) -> Figure:
    """Memory of what stays, which shares pages counted once, a sixth into the time, half way and at the end."""
    moments = [soaked.minutes / 6, soaked.minutes / 2, soaked.minutes]
    sides = [soaked.memory.at_minute(minute) for minute in moments]
    totals = [sum(side.values()) for side in sides]
    processor = soaked.memory.seconds()
    span = soaked.ended - soaked.began
    return Figure(
        name="memory of everything that stays",
        goal=f"flat: within {GROWTH:g}×",
        measured=", ".join(
            f"{total / 2**20:.0f} MiB at minute {minute:g}" for total, minute in zip(totals, moments, strict=True)
        ),
        ratio=f"{totals[-1] / totals[0]:.2f}×",
        is_reached=totals[-1] <= GROWTH * totals[0],
        notes=[
            *(f"{kind}: {', '.join(f'{side[kind] / 2**20:.0f}' for side in sides)} MiB" for kind in STAYING),
            "processor, of one core: "
            + ", ".join(f"{kind} {spent / span:.1%}" for kind, spent in sorted(processor.items())),
        ],
    )


def _one_at_a_time(soaked: Soaked) -> Figure:
    """Runs of a job at once, as sampled and as their start and end overlap."""
    sampled: dict[str, int] = {}
    for sample in soaked.memory.samples:
        for job, count in sample["runs"].items():
            sampled[job] = max(sampled.get(job, 0), count)
    overlapping = soaked.runs.most_at_once()
    most = max([*sampled.values(), *overlapping.values()], default=0)
    return Figure(
        name="runs of one kind under way at once",
        goal="at most one",
        measured=", ".join(f"{job} {count}" for job, count in overlapping.items()) or "no runs",
        ratio=f"{most} of 1",
        is_reached=most == 1,
        notes=[
            f"sampled: {sampled}",
            *(f"{what}: {count}" for what, count in soaked.runs.ended().items()),
            *(f"ticks of {name}: {counts}" for name, counts in soaked.ticks.items()),
        ],
    )


def _limited(name: str, spread: Spread, limit: float) -> Figure:
    p99 = spread.at(0.99)
    return Figure(
        name=name,
        goal=f"p99 under {limit:g} s",
        measured=f"{p99:.3f} s; {spread}",
        ratio=f"{p99 / limit:.2f} of the limit",
        is_reached=p99 < limit,
    )


def _whole(soaked: Soaked) -> Figure:
    """Whether the tables hold what they should, once each."""
    wrong = [each.table for each in soaked.likenesses if not each.is_same] + list(soaked.answered)
    wrong += [f"candles of {name}" for name, each in soaked.candles.items() if not each.is_the_venues]
    stored = sum(each.stored for each in soaked.candles.values())
    left_out = sum(each.left_out for each in soaked.candles.values())
    return Figure(
        name="the tables afterwards",
        goal="every candle the venue's, every row once, as a backfill of the same deliveries",
        measured=", ".join(wrong) or f"{stored} candles, {left_out} left out by faults; nothing differs",
        ratio=f"{len(wrong)} wrong",
        is_reached=not wrong,
    )


def _calm_at(listed: Sequence[Disturbance]):
    away = [(each.since, each.since + max(MARGIN_SECONDS, each.recovered_seconds + 1)) for each in listed]
    return lambda at: not any(since <= at <= until for since, until in away)


def _print_disturbances(listed: Sequence[Disturbance], soaked: Soaked, console: Console) -> None:
    table = Table("minute", "fault", "behind at most", f"within {BEHIND_SECONDS:g} s again after", title="Faults")
    for each in listed:
        minute, recovered = (each.since - soaked.began) / 60, f"{each.recovered_seconds:.1f} s"
        table.add_row(
            f"{minute:.1f}", each.name, f"{each.most:.1f} s", recovered if each.recovered_seconds else "at once"
        )
    console.print(table)


def _print_lateness(soaked: Soaked, report: Report) -> None:
    """From the tables' own notes: how long after its close every close was stored, predicted from, learned from."""
    since = from_ms(int(soaked.running.venue.now_ms(soaked.began + WARM_SECONDS)))
    with soaked.running.warehouse.reading() as con:
        rows = lateness(con, since).to_dicts()
    table = Table(
        "stream", "stage", "closes", "p50 / p95 / p99", "slowest", title="Seconds after the close, faults included"
    )
    for row in rows:
        name = f"{row['symbol']} {row['timeframe']}"
        percentiles = " / ".join(f"{row[each]:.2f}" for each in ("p50", "p95", "p99"))
        table.add_row(name, row["stage"], str(row["closes"]), percentiles, f"{row['slowest']:.1f}")
    report.console.print(table)
    report.note("soak", "lateness", rows)
