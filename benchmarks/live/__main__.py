"""Measures the live path against its goals: `make bench-live`, two hours.

    python -m benchmarks.live                                      all four, one after the other
    python -m benchmarks.live latency --storage sqlite             how late closes are, in one configuration only
    python -m benchmarks.live soak --minutes 60 --out soak.json    an hour of 1s candles, with faults
    python -m benchmarks.live kills                                kill -9 at 40 random points
    python -m benchmarks.live same                                 what was recorded live against a backfill of it

Each runs the real `hindsight up` against a venue of its own, in a temporary folder, and ends only what it started. The
machine should have nothing else to do.
"""

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figure import summarise, wide_console
from benchmarks.live import latency
from benchmarks.live.latency import Configuration
from benchmarks.live.report import Report

NAMES = ("latency", "kills", "same", "soak")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--minutes", type=float, help="of our time that each runs, instead of its own")
    parser.add_argument("--speed", type=float, help="seconds that pass at the venue in one of ours, instead of its own")
    parser.add_argument("--launcher", choices=("warm", "stock"), help="latency: this configuration alone")
    parser.add_argument("--storage", choices=("sqlite", "postgres"), help="latency: this configuration alone")
    parser.add_argument("--seed", type=int, default=0, help="kills: which random points")
    parser.add_argument(
        "--home", type=Path, help="folder for homes and logs, which then stay; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, help="JSON of everything that was measured, written as it goes")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    # A table cut to the width of a log file's missing terminal would say nothing.
    report = Report(wide_console(170), chosen.out and chosen.out.resolve())
    report.console.print(report.told["machine"], highlight=False)
    with _place(chosen.home) as folder:
        for name in chosen.names or NAMES:
            given = {"minutes": chosen.minutes, "speed": chosen.speed}
            module = importlib.import_module(f"benchmarks.live.{name}")
            own = {"minutes": module.MINUTES, "speed": module.SPEED}
            given = {word: own[word] if value is None else value for word, value in given.items()}
            if name == "latency":
                given["configurations"] = _configurations(chosen.launcher, chosen.storage)
            if name == "kills":
                given["seed"] = chosen.seed
            module.measure(report, folder, **given)
    summarise(report.figures, report.console)
    sys.stdout.flush()
    os._exit(0)  # duckdb complains on stderr about what is alive when an interpreter ends


def _configurations(launcher: str | None, storage: str | None) -> tuple[Configuration, ...]:
    """Those that were asked for."""
    if launcher or storage:
        return (Configuration(launcher or "warm", storage or "sqlite"),)
    return latency.ALL


@contextmanager
def _place(home: Path | None) -> Iterator[Path]:
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        yield home.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="hindsight-live-") as folder:
            yield Path(folder)


if __name__ == "__main__":
    main()
