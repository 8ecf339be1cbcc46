"""What goes wrong in the soak, minute by minute: the venue misbehaves, parts are killed, the DuckDB file is held."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.live.processes import of_kind
from benchmarks.live.stage import Stage

SEARCH_SECONDS = 30.0  # for the process that is to be killed
# Opens the file as a notebook would, which knows nothing of our lock: again and again, until it gets in.
INTRUDER = """
import sys, time, duckdb
while True:
    try:
        con = duckdb.connect(sys.argv[1])
        break
    except duckdb.IOException:
        time.sleep(0.002)
print("in", flush=True)
time.sleep(float(sys.argv[2]))
"""


SYMBOLS = ("ethusdt", "btcusdt")
KLINES, TRADES, BOOKS = "*@kline_*", "*@trade", "*@depth*"
EVERY_KLINE = tuple(f"{symbol}@kline_{timeframe}" for symbol in SYMBOLS for timeframe in ("1s", "1m"))
EVERY_BOOK = tuple(f"{symbol}@depth*" for symbol in SYMBOLS)


def _each(fault: str, *streams: str, **words: object) -> tuple[dict[str, object], ...]:
    """The same fault on several streams."""
    return tuple({"fault": fault, "stream": stream, **words} for stream in streams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault: told to the venue, and taken back after `lift_seconds`; or a kill; or a hold of the DuckDB file."""

    minute: float  # of an hour
    name: str
    told: tuple[Mapping[str, object], ...] = ()
    lift_seconds: float = 0.0
    kill: str = ""
    hold_seconds: float = 0.0


def _refusing(status: int) -> tuple[Mapping[str, object], ...]:
    """Every connection cut, and the requests that follow refused for a while."""
    refusal = {"fault": "status", "status": status, "retry_after": 5, "count": 3}
    return (refusal, *_each("close", KLINES, TRADES, BOOKS))


# Candles go missing last: nothing is predicted from a stretch with a hole in it.
PLAN = (
    Planned(minute=4, name="every connection cut", told=_each("close", KLINES, TRADES, BOOKS)),
    Planned(minute=7, name="connections half-open", told=_each("half_open", KLINES, TRADES, BOOKS, seconds=60)),
    Planned(minute=10, name="messages twice", told=_each("duplicate", KLINES, TRADES, BOOKS, count=40)),
    Planned(minute=12, name="messages out of order", told=_each("reorder", KLINES, TRADES, BOOKS, count=20)),
    Planned(minute=14, name="candles corrected after their close", told=_each("correct", *EVERY_KLINE, seconds=3)),
    Planned(minute=17, name="clock 3 s ahead", told=({"fault": "skew", "ms": 3000},), lift_seconds=60),
    Planned(minute=20, name="clock 3 s behind", told=({"fault": "skew", "ms": -3000},), lift_seconds=60),
    Planned(minute=23, name="429 while holes are to be filled", told=_refusing(429)),
    Planned(minute=25, name="418 while holes are to be filled", told=_refusing(418)),
    Planned(
        minute=27,
        name="messages malformed",
        told=(
            *_each("corrupt", KLINES, TRADES, BOOKS, count=3),
            *_each("truncate", KLINES, TRADES, BOOKS, count=3),
            *_each("field", KLINES, name="k.c", count=2),
            *_each("field", KLINES, name="k.h", value="NaN", count=2),
            *_each("field", KLINES, name="k.v", value="-1", count=2),
            *_each("field", TRADES, name="p", value="a lot", count=2),
            *_each("field", BOOKS, name="b.0.1", value="-1", count=2),
        ),
    ),
    Planned(minute=29, name="chain of the books broken", told=_each("break_chain", *EVERY_BOOK)),
    Planned(minute=31, name="books crossed", told=_each("cross", *EVERY_BOOK)),
    Planned(minute=34, name="feed killed", kill="feed"),
    Planned(minute=36.5, name="daemon killed", kill="daemon"),
    Planned(minute=39, name="code server killed", kill="code"),
    Planned(minute=41.5, name="a run killed", kill="run"),
    Planned(minute=44, name="template killed", kill="template"),
    Planned(minute=47, name="DuckDB's file held by another program for 30 s", hold_seconds=30),
    Planned(minute=51, name="5 candles missing", told=_each("gap", "btcusdt@kline_1s", "ethusdt@kline_1m", candles=5)),
    Planned(minute=57.5, name="a candle missing", told=_each("gap", "ethusdt@kline_1s", "btcusdt@kline_1m")),
)


@dataclass(slots=True)
class Done:
    """A fault that was carried out: when, by our clock; what the venue numbered it; whether the kill found anybody."""

    planned: Planned
    at: float
    numbers: list[int]
    pid: int | None = None


class Faults:
    """Carries the plan out beside everything else, stretched or shrunk to the minutes of a run."""

    def __init__(self, running: Stage, minutes: float) -> None:
        self.running, self.minutes = running, minutes
        self.done: list[Done] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Faults":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        began, lifts = time.monotonic(), []
        for planned in PLAN:
            due = began + planned.minute / 60 * self.minutes * 60
            while time.monotonic() < due:
                if self._stop.wait(0.2):
                    return
                lifts = list(self._lifted(lifts))
            done = self._carry_out(planned)
            if planned.lift_seconds:
                lifts.append((time.monotonic() + planned.lift_seconds, done.numbers))
        while lifts and not self._stop.wait(0.2):
            lifts = list(self._lifted(lifts))

    def _lifted(self, lifts: list[tuple[float, list[int]]]) -> Iterator[tuple[float, list[int]]]:
        """Takes back what is due, and returns the rest."""
        for at, numbers in lifts:
            if time.monotonic() < at:
                yield at, numbers
                continue
            for number in numbers:
                self.running.venue.disarm(number)

    def _carry_out(self, planned: Planned) -> Done:
        done = Done(planned, time.time(), [])
        self.done.append(done)
        if planned.told:
            done.numbers = self.running.venue.arm(*planned.told)
        if planned.kill:
            done.pid = killed(self.running, planned.kill)
        if planned.hold_seconds:
            done.pid = self._hold(planned.hold_seconds)
        return done

    def _hold(self, seconds: float) -> int:
        path = str(self.running.settings.warehouse_path)
        process = subprocess.Popen([sys.executable, "-c", INTRUDER, path, str(seconds)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        threading.Thread(target=process.wait, daemon=True).start()
        return process.pid


def killed(running: Stage, kind: str, after_seconds: float = 0.0) -> int | None:
    """Kills one process of this kind as soon as there is one, `after_seconds` later where it is a run; its id, or None
    where none came.
    """
    looked = time.monotonic()
    while time.monotonic() - looked < SEARCH_SECONDS:
        for pid in of_kind(running.settings.home, kind):
            time.sleep(after_seconds if kind == "run" else 0.0)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                break  # the run had ended by then; the next one will do
            return pid
        time.sleep(0.02)
    return None
