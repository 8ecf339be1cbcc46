"""What a reference takes on disk at a million rows, its prediction included, and what each of its columns takes.

The rows are written as `learn` writes them: in pieces of 2,880, each in a transaction and an opening of its own.
`norm_params` are those of a million consecutive real closes. A million predictions of a model would take an hour, so
predictions are real ones of a few days, repeated with fresh noise of a thousandth of their size: as smooth in time as
the real ones, and no two alike.
"""

from collections import defaultdict
from itertools import pairwise

import duckdb
import numpy as np
import polars as pl

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import (
    ETH,
    MODEL,
    TWO_YEARS,
    new_folder,
    record,
    recorded_two_years,
    settings_in,
    warehouse_in,
)
from benchmarks.loop import learn
from hindsight.configured import schema_of, shape_of
from hindsight.inference import normalisation
from hindsight.inference.frames import Frames, Tape
from hindsight.inference.predictions import PIVOT_CANDLES, SERVED, TREND, WIDTH
from hindsight.inference.records import predictions_of, reference_records
from hindsight.market.streams import Window
from hindsight.piece import CHUNK
from hindsight.store import tape as tapes
from hindsight.store.inference_tables import append, read_references
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse

LIMIT, ROWS = 160.0, 1_000_000
BLOCK_BYTES = 262_144
CLOSES_PER_STEP = 7  # on average, over the default cadence
PROMOTED = 2000  # steps between two looks at who is to serve
PARTS = 20_000


def measure(repeats: int) -> Figure:
    """Bytes of a file that holds a million references and nothing else, over an empty one. Sizes do not vary."""
    tape = _tape()
    home = new_folder("references")
    warehouse = warehouse_in(home)
    with warehouse.writing():
        pass
    empty = warehouse.path.stat().st_size
    _write(warehouse, tape)
    each = (warehouse.path.stat().st_size - empty) / ROWS
    with warehouse.reading() as con:
        columns, in_use = by_column(con, "inference_references"), _bytes_in_use(con)
    return Figure(
        name="a reference on disk at 1,000,000 rows, prediction included",
        goal=f"under {LIMIT:g} bytes",
        measured=f"{each:.1f} bytes",
        ratio=f"{each / LIMIT:.2f} of the limit",
        is_reached=each < LIMIT,
        notes=(
            f"file {warehouse.path.stat().st_size / 1e6:.1f} MB, an empty warehouse {empty / 1e6:.1f} MB; "
            f"{in_use / ROWS:.1f} bytes a reference are in use, the rest is free space that later writes fill",
            "columns, in bytes a reference and as compressed:",
            *(f"  {size / ROWS:6.2f}  {name} ({how})" for name, how, size in columns),
        ),
    )


def _tape() -> Tape:
    home = recorded_two_years()
    with warehouse_in(home).reading() as con:
        return tapes.load(con, settings_in(home).tape_path, ETH, TWO_YEARS, TWO_YEARS.start)


def _write(warehouse: Warehouse, tape: Tape) -> None:
    rows = np.arange(tape.end_row - ROWS, tape.end_row)
    norm, predicted = _norm_params(tape, rows), _predictions(len(rows))
    checkpoint = (np.arange(len(rows)) // CLOSES_PER_STEP).astype(np.int32)
    digests = np.random.default_rng(1).integers(0, 2**64, len(rows), np.uint64)  # a hash looks like chance
    settings = settings_in(warehouse.path.parent)
    schema, reach = schema_of(settings, ETH, MODEL), shape_of(settings, ETH, MODEL).reach
    served, nothing_more = predicted[:, SERVED], np.empty((len(rows), 0), np.float32)
    edges = [0, *range(CHUNK - int(rows[0]) % CHUNK, len(rows), CHUNK), len(rows)]
    for start, end in pairwise(edges):
        part = slice(start, end)
        records = reference_records(
            MODEL,
            ETH,
            rows[part],
            norm[part],
            predicted[part],
            served[part],
            checkpoint[part] // PROMOTED * PROMOTED,
            nothing_more[part],
            checkpoint[part],
            reach,
        ).with_columns(
            schema_hash=pl.lit(schema),
            digest=pl.Series(digests[part], dtype=pl.UInt64),
            device=pl.lit("cpu"),
            mode=pl.lit("backfill"),
        )
        with warehouse.writing() as con:
            append(con, "inference_references", ETH, [records])


def _norm_params(tape: Tape, rows: np.ndarray) -> Frames:
    lookback = settings_in(new_folder("unused")).lookback
    views = np.lib.stride_tricks.sliding_window_view(tape.rows, lookback, axis=0)  # [T − L + 1, F, L], no copy
    at = rows - tape.first_row - lookback + 1
    parts = [
        normalisation.norm_params(np.moveaxis(views[part[0] : part[-1] + 1], 1, 2))
        for part in np.array_split(at, -(-len(at) // PARTS))
    ]
    params = np.concatenate(parts)
    whole = np.isfinite(params).all(axis=1)  # a frame with a hole in it has none: the last good one stands in
    return params[np.maximum.accumulate(np.where(whole, np.arange(len(params)), 0))]


def _predictions(count: int) -> Frames:
    """`count` consecutive predictions with the entropy of real ones."""
    home, window = new_folder("predictions"), Window(start=TWO_YEARS.start, end=TWO_YEARS.start.replace(day=6))
    record(home, ETH, window)
    fresh.run(learn, home=str(home), stream=str(ETH), until=window.end.isoformat(), threads=1)
    with warehouse_in(home).reading() as con:
        real = predictions_of(read_references(con, MODEL, ETH, window))
    chance = np.random.default_rng(0)
    repeated = np.tile(real, (-(-count // len(real)), 1))[:count]
    noisy = repeated * (1 + 1e-3 * chance.standard_normal((count, WIDTH)).astype(np.float32))
    noisy[:, TREND] /= noisy[:, TREND].sum(axis=1, keepdims=True)
    noisy[:, PIVOT_CANDLES] = np.maximum(noisy[:, PIVOT_CANDLES], 0)
    return noisy.astype(np.float32)


def by_column(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str, float]]:
    """Name, compression and bytes of each column, largest first.

    Each segment reaches to the next one in its block, or to the block's end.
    """
    segments = select(
        con,
        """
        select column_name, compression, block_id, block_offset, additional_block_ids
        from pragma_storage_info($table)
        where block_id >= 0
        order by block_id, block_offset""",
        table=table,
    )
    starts = segments.select("block_id", "block_offset").unique().sort("block_id", "block_offset")
    ends = starts.with_columns(
        bytes=pl.col("block_offset").shift(-1, fill_value=BLOCK_BYTES).over("block_id") - pl.col("block_offset")
    )
    sized = segments.unique(["block_id", "block_offset", "column_name"]).join(ends, on=["block_id", "block_offset"])
    sizes: dict[str, float] = defaultdict(float)
    ways: dict[str, set[str]] = defaultdict(set)
    for name, how, _, _, more, size in sized.iter_rows():
        sizes[name] += size + BLOCK_BYTES * len(more or ())
        ways[name].add(how)
    return sorted(((name, ", ".join(sorted(ways[name])), sizes[name]) for name in sizes), key=lambda row: -row[2])


def _bytes_in_use(con: duckdb.DuckDBPyConnection) -> float:
    found = con.execute(
        "select used_blocks * block_size from pragma_database_size() where database_name = current_database()"
    ).fetchall()
    return float(found[0][0])
