"""Resolving references to the frames that they address, against a plain copy and against range queries in DuckDB."""

from statistics import median

import numpy as np

from benchmarks.figure import Figure
from benchmarks.homes import ETH, TWO_YEARS, recorded_two_years, settings_in, warehouse_in
from benchmarks.sampling import Sample, Samples, take_turns, timed
from hindsight.inference.frames import CANDLE_COLUMNS, COLUMNS, Tape
from hindsight.market.indicators import NAMES
from hindsight.market.streams import Window, from_ms
from hindsight.store import tape as tapes
from hindsight.store.rows import select, stream_key
from hindsight.store.warehouse import Warehouse

COPY_SPEED, DUCKDB = 0.5, 100.0
REFERENCES, LENGTH = 1024, 600
QUERIED = 64  # a query takes a hundredth of a second and more; 64 of them are measured, and counted sixteen times
WINDOW = f"""
    select {", ".join((*CANDLE_COLUMNS, *NAMES))}
    from candles
    join indicators using (venue, symbol, timeframe, open_time)
    where venue = $venue
      and symbol = $symbol
      and timeframe = $timeframe
      and open_time >= $start
      and open_time < $end
    order by open_time"""


def measure(repeats: int) -> Figure:
    """1,024 random references of two years into [1024, 600, F]."""
    warehouse = warehouse_in(recorded_two_years())
    with warehouse.reading() as con:
        settings = settings_in(recorded_two_years())
        tape = tapes.load(con, settings.tape_path, ETH, TWO_YEARS, TWO_YEARS.start)
    last_rows = np.random.default_rng(0).integers(tape.first_row + LENGTH, tape.end_row, REFERENCES)
    frames = tape.gather(last_rows, LENGTH)
    ready = np.empty_like(frames)
    samples = take_turns(
        5 * repeats,
        {
            "Tape.gather": lambda: timed(lambda: tape.gather(last_rows, LENGTH)),
            "a plain copy of the same bytes": lambda: timed(frames.copy),
            "a copy into memory that is there": lambda: timed(lambda: np.copyto(ready, frames)),
        },
        warm_ups=("Tape.gather", "a plain copy of the same bytes"),
    )
    samples["DuckDB, a query each"] = Samples([_queried(warehouse, tape, last_rows) for _ in range(repeats)])
    gather, copy, onto, queries = samples.values()
    speed, times = copy.median / gather.median, queries.median / gather.median
    gigabytes = frames.nbytes / 1e9
    return Figure(
        name=f"resolving 1,024 random references to [1024, 600, {len(COLUMNS)}]",
        goal=f"at least {COPY_SPEED:g} of a plain copy's speed, and {DUCKDB:g}× DuckDB",
        measured=f"{1000 * gather.median:.0f} ms ({gigabytes / gather.median:.1f} GB/s)",
        ratio=f"{speed:.2f} of a copy, {times:.0f}× DuckDB",
        is_reached=speed >= COPY_SPEED and times >= DUCKDB,
        samples=samples,
        notes=(
            f"speed over a plain copy: median {speed:.2f}, minimum {copy.minimum / gather.minimum:.2f}, processor "
            f"{copy.processor / gather.processor:.2f}; over a copy into memory that is there already: "
            f"{onto.median / gather.median:.2f}",
            f"DuckDB: {QUERIED} queries measured, {1000 * queries.median / REFERENCES:.1f} ms each, counted "
            f"{REFERENCES // QUERIED} times; candles and indicators of the window, no pivots; the file is open before",
        ),
    )


def _queried(warehouse: Warehouse, tape: Tape, last_rows: np.ndarray) -> Sample:
    ends = [from_ms((row + 1) * tape.step_ms) for row in last_rows[:QUERIED].tolist()]
    windows = [Window(start=end - LENGTH * ETH.step, end=end) for end in ends]
    with warehouse.reading() as con:
        rows: list[int] = []

        def query() -> None:
            for each in windows:
                frame = select(con, WINDOW, start=each.start, end=each.end, **stream_key(ETH)).to_numpy()
                rows.append(len(frame))

        sample = timed(query)
    if median(rows) != LENGTH:
        raise RuntimeError(f"expected windows of {LENGTH} candles, found {median(rows)}")
    return Sample(sample.wall * REFERENCES / QUERIED, sample.processor * REFERENCES / QUERIED)
