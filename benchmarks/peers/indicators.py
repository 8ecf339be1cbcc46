"""Indicators at each new candle, stored, against TA-Lib over the last 600 candles."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.figure import Figure
from benchmarks.homes import ETH, FILES, TWO_YEARS, new_folder, settings_in, warehouse_in
from benchmarks.peers.environments import Environment, Ours
from benchmarks.peers.turns import Side, check, in_turns
from hindsight.exchange.sources import open_source
from hindsight.market.indicators import NAMES, TABLE
from hindsight.market.streams import Window, to_ms
from hindsight.record import record_candles

TALIB = Environment(name="talib", requirements=("TA-Lib==0.8.2", "numpy==2.4.6"))
LIMIT = 5.0
WINDOW = 600
DAYS = timedelta(days=7)
EVERY = 7  # of the last day's candles each seventh: how far back ours looks depends on the time of day
CLOSE = 1e-6  # of values in quote currency, about 1e-9 of a price
OURS = {  # way: how many times over
    "recorded": 1,
    "placed": 1,
    "computed": 10,
    "backfilled": 1,
}
FIVE, ALL, TIMES = "TA-Lib, five over 600", "TA-Lib, all of ours over 600", 100


def measure(repeats: int) -> list[Figure]:
    """The candles of a day, one after the other, as they would come."""
    folder = new_folder("indicators")
    window = Window(start=TWO_YEARS.start, end=TWO_YEARS.start + DAYS)
    home = folder / "home"
    record_candles(warehouse_in(home), open_source(settings_in(home)), ETH, window, window.end)
    opened_ms, rows = _columns(folder / "columns.npy", window)
    sides = {f"Hindsight, {way}": _ours(home, opened_ms, way, loops) for way, loops in OURS.items()}
    sides[FIVE] = _talib(folder, rows, "five")
    sides[ALL] = _talib(folder, rows, "thirteen")
    check(sides[ALL].answer(), sides, list(sides)[:-2], relative=0, absolute=CLOSE)
    taken = in_turns(repeats, sides)
    counts = {name: runs[0].result["candles"] for name, runs in taken.runs.items()}
    microseconds = {name: 1e6 * each.median / counts[name] for name, each in taken.samples.items()}
    recorded, placed, computed, backfilled, five, every = microseconds.values()
    return [
        Figure(
            name=f"{len(NAMES)} indicators at each new candle, stored",
            goal=f"within {LIMIT:g}× of five TA-Lib indicators over {WINDOW} candles, not stored",
            measured=f"{recorded:,.0f} µs a candle, TA-Lib {five:.1f} µs",
            ratio=f"{recorded / five:,.0f}×, in a common transaction {placed / five:,.0f}×",
            is_reached=recorded <= LIMIT * five,
            samples=taken.samples,
            notes=(
                f"each candle in a transaction of its own (record_indicators) {recorded:,.0f} µs; in one with others, "
                f"as the feed has it, {placed:,.0f} µs; computed alone, from candles in memory, {computed:,.0f} µs: "
                f"{computed / five:.1f}× five of TA-Lib, {computed / every:.1f}× all {len(TABLE)} calls "
                f"({every:.1f} µs)",
                f"so storing costs {recorded - computed:,.0f} µs: {placed - computed:,.0f} for DuckDB's queries, "
                f"{recorded - placed:,.0f} for opening, committing to disk and closing. TA-Lib stores nothing",
                f"a whole day at once (a backfill): {backfilled:.1f} µs a candle, stored",
                "ours starts 512 candles before the UTC day, so that a row's value never depends on where the "
                "computation began: 512 to 1,951 candles each time, TA-Lib 600; "
                f"equal to {CLOSE:g}",
                "what a profile shows of ours: DuckDB is made for many rows at once, and a row costs it nearly as "
                "much as a day; of the computing an eighth is TA-Lib, the rest makes 18 columns of one value",
                *taken.footprint,
            ),
        )
    ]


def _columns(file: Path, window: Window) -> tuple[list[int], list[int]]:
    """Writes high, low, close and volume [4, T]; gives open times and rows of the candles that come new."""
    first_ms, end_ms = to_ms(window.start), to_ms(window.end)
    candles = pl.read_parquet(FILES[ETH]).filter(pl.col("ts_ms").is_between(first_ms, end_ms, closed="left"))
    np.save(file, np.ascontiguousarray(candles.select("high", "low", "close", "volume").to_numpy().T))
    rows = range(len(candles) - 1440, len(candles), EVERY)
    return candles["ts_ms"].gather(rows).to_list(), list(rows)


def _ours(home: Path, opened_ms: list[int], way: str, loops: int) -> Side:
    given = {"home": str(home), "stream": asdict(ETH), "opened_ms": opened_ms, "way": way, "loops": loops}
    return Side(environment=Ours(), contender="hindsight_indicators", given=given)


def _talib(folder: Path, rows: list[int], way: str) -> Side:
    given = {"candles": str(folder / "columns.npy"), "rows": rows, "window": WINDOW, "way": way, "loops": TIMES}
    return Side(environment=TALIB, contender="talib_indicators", given=given)
