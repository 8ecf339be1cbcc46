"""What REST is asked for, page after page, by parts that are wired to a real venue one at a time."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hindsight.errors import AnswerUnreadable
from hindsight.exchange.feed import binance
from hindsight.exchange.feed.candles import StreamCandles
from hindsight.exchange.feed.connection import PAGE, Connection
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part, Times
from hindsight.exchange.feed.sequence import REMEMBERED
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.feed.trades import SymbolTrades
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row
from hindsight.exchange.venue.server import serve_in_thread
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.streams import Stream, to_ms
from tests.exchange.feed.conftest import CALM, PHI, SEED

ETH_1M = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
ETH_1S = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1s")
MINUTE = 60_000
KLINES, TRADES, TIME = "/api/v3/klines", "/api/v3/aggTrades", "/api/v3/time"


@dataclass
class Wired:
    """A venue, the connection to it, and what lands."""

    venue: Any
    connection: Connection
    outbox: Outbox
    part: Part

    def rows(self, kind: str) -> list[Row]:
        segments = map(self.outbox.landing.read, self.outbox.landing.segments())
        return [row for segment in segments if segment.kind == kind for row in segment.rows]

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not is_so():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def wired(folder: Path, kind: str) -> AsyncIterator[Wired]:
    times = Times(time.monotonic, lambda: time.time_ns() // 1_000_000, Random(1))
    start_ms = to_ms(CALM + timedelta(hours=12))
    with serve_in_thread(simulated_market(("ETH/USDT",), SEED, PHI), start_ms=start_ms) as venue:
        connection = Connection("simulated", "binance", venue.url, times=times, speed=1.0, silent_seconds=20.0)
        part = Part(f"ETH/USDT {kind}", times)
        connection.add_part(part, kind, "ETH/USDT")
        outbox = Outbox(Landing(folder / "landing"), connection.clock, times)
        writing = asyncio.create_task(outbox.run())
        try:
            await connection.open()
            yield Wired(venue, connection, outbox, part)
        finally:
            outbox.end()
            await writing
            await connection.close()


@asynccontextmanager
async def mending(part: StreamCandles | SymbolTrades) -> AsyncIterator[None]:
    """The part mends while the block lasts, as one that hears the socket."""
    part.part.heard()
    task = asyncio.create_task(part.mend())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def candles_of(run: Wired) -> tuple[StreamCandles, int]:
    """A stream that has landed everything up to the open time that comes with it."""
    candles = StreamCandles(ETH_1M, run.connection, run.outbox, run.part, TradeIds(), binance.read_kline, 2000)
    now_ms = run.connection.clock.now_ms()
    position_ms = now_ms - now_ms % MINUTE - MINUTE
    candles.begin(position_ms, [], 0)
    return candles, position_ms


def opens(run: Wired) -> set[int]:
    return {row["open_time_ms"] for row in run.rows("candles")}


def test_a_row_that_cannot_be_read_neither_ends_the_looking_back_nor_is_passed_over_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "candles") as run:
            candles, position_ms = candles_of(run)
            asked = [position_ms - number * MINUTE for number in (1150, 10)]  # on two pages
            assert candles.ask_again(asked) == asked
            run.venue.faults.add("answer", path=KLINES, name="0.4", value="NaN", count=3)
            async with mending(candles):
                await run.until(lambda: set(asked) <= opens(run))
                await run.until(lambda: not candles.is_asking_again(asked))

    asyncio.run(scene())


def test_a_row_that_stays_unreadable_is_passed_over_after_some_answers_and_the_next_page_is_asked_for(
    tmp_path: Path,
) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "candles") as run:
            candles, position_ms = candles_of(run)
            asked = [position_ms - number * MINUTE for number in (1150, 10)]
            candles.ask_again(asked)
            run.venue.faults.add("answer", path=KLINES, name="0.4", value="NaN", count=0)
            async with mending(candles):
                await run.until(lambda: asked[1] in opens(run))
            assert asked[0] not in opens(run)

    asyncio.run(scene())


def test_a_row_that_is_stamped_ahead_is_refused_and_the_clock_is_doubted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "candles") as run:
            position_ms = candles_of(run)[1]
            ahead_ms = run.connection.clock.now_ms() // 1000 * 1000 + 9000
            run.venue.faults.add("answer", path=KLINES, name="0.0", value=ahead_ms)
            page = await run.connection.candles(ETH_1S, position_ms, run.part.refuse)
            assert run.part.refused["from the future"] == 1
            assert run.connection.is_clock_doubted
            assert not page.is_whole
            assert page.rows[-1].open_time_ms < ahead_ms

    asyncio.run(scene())


def kline(opened_ms: int, ids: tuple[int, int], *, is_final: bool, event_ms: int) -> dict[str, object]:
    """A second's candle as the socket would bring it."""
    values = dict.fromkeys("ohlc", "3000") | {"v": "1"}
    return {"E": event_ms, "k": {"t": opened_ms, "f": ids[0], "L": ids[1], "x": is_final, **values}}


