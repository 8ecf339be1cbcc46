"""A window of 600 candles by reference, against the same window asked of NautilusTrader's catalog."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.figure import Figure
from benchmarks.homes import ETH, FILES, TWO_YEARS, new_folder, recorded_two_years, settings_in, warehouse_in
from benchmarks.peers.environments import Ours
from benchmarks.peers.nautilus import BAR_TYPE, NAUTILUS, catalog_of
from benchmarks.peers.turns import Side, check, in_turns
from hindsight.inference.frames import CANDLE_COLUMNS, COLUMNS
from hindsight.market.streams import to_ms
from hindsight.store import tape as tapes

GOAL = 100.0
WINDOWS, LENGTH = 1000, 600
# A frame is float32, and so is what is compared.
FLOAT32 = 1e-7


def measure(repeats: int) -> list[Figure]:
    """Random windows of two years, one at a time, and ours all at once besides."""
    folder = new_folder("windows")
    folder.mkdir()
    home = recorded_two_years()
    with warehouse_in(home).reading() as con:  # brings the tape on disk up to the window's end
        tapes.load(con, settings_in(home).tape_path, ETH, TWO_YEARS, TWO_YEARS.start)
    bounds, expected = _windows()
    np.save(folder / "windows.npy", bounds)
    sides = {
        "Hindsight, one at a time": _ours(folder, home, 1),
        "Hindsight, all at once": _ours(folder, home, WINDOWS),
        "NautilusTrader, a file a month": _nautilus(folder, monthly=True),
        "NautilusTrader, one file": _nautilus(folder, monthly=False),
    }
    check(expected, sides, sides, relative=FLOAT32)
    taken = in_turns(repeats, sides)
    single, batch, monthly, whole = taken.samples.values()
    rival = min(monthly.median, whole.median)
    times = rival / single.median
    load_seconds = taken.runs["Hindsight, one at a time"][0].result["load_seconds"]
    return [
        Figure(
            name=f"{WINDOWS:,} random windows of {LENGTH} candles, one at a time",
            goal=f"{GOAL:.0f}× NautilusTrader's catalog",
            measured=f"{1e6 * single.median / WINDOWS:.0f} µs a window, NautilusTrader {1e3 * rival / WINDOWS:.1f} ms",
            ratio=f"{times:.0f}×, minimum {min(monthly.minimum, whole.minimum) / single.minimum:.0f}×",
            is_reached=times >= GOAL,
            samples=taken.samples,
            notes=(
                f"both give the same candles (ours as float32, theirs rounded to cents and 0.00001 ETH). Ours besides "
                f"gives the other {len(COLUMNS) - len(CANDLE_COLUMNS)} columns of the tape, as one array; "
                "NautilusTrader a list of Bar objects",
                f"ours reads a tape that is mapped; opening it took {1000 * load_seconds:.0f} ms, once. "
                "NautilusTrader's catalog keeps nothing open between queries: each finds the files by name and asks "
                "DataFusion, and that is what its interface offers",
                f"processor: {min(monthly.processor, whole.processor) / single.processor:.0f}×",
                f"its catalog holds the same two years in one file or one for each month; the faster way counts. "
                f"All {WINDOWS:,} at once: {1e6 * batch.median / WINDOWS:.0f} µs a window of ours",
                *taken.footprint,
            ),
        )
    ]


def _windows() -> tuple[np.ndarray, np.ndarray]:
    """First and last close of each window, in milliseconds, and the candles between [WINDOWS, LENGTH, 5].

    None reaches over a missing candle, for there ours is a row of NaN and theirs none.
    """
    first_ms, end_ms = to_ms(TWO_YEARS.start), to_ms(TWO_YEARS.end)
    candles = pl.read_parquet(FILES[ETH]).filter(pl.col("ts_ms").is_between(first_ms, end_ms, closed="left"))
    opened = candles["ts_ms"].to_numpy()
    lasts = np.random.default_rng(0).integers(LENGTH, len(opened), 2 * WINDOWS)
    whole = opened[lasts] - opened[lasts - LENGTH + 1] == (LENGTH - 1) * ETH.step_ms
    lasts = lasts[whole][:WINDOWS]
    bounds = np.stack([opened[lasts - LENGTH + 1], opened[lasts]], axis=1) + ETH.step_ms
    rows = lasts[:, None] + np.arange(1 - LENGTH, 1)
    return bounds, candles.select(CANDLE_COLUMNS).to_numpy()[rows]


def _ours(folder: Path, home: Path, batch: int) -> Side:
    given = {
        "home": str(home),
        "stream": asdict(ETH),
        "first_ms": to_ms(TWO_YEARS.start),
        "end_ms": to_ms(TWO_YEARS.end),
        "windows": str(folder / "windows.npy"),
        "length": LENGTH,
        "batch": batch,
    }
    return Side(environment=Ours(), contender="hindsight_windows", given=given)


def _nautilus(folder: Path, *, monthly: bool) -> Side:
    catalog = catalog_of(TWO_YEARS, monthly=monthly)
    given = {"catalog": str(catalog), "bar_type": BAR_TYPE, "windows": str(folder / "windows.npy")}
    return Side(environment=NAUTILUS, contender="nautilus_windows", given=given)
