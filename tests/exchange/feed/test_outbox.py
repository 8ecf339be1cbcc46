"""The outbox: rows that close together land together, and a landing that cannot be written loses none of them."""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from hindsight.errors import HomeUnwritable
from hindsight.exchange.feed import outbox as limits
from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Times
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import BUCKETS, Kind, Row

NOW = 1_717_200_000_000


def candle(number: int, stream: str = "binance ETH/USDT 1m") -> Row:
    row = {"stream": stream, "open_time_ms": NOW + 60_000 * number, "open": 1.5, "high": 2.0, "low": 1.0}
    return {**row, "close": 1.25, "volume": 3.0, "known_ms": None, "closed_by": "flag"}


def book() -> Row:
    row = {"symbol": "ETH/USDT", "venue": "binance", "second_ms": NOW, "price": 3020.5, "bucket_size": 1.0}
    row |= {"anchor": 3020.0, "amounts": [1.0] * BUCKETS, "imbalance": None, "snapshots": 10, "age_ms": 40}
    return {**row, "spread": 0.01, "venues": ["binance"]}


def trade(number: int) -> Row:
    row = {"symbol": "ETH/USDT", "venue": "binance", "trade_id": number, "time_ms": NOW}
    return {**row, "price": 1.5, "amount": 2.0, "side": "buy"}


@pytest.fixture
def outbox(tmp_path: Path) -> Callable[[], Outbox]:
    times = Times(monotonic=lambda: 1000.0, local_ms=lambda: NOW + 5, generator=Random(0))
    clock = VenueClock(times.monotonic)
    clock.sync(NOW, 1000.0, 1000.0)
    return lambda: Outbox(Landing(tmp_path / "landing"), clock, times)


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.005)


def test_candles_that_close_together_land_in_one_segment_at_once_and_books_with_them(outbox) -> None:
    async def scene() -> None:
        box = outbox()
        running = asyncio.create_task(box.run())
        box.add("order_book", [book()])
        box.add("trades", [trade(1)])
        box.add("candles", [candle(0)])
        box.add("candles", [candle(0, "binance BTC/USDT 1m")])
        await until(lambda: len(box.landing.segments()) == 2)
        first, second = (box.landing.read(path) for path in box.landing.segments())
        assert (first.kind, len(first.rows), second.kind) == ("candles", 2, "order_book")
        box.end()
        await running
        assert [box.landing.read(path).kind for path in box.landing.segments()][2:] == ["trades"]

    asyncio.run(scene())


def test_a_segment_is_never_older_than_what_is_in_it(outbox) -> None:
    async def scene() -> None:
        box = outbox()
        box.add("candles", [candle(7)])  # by a clock that is minutes behind
        box.end()
        await box.run()
        [path] = box.landing.segments()
        assert box.landing.read(path).venue_ms == NOW + 8 * 60_000

    asyncio.run(scene())


def test_a_landing_that_cannot_be_written_is_tried_again_and_everything_comes_in_order(
    outbox, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        box = outbox()
        box.landing.folder.parent.mkdir(exist_ok=True)
        box.landing.folder.write_text("no folder")
        running = asyncio.create_task(box.run())
        box.add("candles", [candle(0)])
        await until(lambda: box.failures)
        box.add("candles", [candle(1)])
        box.add("trades", [trade(1)])
        box.landing.folder.unlink()
        await until(lambda: len(box.landing.segments()) == 2)
        box.end()
        await running
        rows = [row for path in box.landing.segments() for row in box.landing.read(path).rows]
        assert rows == [candle(0), candle(1), trade(1)]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scene())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_when_memory_is_full_too_the_oldest_trades_go_first_and_candles_end_the_feed(outbox) -> None:
    async def scene() -> None:
        box = outbox()
        box.landing.folder.parent.mkdir(exist_ok=True)
        box.landing.folder.write_text("no folder")
        most = limits.MOST["trades"]
        box.add("trades", [trade(number) for number in range(most + 1)])
        assert box.lost["trades"] == most // 10
        running = asyncio.create_task(box.run())
        box.add("candles", [candle(0)] * (limits.MOST["candles"] + 1))
        with pytest.raises(HomeUnwritable, match="become writable"):
            await running

    asyncio.run(scene())


class Slow(Landing):
    """A landing whose writing takes until it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def write(self, kind: Kind, rows: list[Row], venue_ms: int, written_ms: int) -> Path:
        self.begun.set()
        assert self.go_on.wait(30)
        return super().write(kind, rows, venue_ms, written_ms)


@pytest.fixture
def slow(outbox: Callable[[], Outbox], tmp_path: Path) -> Outbox:
    box = outbox()
    box.landing = Slow(tmp_path / "landing")
    return box


def test_what_is_being_written_is_not_what_overflows(slow: Outbox) -> None:
    async def scene() -> None:
        most = limits.MOST["trades"]
        running = asyncio.create_task(slow.run())
        slow.add("trades", [trade(number) for number in range(10)])
        await until(slow.landing.begun.is_set)
        slow.add("trades", [trade(number) for number in range(10, most + 11)])
        assert slow.lost["trades"] == most // 10
        slow.landing.go_on.set()
        slow.end()
        await running
        ids = [row["trade_id"] for path in slow.landing.segments() for row in slow.landing.read(path).rows]
        assert ids == [*range(10), *range(10 + most // 10, most + 11)]

    asyncio.run(scene())


def test_rows_that_come_in_during_the_last_writing_are_written_too(
    slow: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        slow.add("trades", [trade(1)])
        slow.end()
        running = asyncio.create_task(slow.run())
        await until(slow.landing.begun.is_set)
        slow.add("candles", [candle(0)])
        slow.add("trades", [trade(2)])
        slow.landing.go_on.set()
        await running
        kinds = [slow.landing.read(path).kind for path in slow.landing.segments()]
        assert sorted(kinds) == ["candles", "trades", "trades"]

    asyncio.run(scene())
    assert not caplog.records
