"""Fixtures that every room's tests share: recorded market data, and small homes whose market stands already."""

import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import hypothesis
import numpy as np
import polars as pl
import pytest

from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.heartbeat import write_heartbeat
from hindsight.exchange.feed.part import Part, Times
from hindsight.exchange.sources import Source, open_source
from hindsight.inference.blocks import Blocks, Peer
from hindsight.inference.book_tape import BOOK_COLUMNS, BookTape
from hindsight.inference.frames import COLUMN, COLUMNS, PIVOT_TYPES, Tape
from hindsight.inference.pivot_history import PivotHistory
from hindsight.inference.shape import FrameShape, Read, frame_shape
from hindsight.market.candles import TIME, first_delivery
from hindsight.market.streams import Stream, Window, floor_to, to_ms
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.settings import Settings, load
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse

# How long one example takes says something about the machine, and nothing about the code.
hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=60)
hypothesis.settings.load_profile("unhurried")
# Started in the background of a shell, Ctrl-C would be ignored here and in all that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# One model is enough wherever a test does not name others.
os.environ.setdefault("HINDSIGHT_MODELS", "transformer")

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
MINUTE = timedelta(minutes=1)
QUICK = {
    "symbols": ("ETH/USDT",),
    "device": "cpu",
    "predict_every": 2,
    "train_every": 60,
    "batch_size": 8,
    "replay_window": 1000,
    "trend_ttl": 60,
    "score_window": 240,
    "snapshot_every": 30,
    "lock_timeout_seconds": 30.0,
}
# With seed 19 the venue corrects the candle of 2024-03-01 03:59 at 04:03:54, and delivers none from 2024-03-02 01:39 to
# 01:43. A piece of learning ends on 2024-03-02 00:00; a month does one day earlier.
VENUE_DAYS = Window(start=datetime(2024, 2, 29, 14, tzinfo=UTC), end=datetime(2024, 3, 2, 2, 20, tzinfo=UTC))
STORM_START = datetime(2024, 1, 31, 9, 30, tzinfo=UTC)
STORM_CANDLES = 1300


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded market data; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"recorded market data is not at {SHARED_DATA}")
    return SHARED_DATA


@dataclass(frozen=True, slots=True)
class Deliveries:
    """A venue that delivers what it is given, each row once it was recorded."""

    frame: pl.DataFrame

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        yield self.frame.filter(pl.col("recorded_at").is_between(window.start, window.end, closed="right"))


def record_market(settings: Settings, source: Source, cuts: list[datetime]) -> None:
    """Candles, indicators and pivots of the first stream, piece by piece, as live runs or one backfill would."""
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)
    stream = settings.streams[0]
    for start, end in pairwise(cuts):
        window = Window(start=start, end=end)
        record_candles(warehouse, source, stream, window, end)
        record_indicators(warehouse, stream, window)
        record_pivots(warehouse, stream, end, max_gap=settings.max_gap)


@pytest.fixture(scope="session")
def record() -> Callable[[Settings, Source, list[datetime]], None]:
    """The function that records a market piece by piece."""
    return record_market


@pytest.fixture(scope="session")
def deliveries() -> Callable[[pl.DataFrame], Source]:
    """Makes a venue out of a frame of deliveries."""
    return Deliveries


@pytest.fixture(scope="session")
def venue_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """37 hours of the simulated venue, recorded; nothing is learned yet. Copy it before changing it."""
    settings = load(home=tmp_path_factory.mktemp("venue"), source="simulated", simulated_seed=19, **QUICK)
    record_market(settings, open_source(settings), [VENUE_DAYS.start, VENUE_DAYS.end])
    return settings


