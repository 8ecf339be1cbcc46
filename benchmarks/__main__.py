"""Measures the figures that the project promises, and prints each with its goal and its ratio to the limit or rival.

    python -m benchmarks                        every figure but the long ones (`make bench`)
    python -m benchmarks candles disk           only these
    python -m benchmarks learning --home DIR    what a long run has learned (`make bench-learning`)
    python -m benchmarks planted                whether every block arrives, and only there (`make bench-planted`)

Everything is written to a temporary folder; an existing home that is given is only read.
"""

import argparse
import importlib
from pathlib import Path

from benchmarks.figure import Figure, show, skipped, summarise, wide_console
from benchmarks.homes import CANDLES, scratch
from benchmarks.sampling import machine

LONG = ("learning", "planted")
FIGURES = (
    "candles",
    "compute",
    "loop",
    "models",
    "close",
    "steps",
    "resolve",
    "frame",
    "disk",
    "predictions",
    "memory",
    "growth",
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = ", ".join((*FIGURES, *LONG))
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{every}; default: all but the last two")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender; default 5")
    parser.add_argument("--home", type=Path, help="learning: read what this HINDSIGHT_HOME holds instead of learning")
    parser.add_argument("--days", type=int, help="learning: learn only so many days, to try it out")
    chosen = parser.parse_args()
    unknown = set(chosen.figures) - {*FIGURES, *LONG}
    if unknown:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {every}")
    home = chosen.home.resolve() if chosen.home else None
    console = wide_console()
    console.print(machine(), highlight=False)
    figures: list[Figure] = []
    with scratch():
        for name in chosen.figures or FIGURES:
            if name == "learning":
                from benchmarks import learning

                found = learning.measure(home, chosen.days)
            elif name == "planted":
                from benchmarks import planted

                found = planted.measure()
            elif not CANDLES.is_dir():
                found = [skipped(name, f"recorded candles are not at {CANDLES}")]
            else:
                found = [importlib.import_module(f"benchmarks.{name}").measure(chosen.repeats)]
            for figure in found:
                show(figure, console)
            figures += found
    summarise(figures, console)


if __name__ == "__main__":
    main()
