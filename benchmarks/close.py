"""One whole close, live: all that `advance` does with the standard frame, four models and two weeks to replay.

Candles of 1s, 1m, 1h and 1d, the book and the corrections are those of the simulated venue. Every model has made a
reference at each close of the two weeks, the last hour for real; it trains a step at every close that is measured.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import copied, new_folder, record_from, write_empty_step
from benchmarks.sampling import Sample, Samples
from hindsight.exchange.landing import Landing
from hindsight.exchange.simulated import OPENING, SimulatedVenue
from hindsight.exchange.sources import open_source
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.settings import Settings, load
from hindsight.store import lock
from hindsight.store.book_tables import write_order_book
from hindsight.store.warehouse import Warehouse

LIMIT_SECONDS = 0.5
RUNS, CLOSES = 3, 8  # closes measured one by one, after a first one, in each run
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
END = OPENING + 660.75 * DAY  # so many days of 1d candles fill a frame
SINCE = {"1s": 15.5 * DAY, "1m": 18 * DAY, "1h": 45 * DAY, "1d": END - OPENING}  # before END
REPLAYED, LEARNED = 14 * DAY, 60 * MINUTE
AFTER = timedelta(milliseconds=300)  # the close: when the last second of its book is there
MEBIBYTE = 2**20


def measure(repeats: int) -> Figure:
    """Close after close in processes of their own, with one thread a model."""
    home = new_folder("close")
    fresh.run(fill, {"OMP_NUM_THREADS": "1"}, home=str(home))
    runs = [
        fresh.run(close_by_close, {"OMP_NUM_THREADS": "1"}, home=str(copied(home))) for _ in range(min(repeats, RUNS))
    ]
    closes = [each for run in runs for each in run.result["closes"]]
    whole = Samples([Sample(each["wall"], each["processor"]) for each in closes])
    predicted = Samples([Sample(each["predicted"], each["predicted_processor"]) for each in closes])
    return Figure(
        name="one whole close, live: standard frame, four models, a training step of each, the decision",
        goal=f"{LIMIT_SECONDS:g} s for everything",
        measured=f"{whole.median:.2f} s (processor {whole.processor:.2f} s)",
        ratio=f"{whole.median / LIMIT_SECONDS:.2f} of the limit",
        is_reached=whole.median <= LIMIT_SECONDS,
        samples={"everything": whole, "to the newest references and the decision": predicted},
        notes=(
            f"under the warehouse's lock {median(each['locked'] for each in closes):.2f} s in"
            f" {median(each['turns'] for each in closes):.0f} turns, the longest"
            f" {median(each['longest'] for each in closes):.2f} s",
            f"peak memory {median(run.peak_bytes for run in runs) / MEBIBYTE:.0f} MiB",
        ),
    )


def settings_in(home: str) -> Settings:
    """ETH/USDT 1m is predicted, by every model."""
    return load(
        home=Path(home),
        frame=("standard",),
        timeframes=("1m", "1s", "1h", "1d"),
        predicted=("ETH/USDT 1m",),
        train_every=1,
        device="cpu",
    )


def fill(home: str) -> dict[str, Any]:
    """Records the market up to END, and has every model learn the last hour of it."""
    from hindsight.decide import decide
    from hindsight.learn import learn
    from hindsight.training.models.registry import in_order

    settings, warehouse, venue = _opened(home)
    (own,) = settings.predicted_streams
    for stream in _streams(settings):
        window = Window(start=END - SINCE[stream.timeframe], end=END)
        record_from(venue, settings, warehouse, stream, window)
    for rows in venue.order_book(own, Window(start=END - SINCE["1s"], end=END)):
        with warehouse.writing() as con:
            write_order_book(con, rows)
    for model in in_order(settings.models):
        _remember(settings, warehouse, own, model)
        learn(settings, own, model, END)
    decide(settings, own, END)
    return {}


def _remember(settings: Settings, warehouse: Warehouse, stream: Stream, model: str) -> None:
    """References at all closes of two weeks up to LEARNED before END, true but for what they predicted."""
    import numpy as np
    import polars as pl

    from hindsight.configured import schema_of, shape_of
    from hindsight.inference.blocks import GATHERED
    from hindsight.inference.normalisation import norm_params
    from hindsight.inference.predictions import SERVED, TREND, WIDTH
    from hindsight.inference.records import reference_records
    from hindsight.recall_blocks import recall_blocks
    from hindsight.store.inference_tables import append, move_watermark, note_schema
    from hindsight.training.models.registry import model_of

    kind, shape, chance = model_of(model), shape_of(settings, stream, model), np.random.default_rng(0)
    since, until = END - REPLAYED, END - LEARNED
    rows = np.arange(to_ms(since) // stream.step_ms, to_ms(until) // stream.step_ms)
    predictions = chance.random((len(rows), WIDTH), np.float32)
    predictions[:, TREND] /= predictions[:, TREND].sum(axis=1, keepdims=True)
    with warehouse.reading() as con:
        blocks = recall_blocks(con, settings, stream, shape, int(rows[0]), int(rows[-1]) + 1)
    scales = [
        norm_params(blocks.own.gather(part, shape.own.length)) for part in np.array_split(rows, len(rows) // GATHERED)
    ]
    references = reference_records(
        model,
        stream,
        rows,
        np.concatenate(scales),
        predictions,
        np.full((len(rows), len(SERVED)), np.nan, np.float32),
        np.full(len(rows), -1, np.int32),
        np.zeros((len(rows), len(kind.extras)), np.float32),
        np.zeros(len(rows), np.int32),
        shape.reach,
    ).with_columns(
        schema_hash=pl.lit(schema_of(settings, stream, model)),
        digest=pl.Series(blocks.digests(rows), dtype=pl.UInt64),
        device=pl.lit("cpu"),
        mode=pl.lit("backfill"),
    )
    with warehouse.writing() as con:
        append(con, "inference_references", stream, [references])
        note_schema(con, schema_of(settings, stream, model), str(shape), kind.text)
        move_watermark(con, model, stream, since, until)
        write_empty_step(con, model, stream, until)


def close_by_close(home: str) -> dict[str, Any]:
    """What each of CLOSES closes after END takes, in seconds, once it has landed."""
    from hindsight.advance import advance

    settings, _, venue = _opened(home)
    found = []
    for minutes in range(1, CLOSES + 2):
        close = END + minutes * MINUTE
        _land(settings, venue, close)
        with _turns() as turns:
            wall, processor = time.perf_counter(), time.process_time()
            parts = advance(settings, lambda: close + AFTER, leave_pivots=True)  # noqa: B023
            next(parts)
            predicted, predicted_processor = time.perf_counter() - wall, time.process_time() - processor
            (done,) = parts
            taken = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        assert not done.failures
        assert len(done.lessons) == len(settings.models)
        taken |= {"predicted": predicted, "predicted_processor": predicted_processor}
        found.append(taken | {"locked": sum(turns), "longest": max(turns), "turns": len(turns)})
    return {"closes": found[1:]}  # the first one loads what the later ones find loaded


@contextmanager
def _turns() -> Iterator[list[float]]:
    """How long the warehouse's lock is held, each time."""
    held, turns = lock.held, []

    @contextmanager
    def clocked(path: Path, patience_seconds: float | None = None) -> Iterator[None]:
        with held(path, patience_seconds):
            started = time.perf_counter()
            try:
                yield
            finally:
                if path.suffix == ".duckdb":
                    turns.append(time.perf_counter() - started)

    lock.held = clocked
    try:
        yield turns
    finally:
        lock.held = held


