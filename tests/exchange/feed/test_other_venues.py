"""Venues whose own messages are not read: nothing says what is final, and the rows are right all the same."""

import asyncio
from collections.abc import Callable
from typing import Any

ETH_1M, KLINES = "simulated ETH/USDT 1m", "ethusdt@kline_1m"
CANDLES, TRADES = f"{ETH_1M} candles", "ETH/USDT trades"


def test_without_a_flag_the_next_candle_closes_the_last_one(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(hears_raw=False, speed=60.0, books=True) as run:
            await run.connected(CANDLES, TRADES, "ETH/USDT order_book")
            rows = await run.landed(ETH_1M, 7)
            assert "next" in {row["closed_by"] for row in rows}
            run.assert_whole(ETH_1M)
            await run.until(lambda: len(run.rows("trades")) > 50 and len(run.rows("order_book")) > 3)

    asyncio.run(scene())


def test_a_connection_lost_before_the_close_costs_no_candle(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(hears_raw=False) as run:
            await run.connected(CANDLES)
            for _ in range(3):
                lost = run.venue.faults.add("close", stream=KLINES, only="forming")
                await run.until(lambda lost=lost: lost.fired)
                await run.landed(ETH_1M, 4)
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


def test_messages_that_ccxt_stumbles_over_end_nothing(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(hears_raw=False) as run:
            await run.connected(CANDLES)
            for fault in ({"fault": "corrupt"}, {"fault": "field", "name": "k"}):
                words = {name: value for name, value in fault.items() if name != "fault"}
                armed = run.venue.faults.add(fault["fault"], stream=KLINES, only="forming", count=2, **words)
                await run.until(lambda armed=armed: armed.fired == 2)
            await run.landed(ETH_1M, 4)
            run.assert_whole(ETH_1M)
            await run.until(lambda: sum(run.part(CANDLES)["refused"].values()) == 4)

    asyncio.run(scene())
