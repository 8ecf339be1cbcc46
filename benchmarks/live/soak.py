"""An hour at the speed of a market: 1s and 1m candles of two symbols, books, trades, and a fault every few minutes.

Every 5 s: how far each stream is behind, memory and processor time of every process, runs under way. What is known so
far stands in --out every minute. At the end the market stands still, everything comes to rest, and the tables are held
against the venue and against a backfill of what was delivered.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.live.drain import come_to_rest
from benchmarks.live.faults import Done, Faults
from benchmarks.live.likeness import likenesses
from benchmarks.live.likeness import show as show_likenesses
from benchmarks.live.memory import Memory
from benchmarks.live.report import Report
from benchmarks.live.runs import Runs, ticks
from benchmarks.live.sound import candles_beside_the_venues, questions_answered
from benchmarks.live.stage import Stage, stage
from benchmarks.live.summary import Soaked, figures
from benchmarks.live.twin import Delivered, backfilled
from benchmarks.live.up import entered

# In the 1,000 minutes before nothing is corrected or missing; 10 minutes on, trades of ETH/USDT come late.
START = datetime(2024, 2, 18, 22, 50, tzinfo=UTC)
MINUTES, SPEED = 60.0, 1.0
SAMPLE_SECONDS, TELL_SECONDS, READ_EVERY_SECONDS = 5.0, 60.0, 1.0
LOG_SECONDS, LOG_LINES = 60.0, 12  # after a fault, and of what was said then
TELLING = re.compile(
    r"WARNING|ERROR|CRITICAL|ALERT|hindsight +\||connected|filled|correct|missing|refused|silent|set aside"
)
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]?\d*( \+0000)?|[0-9a-f]{8}-[0-9a-f-]{27}")


def measure(report: Report, folder: Path, minutes: float, speed: float) -> None:
    """The soak, and what is to be said of it."""
    place = folder / "soak"
    settings = {"timeframes": "1m,1s", "symbols": "ETH/USDT,BTC/USDT"}
    with stage(place, speed=speed, start=START, read_every_seconds=READ_EVERY_SECONDS, **settings) as running:
        began, home = time.time(), running.settings.home
        memory = Memory(home, began)
        _wait_for_instance(running)
        with entered(running.told), dg.DagsterInstance.get() as instance, Faults(running, minutes) as faults:
            runs = Runs(instance)
            report.say(f"soak: {minutes:g} minutes of {len(running.settings.streams)} streams")
            told = 0.0
            while time.time() < began + minutes * 60:
                now = time.time()
                memory.sample(now, runs=runs.look(), venue_ms=round(running.venue.now_ms(now)))
                if now - told >= TELL_SECONDS:
                    told = now
                    _tell(report, running, memory, faults.done)
                time.sleep(max(0.0, now + SAMPLE_SECONDS - time.time()))
            ended, state = time.time(), running.venue.state()
            rested = come_to_rest(running)
            runs.look()
            soaked = Soaked(
                running=running,
                state=state,
                began=began,
                ended=ended,
                minutes=minutes,
                memory=memory,
                done=list(faults.done),
                runs=runs,
                ticks=ticks(instance, began),
                rested=rested,
            )
        said = _said(running, faults.done)
    _tell(report, running, memory, soaked.done)
    _judge(report, soaked, place, said)


def _judge(report: Report, soaked: Soaked, place: Path, said: Mapping[str, Any]) -> None:
    live = soaked.running.settings
    with entered(soaked.running.told):
        soaked.answered = questions_answered(live)
    soaked.candles = candles_beside_the_venues(live, soaked.state)
    report.say("soak: what was delivered is backfilled into a fresh home")
    soaked.likenesses = likenesses(live, backfilled(live, place / "twin", Delivered(live)))
    show_likenesses(soaked.likenesses, report.console)
    report.note("soak", "tables", [asdict(each) for each in soaked.likenesses])
    report.note("soak", "candles", {name: asdict(each) for name, each in soaked.candles.items()})
    report.note("soak", "questions", soaked.answered)
    report.note("soak", "log after each fault", said)
    report.note("soak", "ticks", soaked.ticks)
    report.note("soak", "runs", {"at once": soaked.runs.most_at_once(), "ended": soaked.runs.ended()})
    for figure in figures(soaked, report):
        report.add(figure)


def _wait_for_instance(running: Stage) -> None:
    """Until Dagster's instance is there to be opened."""
    while not (running.settings.home / "dagster" / "dagster.yaml").exists():
        time.sleep(0.2)


def _tell(report: Report, running: Stage, memory: Memory, done: list[Done]) -> None:
    """One line of progress, and everything so far into the file."""
    readings = running.readings
    newest = readings[-1]["closes"] if readings else {}
    now_ms = running.venue.now_ms()
    behind = {name: round((now_ms - close) / 1000) for name, close in newest.items()}
    sample = memory.samples[-1]
    held = sum(sample["share"].values()) / 2**20
    report.say(f"soak: newest closes {behind} s ago, {held:.0f} MiB, {len(done)} faults, runs {sample['runs']}")
    faults = [{"name": each.planned.name, "second": round(each.at - memory.began, 1), "pid": each.pid} for each in done]
    report.note("soak", "faults", faults)
    report.note("soak", "samples", memory.samples)


def _said(running: Stage, done: list[Done]) -> dict[str, dict[str, int]]:
    """By fault, what the log said in the minute after it that tells of trouble or of its end; and how often."""
    found = {}
    for each, next_one in zip(done, [*(each.at for each in done[1:]), math.inf], strict=True):
        lines = running.up.said(each.at, min(each.at + LOG_SECONDS, next_one))
        counted = Counter(STAMP.sub("", line) for line in lines if TELLING.search(line))
        found[each.planned.name] = dict(list(counted.items())[:LOG_LINES])
    return found