def _opened(home: str) -> tuple[Settings, Warehouse, SimulatedVenue]:
    settings = settings_in(home)
    venue = open_source(settings)
    assert isinstance(venue, SimulatedVenue)
    return settings, Warehouse(path=settings.warehouse_path, lock_timeout_seconds=60), venue


def _streams(settings: Settings) -> list[Stream]:
    """Those that are in a frame."""
    return [each for each in settings.streams if each.symbol == "ETH/USDT" or each.timeframe == "1s"]


def _land(settings: Settings, venue: SimulatedVenue, close: datetime) -> None:
    """What the feed lands of the minute before `close`."""
    landing, window, now = Landing(settings.landing_path), Window(start=close - MINUTE, end=close), to_ms(close)
    for stream in _streams(settings):
        rows = [
            {
                "stream": str(stream),
                "open_time_ms": to_ms(row["open_time"]),
                **{name: row[name] for name in ("open", "high", "low", "close", "volume")},
                "known_ms": to_ms(row["recorded_at"]) if row["revision"] else None,
                "closed_by": "flag",
            }
            for frame in venue.candles(stream, window)
            for row in frame.sort("recorded_at", "open_time").iter_rows(named=True)
        ]
        if rows:
            landing.write("candles", rows, now, now)
    for frame in venue.order_book(settings.predicted_streams[0], window):
        seconds = [{"second_ms": to_ms(row.pop("second")), **row} for row in frame.iter_rows(named=True)]
        landing.write("order_book", seconds, now, now)
