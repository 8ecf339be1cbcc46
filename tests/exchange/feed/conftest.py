"""A feed over real sockets beside a real venue, and what the undisturbed market would have left."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from hindsight.exchange.feed.feed import run_feed
from hindsight.exchange.feed.part import Times
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row
from hindsight.exchange.simulated import SimulatedVenue
from hindsight.exchange.venue.server import serve_in_thread
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.settings import Settings, load

SEED, PHI = 7, 0.3
SYMBOLS = ("ETH/USDT", "BTC/USDT")
DEADLINE_SECONDS = 60.0
# Nothing is corrected and the market is never away for a day before and after.
CALM = datetime(2024, 3, 3, tzinfo=UTC)
VALUES = ("open", "high", "low", "close", "volume")


@dataclass
class Live:
    """A venue, the home of a feed, and the feed itself while it runs."""

    venue: Any
    settings: Settings
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    stops: list[asyncio.Event] = field(default_factory=list)
    seen: dict[str, list[Row]] = field(default_factory=dict)
    hears_raw: bool = True
    landing: Landing = field(init=False)

    def __post_init__(self) -> None:
        self.landing = Landing(self.settings.landing_path)

    def start(self) -> None:
        times = Times(lambda: time.clock_gettime(time.CLOCK_BOOTTIME), lambda: time.time_ns() // 1_000_000, Random(1))
        self.stops.append(asyncio.Event())
        feeding = run_feed(self.settings, times, self.stops[-1], hears_raw=self.hears_raw)
        self.tasks.append(asyncio.create_task(feeding))

    async def end(self) -> None:
        self.stops[-1].set()
        await self.tasks.pop()

    async def until(self, is_so: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> Any:
        """Waits until `is_so` says something true, and returns that."""
        deadline = time.monotonic() + seconds
        while True:
            if found := is_so():
                return found
            for task in self.tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise AssertionError(f"not so within {seconds} s: {self.beat()['parts']}")
            await asyncio.sleep(0.02)

    def rows(self, kind: str) -> list[Row]:
        """Everything landed of a kind, in the order landed; read segments are archived, as ingestion does."""
        for path in self.landing.segments():
            segment = self.landing.read(path)
            self.seen.setdefault(segment.kind, []).extend(segment.rows)
            self.landing.archive(path)
        return self.seen.get(kind, [])

    def candles(self, stream: str) -> list[Row]:
        return [row for row in self.rows("candles") if row["stream"] == stream]

    async def landed(self, stream: str, more: int = 1) -> list[Row]:
        """Waits until `more` candles than now have landed, by however the feed came by them."""
        count = len(self.candles(stream)) + more
        return await self.until(lambda: len(found := self.candles(stream)) >= count and found)

    async def connected(self, *names: str) -> None:
        """Waits until the parts hear messages."""
        await self.until(lambda: all(self.part(name).get("state") == "connected" for name in names))

    def beat(self) -> dict[str, Any]:
        path = self.settings.home / "feed.json"
        return json.loads(path.read_text()) if path.exists() else {"parts": {}}

    def part(self, name: str) -> dict[str, Any]:
        return self.beat()["parts"].get(name, {})

    def expected(self, stream: str, first_ms: int, last_ms: int) -> pl.DataFrame:
        """Every delivery of the undisturbed market that opens between two instants, both included."""
        parsed = Stream.parse(stream)
        window = Window(start=from_ms(first_ms), end=from_ms(last_ms) + parsed.step + timedelta(minutes=10))
        frame = pl.concat(SimulatedVenue(SEED, PHI).candles(parsed, window))
        return frame.filter(pl.col("open_time").is_between(from_ms(first_ms), from_ms(last_ms)))

    def assert_whole(self, stream: str, missing: set[int] = frozenset()) -> list[Row]:  # type: ignore[assignment]
        """The candles landed are those of the undisturbed market, once each, in order; but for `missing` ones."""
        rows = self.candles(stream)
        first = [row for row in rows if row["known_ms"] is None]
        opens = [row["open_time_ms"] for row in first]
        deliveries: dict[int, list[tuple[float, ...]]] = {}
        for row in self.expected(stream, opens[0], opens[-1]).sort("open_time", "revision").to_dicts():
            deliveries.setdefault(to_ms(row["open_time"]), []).append(tuple(row[name] for name in VALUES))
        assert opens == [opened for opened in deliveries if opened not in missing]
        for row in first:
            # REST shows a candle as it stands when it is asked, which may be as it was corrected since.
            right = deliveries[row["open_time_ms"]][: 1 if row["closed_by"] in ("flag", "trades") else None]
            assert tuple(row[name] for name in VALUES) in right, row
        return rows


@pytest.fixture(autouse=True)
def _quiet_futures() -> Iterator[None]:
    """ccxt leaves futures behind whose errors nobody reads; asyncio says so when they are collected."""
    logger = logging.getLogger("asyncio")
    level, _ = logger.level, logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
def live(tmp_path: Path) -> Callable[..., Any]:
    """Opens a venue and a feed on it: `async with live(speed=200, timeframes=("1m",)) as run`."""

    @asynccontextmanager
    async def open_live(
        *, speed: float = 200.0, start: datetime = CALM, is_started: bool = True, hears_raw: bool = True, **changed: Any
    ) -> AsyncIterator[Live]:
        market = simulated_market(SYMBOLS, SEED, PHI)
        with serve_in_thread(market, speed=speed, start_ms=to_ms(start)) as venue:
            usual = {"symbols": ("ETH/USDT",), "timeframes": ("1m",), "books": False, "first_candles": 5}
            usual |= {"silent_seconds": 20.0, "source": "simulated", "home": tmp_path / "home"}
            settings = load(venue_url=venue.url, venue_speed=speed, **(usual | changed))
            run = Live(venue, settings, hears_raw=hears_raw)
            if is_started:
                run.start()
            try:
                yield run
            finally:
                for stop in run.stops:
                    stop.set()
                await asyncio.gather(*run.tasks)

    return open_live