@pytest.mark.parametrize(("ahead_ms", "is_refused"), [(9000, True), (2000, False)])  # the latter opens within a second
def test_a_candle_that_is_stamped_ahead_proves_no_second_quiet_that_is_not_over(
    tmp_path: Path, ahead_ms: int, is_refused: bool
) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "candles") as run:
            ids, now_ms = TradeIds(), run.connection.clock.now_ms()
            candles = StreamCandles(ETH_1S, run.connection, run.outbox, run.part, ids, binance.read_kline, 2000)
            last_ms = now_ms // 1000 * 1000 - 1000
            candles.begin(last_ms - 1000, [], 0)
            candles.take(kline(last_ms, (10, 14), is_final=True, event_ms=now_ms))
            candles.take(kline(last_ms + ahead_ms, (15, 15), is_final=False, event_ms=now_ms))
            assert candles.sequence.position_ms == last_ms
            assert run.part.refused["from the future"] == is_refused

    asyncio.run(scene())


def test_a_lost_connection_forgets_no_candle_that_is_asked_for_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "candles") as run:
            candles, position_ms = candles_of(run)
            asked = [position_ms - (REMEMBERED + number) * MINUTE for number in (300, 299)]
            candles.ask_again(asked)
            candles.lose()
            async with mending(candles):
                await run.until(lambda: set(asked) <= opens(run))

    asyncio.run(scene())


def trade_message(row: Any) -> dict[str, object]:
    """A trade as the socket would bring it."""
    told = row.trade_id, row.time_ms, str(row.price), str(row.amount), row.side == "sell"
    return {"e": "trade", "s": "ETHUSDT", **dict(zip("tTpqm", told, strict=True))}


async def trades_with_a_hole(run: Wired) -> tuple[SymbolTrades, int]:
    """Trades of which half an hour is missing, and how many those are."""
    kept = TradeIds()
    trades = SymbolTrades("ETH/USDT", run.connection, run.outbox, run.part, kept, binance.read_trade, lambda _: None)
    page = await run.connection.trades_since("ETH/USDT", run.connection.clock.now_ms() - 30 * MINUTE, run.part.refuse)
    first = page.rows[0][1]
    last = (await run.connection.last_trades("ETH/USDT", run.part.refuse))[-1]
    trades.newest = (int(first.trade_id), first.time_ms)
    trades.take(trade_message(last))
    return trades, int(last.trade_id) - int(first.trade_id) - 1


def test_a_trade_that_cannot_be_read_makes_no_full_page_the_last_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "trades") as run:
            trades, missing = await trades_with_a_hole(run)
            assert missing > 3 * PAGE
            run.venue.faults.add("answer", path=TRADES, name="0.p", value="NaN", count=0)
            async with mending(trades):
                await run.until(lambda: run.part.filled == missing)

    asyncio.run(scene())


@pytest.mark.parametrize("row", [None, "soon", []], ids=str)
def test_a_trade_that_ccxt_stumbles_over_makes_nothing_of_the_others(tmp_path: Path, row: object) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "trades") as run:
            trades, missing = await trades_with_a_hole(run)
            run.venue.faults.add("answer", path="/api/v3/*rades", name="0", value=row, count=0)
            async with mending(trades):
                await run.until(lambda: run.part.filled == missing)
            assert sum(run.part.refused.values())

    asyncio.run(scene())


def test_an_outage_is_told_of_also_where_answers_were_malformed_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "trades") as run:
            trades, _ = await trades_with_a_hole(run)
            spoiled = run.venue.faults.add("answer", path="/api/v3/*rades", value={"code": 0}, count=0)
            async with mending(trades):
                await run.until(lambda: spoiled.fired > 1)
                run.venue.faults.add("status", path="/api/v3/*rades", count=0)
                await run.until(lambda: [each for each in caplog.messages if "cannot be mended" in each])

    caplog.set_level(logging.WARNING)
    asyncio.run(scene())


def test_no_more_is_announced_than_is_asked_where_a_venue_tells_one_time_after_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with wired(tmp_path, "candles") as run:
            for number in range(4):
                told = to_ms(CALM) + number * 3_600_000
                run.venue.faults.add("answer", path=TIME, name="serverTime", value=told, after=number)
            with pytest.raises(AnswerUnreadable, match="4 different times"):
                await run.connection.sync_clock()
            assert not run.venue.faults.armed

    asyncio.run(scene())
    assert len([message for message in caplog.messages if "asked once more" in message]) == 3
