"""The book that a feed keeps live, held against the best prices that the venue recorded beside it."""

import asyncio
import time
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest

from hindsight.exchange.feed.connection import LEVELS, Connection
from hindsight.exchange.feed.part import Times
from hindsight.exchange.venue.server import serve
from hindsight.exchange.venue.session_market import session_market

UPDATES = 800  # 80 seconds of the recording
Quote = tuple[int, float, float]  # update id, best bid, best ask


async def heard(folder: Path, symbol: str) -> list[Quote]:
    """The best prices after each update, as the feed's connection brings them from a venue that plays a session."""
    found: list[Quote] = []
    times = Times(time.monotonic, lambda: time.time_ns() // 1_000_000, Random(1))
    async with serve(session_market(folder, (symbol,)), speed=10.0) as venue:
        connection = Connection("binance", "binance", venue.url, times=times, speed=10.0, silent_seconds=20.0)
        try:
            await connection.open()

            def take(book: Any) -> None:
                if book["bids"] and book["asks"]:
                    found.append((book["nonce"], book["bids"][0][0], book["asks"][0][0]))

            connection.listen("order_book", symbol, take)
            async with asyncio.timeout(120):
                while len(found) < UPDATES:
                    await connection.exchange.watch_order_book(symbol, LEVELS)
        finally:
            await connection.close()
    return found


@pytest.mark.parametrize("coin", ["eth", "btc"])
def test_the_live_best_prices_are_the_recorded_ones_and_never_cross(shared_data: Path, coin: str) -> None:
    folder = shared_data / "messages" / "binance_spot_recording"
    best = pl.DataFrame(
        asyncio.run(heard(folder, f"{coin.upper()}/USDT")), schema=["u", "best_bid", "best_ask"], orient="row"
    )
    quotes = pl.read_parquet(
        shared_data / "order_book" / f"{coin}usdt_quotes_binance_spot_20240808T2354.parquet",
        columns=["u", "bid", "ask"],
    )
    both = best.sort("u").join_asof(quotes.sort("u"), on="u", strategy="backward").drop_nulls()
    is_same = (pl.col("best_bid") == pl.col("bid")) & (pl.col("best_ask") == pl.col("ask"))
    assert both.height > 0.9 * UPDATES
    assert both.select(is_same.mean()).item() >= 0.99
    assert best.select((pl.col("best_bid") < pl.col("best_ask")).all()).item()