@pytest.fixture(scope="session")
def storm() -> pl.DataFrame:
    """Made-up deliveries of 1300 candles, many of them corrected or late: what the tape has to keep apart.

    Every 37th candle is corrected, seconds to hours after its close, some of them twice; one of the first 600 among
    them. Four candles come late as first deliveries, and three (30..32) never do.
    """
    chance = np.random.default_rng(11)
    close = 500 + np.round(chance.normal(size=STORM_CANDLES).cumsum()) / 2
    open_ = np.concatenate([close[:1], close[:-1]])
    spread = chance.integers(0, 3, (2, STORM_CANDLES)) / 2
    opens = pl.datetime_range(STORM_START, STORM_START + (STORM_CANDLES - 1) * MINUTE, MINUTE, eager=True)
    walk = {
        "open_time": opens.cast(TIME),
        "open": open_,
        "high": np.maximum(open_, close) + spread[0],
        "low": np.minimum(open_, close) - spread[1],
        "close": close,
        "volume": chance.random(STORM_CANDLES) * 100,
    }
    stream = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
    frame = first_delivery(pl.DataFrame(walk), stream)
    frame = frame.filter(~pl.col("open_time").is_between(STORM_START + 30 * MINUTE, STORM_START + 32 * MINUTE))
    candle = (pl.col("open_time") - STORM_START).dt.total_minutes()
    late = {645: 7, 646: 9, 800: 1, 1000: 21}
    recorded = pl.col("recorded_at")
    for which, minutes in late.items():
        recorded = pl.when(candle == which).then(pl.col("recorded_at") + minutes * MINUTE).otherwise(recorded)
    frame = frame.with_columns(recorded_at=recorded)
    delays = [3, 59, 60, 61, 200, 900, 7_201]
    corrections = [
        frame.filter(candle == which).with_columns(
            high=pl.col("high") + 2 * revision,
            close=pl.col("close") + 0.25,
            volume=pl.col("volume") + 3,
            revision=pl.lit(revision, pl.Int32),
            recorded_at=pl.col("recorded_at") + timedelta(seconds=delays[which % 7] * revision, microseconds=which),
        )
        for which in range(40, STORM_CANDLES, 37)
        for revision in ((1, 2) if which % 4 == 0 else (1,))
    ]
    return pl.concat([frame, *corrections]).sort("open_time", "revision")


@pytest.fixture(scope="session")
def storm_home(tmp_path_factory: pytest.TempPathFactory, storm: pl.DataFrame) -> Settings:
    """The storm, recorded in one range; nothing is learned yet. Copy it before changing it."""
    settings = load(home=tmp_path_factory.mktemp("storm"), **QUICK)
    record_market(settings, Deliveries(storm), [STORM_START, STORM_START + STORM_CANDLES * MINUTE])
    return settings


MADE_UP = ("own=60", "1h=8", "BTC/USDT 1s=40", "book=30", "pivots=2")
MADE_UP_SINCE, MADE_UP_UNTIL = (datetime(2024, 3, 1, hour, tzinfo=UTC) for hour in (10, 14))
PEER_WIDTH = 8


