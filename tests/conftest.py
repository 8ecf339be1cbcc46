"""Fixtures that every room's tests share: recorded market data, and small homes whose market stands already."""

import json
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
from hindsight.market.candles import TIME, first_delivery
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.settings import Settings, load
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse

# How long one example takes says something about the machine, and nothing about the code.
hypothesis.settings.register_profile("unhurried", deadline=None, max_examples=60)
hypothesis.settings.load_profile("unhurried")
# Started in the background of a shell, Ctrl-C would be ignored here and in all that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
