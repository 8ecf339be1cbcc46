"""Measures Hindsight beside what people use today, and prints each row with its goal and its ratio to the rival.

    python -m benchmarks.peers                        every row (`make bench-peers`)
    python -m benchmarks.peers joins windows          only these
    python -m benchmarks.peers joins --repeats 1      each side once

Rivals are installed below .hindsight/peers when they are asked for the first time; all else that is written goes to a
temporary folder.
"""

import argparse
import importlib

from benchmarks.figure import Figure, show, skipped, summarise, wide_console
from benchmarks.homes import CANDLES, scratch
from benchmarks.sampling import machine

ROWS = ("freqai", "prequential", "joins", "windows", "candles", "trades", "indicators")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side; default 5")
    chosen = parser.parse_args()
    unknown = set(chosen.rows) - set(ROWS)
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    console = wide_console()
    console.print(machine(), highlight=False)
    figures: list[Figure] = []
    with scratch():
        for name in chosen.rows or ROWS:
            if CANDLES.is_dir():
                found = importlib.import_module(f"benchmarks.peers.{name}").measure(chosen.repeats)
            else:
                found = [skipped(name, f"recorded candles are not at {CANDLES}")]
            for figure in found:
                show(figure, console)
            figures += found
    summarise(figures, console)


if __name__ == "__main__":
    main()
