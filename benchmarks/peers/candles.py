"""Reading all candles of one stream into memory, against NautilusTrader's catalog and plain Parquet with Polars."""

from dataclasses import asdict
from pathlib import Path
from statistics import median

import polars as pl

from benchmarks.figure import Figure
from benchmarks.homes import ETH, FILES, TWO_YEARS, new_folder, recorded_two_years
from benchmarks.peers.environments import Environment, Ours
from benchmarks.peers.nautilus import BAR_TYPE, NAUTILUS, catalog_of
from benchmarks.peers.turns import Side, check, in_turns
from hindsight.market.streams import to_ms

POLARS = Environment(name="polars", requirements=("polars==2.1.0", "numpy==2.4.6"))
ROUNDED = 1e-9  # NautilusTrader keeps fixed-point numbers


def measure(repeats: int) -> list[Figure]:
    """All candles of two years, in a process of its own each time."""
    folder = new_folder("candles")
    folder.mkdir()
    file = folder / "candles.parquet"
    candles = _candles()
    candles.write_parquet(file)
    sides = {
        "Hindsight": _ours(recorded_two_years()),
        "Polars, plain Parquet": Side(environment=POLARS, contender="polars_candles", given={"candles": str(file)}),
        "NautilusTrader, one file": _nautilus(monthly=False),
        "NautilusTrader, a file a month": _nautilus(monthly=True),
    }
    check(candles.to_numpy(), sides, sides, relative=ROUNDED)
    taken = in_turns(repeats, sides)
    ours, polars, *rivals = taken.samples.values()
    nautilus = min(rivals, key=lambda each: each.median)
    speeds = [len(candles) / each.median / 1e6 for each in (ours, polars, nautilus)]
    times = polars.median / ours.median
    opening = median(run.result["open_seconds"] for run in taken.runs["Hindsight"])
    return [
        Figure(
            name=f"reading {len(candles):,} candles into memory",
            goal="at least plain Parquet with Polars",
            measured="{:.1f} M/s, Polars {:.1f} M/s, NautilusTrader {:.2f} M/s".format(*speeds),
            ratio=f"{times:.2f}× Polars, {nautilus.median / ours.median:.0f}× NautilusTrader",
            is_reached=times >= 1,
            samples=taken.samples,
            notes=(
                f"minimum: {polars.minimum / ours.minimum:.2f}× Polars; processor: "
                f"{polars.processor / ours.processor:.2f}×",
                "all give the same candles, sorted, each in a fresh process that has read one candle before, with the "
                "files in the page cache",
                "Polars reads a file of this one stream, six columns, written by itself with its defaults; ours opens "
                "the warehouse behind its lock, chooses the stream among all, sorts, and gives revision and "
                "recorded_at too; NautilusTrader makes an object of each candle",
                f"{opening / ours.median:.0%} of ours is opening and closing the warehouse; what is left is scanning "
                "the stream, ordering it by open_time (about half of it), and Arrow to Polars",
                *taken.footprint,
            ),
        )
    ]


def _candles() -> pl.DataFrame:
    first_ms, end_ms = to_ms(TWO_YEARS.start), to_ms(TWO_YEARS.end)
    candles = pl.read_parquet(FILES[ETH]).filter(pl.col("ts_ms").is_between(first_ms, end_ms, closed="left"))
    return candles.select("ts_ms", "open", "high", "low", "close", "volume")


def _ours(home: Path) -> Side:
    given = {
        "home": str(home),
        "stream": asdict(ETH),
        "first_ms": to_ms(TWO_YEARS.start),
        "end_ms": to_ms(TWO_YEARS.end),
    }
    return Side(environment=Ours(), contender="hindsight_candles", given=given)


def _nautilus(*, monthly: bool) -> Side:
    given = {
        "catalog": str(catalog_of(TWO_YEARS, monthly=monthly)),
        "bar_type": BAR_TYPE,
        "first_close_ms": to_ms(TWO_YEARS.start + ETH.step),
    }
    return Side(environment=NAUTILUS, contender="nautilus_candles", given=given)
