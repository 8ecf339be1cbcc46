"""The point-in-time join: what was known of one stream at each of a thousand instants, against Feast's two stores."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.figure import Figure
from benchmarks.homes import ETH, TWO_YEARS, new_folder, record, settings_in, warehouse_in
from benchmarks.peers.environments import Environment, Ours
from benchmarks.peers.turns import Side, check, in_turns
from hindsight.inference.frames import COLUMNS, Tape
from hindsight.market.streams import Window, to_ms
from hindsight.store import tape as tapes

FEAST = Environment(name="feast", requirements=("feast[duckdb]==0.67.0",))
GOAL = 1000.0
ROWS, REFERENCES = 100_000, 1000
JOINED_ROW_BYTES = 370  # what Feast's file store was seen to need of memory for each pair of a row and a reference
OURS, RESIDENT, FILE, DUCKDB = "Hindsight", "Hindsight, tape at hand", "Feast, file store", "Feast, DuckDB store"


def measure(repeats: int) -> list[Figure]:
    """The as-of values of all columns of the tape at random instants."""
    folder = new_folder("joins")
    window = Window(start=TWO_YEARS.start, end=TWO_YEARS.start + ROWS * ETH.step)
    tape = _recorded(folder, window)
    instants = _instants(tape)
    calls = _calls()
    np.save(folder / "instants.npy", instants)
    _features(tape).write_parquet(folder / "features.parquet")
    (folder / "feast").mkdir()
    sides = {
        OURS: _ours(folder, window, is_resident=False),
        RESIDENT: _ours(folder, window, is_resident=True),
        FILE: _feast(folder, "file", calls),
        DUCKDB: _feast(folder, "duckdb", 1),
    }
    check(_plainly(tape, instants), sides, sides, relative=0)
    taken = in_turns(repeats, sides)
    ours, resident, file, duckdb = taken.samples.values()
    times = file.median / ours.median
    return [
        Figure(
            name=f"point-in-time join, {ROWS:,} feature rows, {REFERENCES:,} references, {len(COLUMNS)} columns",
            goal=f"{GOAL:,.0f}× Feast's file store",
            measured=f"{1000 * ours.median:.1f} ms, Feast {file.median:.1f} s (its DuckDB store {duckdb.median:.2f} s)",
            ratio=f"{times:,.0f}× the file store, {duckdb.median / ours.median:,.0f}× the DuckDB store",
            is_reached=times >= GOAL,
            samples=taken.samples,
            notes=(
                "all four give the same float32 values, to the bit; the features of a row are known at its candle's "
                "close, and the instants fall anywhere between",
                "ours opens the warehouse, checks the tape on disk against the tables, maps it and gathers; Feast "
                "reads its Parquet file. Tape and file were written before. With the tape mapped already, as for "
                f"learning: {1e6 * resident.median:,.0f} µs, {file.median / resident.median:,.0f}× the file store, "
                f"{duckdb.median / resident.median:,.0f}× the DuckDB store",
                "ours finds a row by arithmetic, for it knows one stream on one grid; Feast joins by any key and any "
                "times, several views at once. Its file store pairs every row with every reference before it chooses; "
                "its DuckDB store compares as many, and keeps those no older than the ttl, one candle in both",
                "the file store is Feast's default; its documentation warns that it may not scale to production",
                f"Feast's file store was asked in {calls} call(s), of {REFERENCES // calls:,} references, so that its "
                "join takes half of the free memory at most; imports, registry and `apply` are left out on all sides",
                *taken.footprint,
            ),
        )
    ]


def _recorded(folder: Path, window: Window) -> Tape:
    """The tape of a home in `folder`, with candles, indicators and pivots, written to disk."""
    home = folder / "home"
    record(home, ETH, window)
    with warehouse_in(home).reading() as con:
        return tapes.load(con, settings_in(home).tape_path, ETH, window, window.start)


def _instants(tape: Tape) -> np.ndarray:
    """Sorted instants, in milliseconds, after the close of the first row."""
    chance = np.random.default_rng(0)
    after = chance.choice(np.arange(tape.step_ms, ROWS * tape.step_ms, 7), REFERENCES, replace=False)
    return np.sort(after) + tape.first_row * tape.step_ms


def _features(tape: Tape) -> pl.DataFrame:
    """The tape as a table of features, each row known at the close of its candle."""
    known_ms = (np.arange(tape.first_row, tape.end_row) + 1) * tape.step_ms
    known_at = pl.from_epoch(pl.Series(known_ms), "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    key = pl.DataFrame({"stream": pl.repeat(str(ETH), ROWS, eager=True), "known_at": known_at})
    return key.hstack(pl.DataFrame(np.asarray(tape.rows), schema=list(COLUMNS)))


def _plainly(tape: Tape, instants: np.ndarray) -> np.ndarray:
    """What every side has to answer: the last row known at each instant."""
    known_ms = (np.arange(tape.first_row, tape.end_row) + 1) * tape.step_ms
    return tape.rows[np.searchsorted(known_ms, instants, side="right") - 1]


def _calls() -> int:
    """In how many calls Feast's file store is asked, so that each needs half of the memory that is free at most."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    calls = 1
    while ROWS * REFERENCES * JOINED_ROW_BYTES / calls > free / 2:
        calls *= 2
    return calls


def _ours(folder: Path, window: Window, *, is_resident: bool) -> Side:
    given = {
        "home": str(folder / "home"),
        "stream": asdict(ETH),
        "first_ms": to_ms(window.start),
        "end_ms": to_ms(window.end),
        "instants": str(folder / "instants.npy"),
        "is_resident": is_resident,
    }
    return Side(environment=Ours(), contender="hindsight_join", given=given)


def _feast(folder: Path, store: str, calls: int) -> Side:
    given = {
        "store": store,
        "repository": str(folder / "feast"),
        "features": str(folder / "features.parquet"),
        "stream": str(ETH),
        "names": list(COLUMNS),
        "instants": str(folder / "instants.npy"),
        "calls": calls,
        "step_ms": ETH.step_ms,
    }
    return Side(environment=FEAST, contender="feast_join", given=given)
