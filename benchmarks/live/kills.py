"""kill -9 at random points: of the feed, the daemon, the code server, the template, and the processes of runs.

500 closes of two streams in some eight minutes, and 40 kills spread over them by a seeded generator. Afterwards every
candle must be the venue's, no question about the tables may have an answer, and a fresh home into which the same
deliveries are backfilled must hold the same rows: each reference, outcome and step once, none missing.
"""

import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure
from benchmarks.live.drain import come_to_rest
from benchmarks.live.faults import killed
from benchmarks.live.likeness import likenesses, show
from benchmarks.live.report import Report
from benchmarks.live.sound import candles_beside_the_venues, questions_answered
from benchmarks.live.stage import Stage, stage
from benchmarks.live.twin import Delivered, backfilled
from benchmarks.live.up import entered
from hindsight.market.streams import from_ms

START = datetime(2024, 2, 18, 21, 50, tzinfo=UTC)  # with a correction and an outage ahead, as in same.py
CLOSES, KILLS = 500, 40
SPEED = 60.0
MINUTES = CLOSES / SPEED
KINDS = ("feed", "daemon", "code", "template", "run")
BEFORE_SECONDS = 20.0  # in which all of it starts, and nothing is killed
WITHIN_RUN_SECONDS = 0.6


def measure(report: Report, folder: Path, minutes: float, speed: float, seed: int) -> None:
    """The kills, and what was left of it all."""
    place, chance = folder / "kills", np.random.default_rng(seed)
    count = max(1, round(KILLS * minutes / MINUTES))
    with stage(place, speed=speed, start=START, train_every=3) as running:
        report.say(f"kills: {count} in {minutes:.1f} minutes, {minutes * speed:.0f} closes of two streams each")
        time.sleep(BEFORE_SECONDS)
        began = time.monotonic()
        done = []
        for due in np.sort(chance.uniform(0.0, minutes * 60, count)):
            time.sleep(max(0.0, began + due - time.monotonic()))
            done.append(_kill(running, str(chance.choice(KINDS)), float(chance.uniform(0.0, WITHIN_RUN_SECONDS))))
            report.note("kills", "killed", done)
        time.sleep(max(0.0, began + minutes * 60 - time.monotonic()))
        state = running.venue.state()
        rested = come_to_rest(running)
        report.say("kills: did not come to rest" if rested is None else f"kills: at rest after {rested:.0f} s")
        said = [line for line in running.up.said(0) if " was killed by " in line]
    _judge(report, running, place, state, done, rested, said)


def _kill(running: Stage, kind: str, within: float) -> dict[str, object]:
    """Kills one process of a kind, a run's so long after it was seen; of another kind where none of it came. What, and
    when by the venue's clock.
    """
    pid = None
    for each in (kind, *(other for other in KINDS if other != kind)):
        pid = killed(running, each, within)
        if pid is not None:
            kind = each
            break
    return {"kind": kind, "pid": pid, "venue": str(from_ms(int(running.venue.now_ms())))}


def _judge(
    report: Report,
    running: Stage,
    place: Path,
    state: dict[str, object],
    done: list[dict[str, object]],
    rested: float | None,
    said: list[str],
) -> None:
    """The figure."""
    live = running.settings
    with entered(running.told):
        answered = questions_answered(live)
    candles = candles_beside_the_venues(live, state)
    report.say("kills: what was delivered is backfilled into a fresh home")
    found = likenesses(live, backfilled(live, place / "twin", Delivered(live)))
    show(found, report.console)
    report.note("kills", "tables", [asdict(each) for each in found])
    report.note("kills", "candles", {name: asdict(each) for name, each in candles.items()})
    report.note("kills", "questions", answered)
    report.note("kills", "said", said)
    wrong = [each.table for each in found if not each.is_same] + list(answered)
    wrong += [f"candles of {name}" for name, each in candles.items() if not each.is_the_venues]
    dead = Counter(str(each["kind"]) for each in done if each["pid"])
    report.add(
        Figure(
            name=f"exactly once, {', '.join(f'{each.stored} candles of {name}' for name, each in candles.items())}",
            goal=f"every candle, reference, outcome and step once, none missing, after {len(done)} kills",
            measured=", ".join(wrong) or "each once, as a backfill of the same deliveries",
            ratio=f"{dead.total()} killed: {', '.join(f'{kind} {count}' for kind, count in dead.items())}",
            is_reached=rested is not None and not wrong and dead.total() == len(done),
            notes=[] if rested is None else [f"everything was done {rested:.0f} s after the market stood still"],
        )
    )