@pytest.fixture(scope="session")
def made_up() -> Callable[..., Blocks]:
    """Makes the blocks of a made-up market, from 10:00 to 14:00 of 2024-03-01: two symbols, the book, pivots, a peer.

    Frames of `timeframe` candles can be made from 12:00 on.
    """

    def make(*, timeframe: str = "1m", entries: tuple[str, ...] = MADE_UP, seed: int = 0) -> Blocks:
        chance = np.random.default_rng(seed)
        stream = Stream(venue="simulated", symbol="ETH/USDT", timeframe=timeframe)
        reads = [Read(model="cnn", width=PEER_WIDTH)]
        shape = frame_shape(entries, stream, lookback=60, warmup=10, reads=reads)
        first, count = to_ms(MADE_UP_SINCE) // stream.step_ms, (MADE_UP_UNTIL - MADE_UP_SINCE) // stream.step
        seconds = chance.uniform(1, 2, ((MADE_UP_UNTIL - MADE_UP_SINCE) // timedelta(seconds=1), len(BOOK_COLUMNS)))
        said = chance.uniform(0, 1, (count, 5)), chance.normal(size=(count, PEER_WIDTH))
        return Blocks(
            shape=shape,
            tapes=[_made_up_tape(each, shape, chance) for each in shape.streams("simulated")],
            book=BookTape(first_row=to_ms(MADE_UP_SINCE) // 1000, rows=seconds.astype(np.float32)),
            pivots=_made_up_pivots(stream, chance),
            peers=[Peer(first_row=first, outputs=said[0].astype(np.float32), hidden=said[1].astype(np.float32))],
        )

    return make


def _made_up_tape(stream: Stream, shape: FrameShape, chance: np.random.Generator) -> Tape:
    """Candles that all close by the end, reaching back as far as frames of 12:00 do; no value is 0."""
    longest = max(block.length for block in shape.candles) + shape.warmup
    end_row = to_ms(MADE_UP_UNTIL) // stream.step_ms
    first_row = min(to_ms(MADE_UP_SINCE), to_ms(MADE_UP_SINCE) - longest * stream.step_ms) // stream.step_ms
    rows = chance.uniform(1, 2, (end_row - first_row, len(COLUMNS))).astype(np.float32)
    walk = 100 * np.exp(0.01 * chance.normal(size=len(rows)).cumsum())
    rows[:, COLUMN["open"] : COLUMN["close"] + 1] = walk[:, None] * chance.uniform(0.999, 1.001, (len(rows), 4))
    return Tape(step_ms=stream.step_ms, first_row=first_row, rows=rows)


def _made_up_pivots(stream: Stream, chance: np.random.Generator) -> PivotHistory:
    """A pivot of each type every few minutes, confirmed some minutes later, each with a book beside it."""
    rows = []
    for pivot_type in PIVOT_TYPES:
        minutes = np.arange(chance.integers(1, 7), 230, chance.integers(5, 9))
        for minute, lag in zip(minutes.tolist(), chance.integers(1, 5, len(minutes)).tolist(), strict=True):
            pivot_time = floor_to(MADE_UP_SINCE + minute * MINUTE, stream.step)
            confirmed_at = floor_to(MADE_UP_SINCE + (minute + lag) * MINUTE, stream.step) + stream.step
            rows.append((pivot_type, pivot_time, confirmed_at, *chance.uniform(0.1, 1, 4)))
    schema = ["pivot_type", "pivot_time", "confirmed_at", "price", "strength"]
    schema += ["imbalance_at_pivot", "imbalance_at_confirmation"]
    found = pl.DataFrame(rows, schema=schema, orient="row").with_columns(price=99 + pl.col("price"))
    found = found.sort("confirmed_at", maintain_order=True)
    return PivotHistory.of(found, found, stream.step_ms)


@pytest.fixture(scope="session")
def learned_home(venue_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The simulated venue's 37 hours, learned in one range. Copy it before changing it."""
    from hindsight.learn import learn  # torch takes seconds to import

    home = tmp_path_factory.mktemp("learned") / "home"
    shutil.copytree(venue_home.home, home)
    settings = venue_home.model_copy(update={"home": home})
    learn(settings, settings.streams[0], "transformer", VENUE_DAYS.end)
    return settings


@pytest.fixture
def copy_home(tmp_path: Path) -> Callable[..., Settings]:
    """Makes a copy of a home that one test may change, with some of its settings changed."""

    def copy(settings: Settings, **changed: object) -> Settings:
        home = tmp_path / f"home {sum(1 for _ in tmp_path.iterdir())}"
        shutil.copytree(settings.home, home)
        return settings.model_copy(update={"home": home, **changed})

    return copy


@pytest.fixture(scope="session")
def table() -> Callable[..., pl.DataFrame]:
    """Reads one table of a home, sorted, without the columns that are measured rather than computed."""

    def read(settings: Settings, name: str, order: str) -> pl.DataFrame:
        with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
            return select(con, f"select * from {name} order by {order}").drop("seconds", "mode", strict=False)

    return read


class Sink(ThreadingHTTPServer):
    """A webhook: keeps the JSON that is posted to it, and answers what the path asks for, as in /500."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[dict[str, str]] = []
        self.is_released = threading.Event()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sink.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if self.path == "/hang":
                    sink.is_released.wait(60)
                self.send_response(int(self.path[1:]) if self.path[1:].isdigit() else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path: str = "") -> str:
        """The webhook as Apprise writes it."""
        return f"json://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A real HTTP server on this machine that receives alerts."""
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.is_released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def beat() -> Callable[..., None]:
    """Writes the feed's heartbeat: every part in a state, by default connected, for so many seconds."""

    def write(
        settings: Settings,
        venue_now: datetime,
        *,
        states: dict[str, str] | None = None,
        lasting: float = 600.0,
        started: float = 3600.0,
        local_ms: int = 1_700_000_000_000,
        refused: dict[str, int] | None = None,
        lost: dict[str, int] | None = None,
    ) -> None:
        names = [f"{stream} candles" for stream in settings.streams]
        names += [f"{symbol} {kind}" for symbol in settings.symbols for kind in ("trades", "order_book")]
        before = Times(
            monotonic=lambda: 0.0, local_ms=lambda: local_ms - int(1000 * lasting), generator=random.Random(0)
        )
        times = Times(monotonic=lambda: 0.0, local_ms=lambda: local_ms, generator=random.Random(0))
        parts = [Part(name, before) for name in names] if states != {} else []
        for part in parts:
            part.heard()
            part.state, part.times = (states or {}).get(part.name, "connected"), times
            part.refused.update(refused or {})
        clock = VenueClock(lambda: 0.0, settings.venue_speed)
        clock.sync(to_ms(venue_now), 0.0, 0.0)
        settings.home.mkdir(parents=True, exist_ok=True)
        write_heartbeat(settings.heartbeat_path, local_ms - int(1000 * started), clock, times, parts, lost or {})

    return write
