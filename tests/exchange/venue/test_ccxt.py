"""The unmodified ccxt clients against the venue: what they see is the simulated market, and their own checks pass."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import ccxt
import ccxt.pro
import polars as pl
import pytest

from hindsight.exchange.ccxt_rest import CcxtRest
from hindsight.exchange.ccxt_urls import binance_urls
from hindsight.exchange.simulated import SimulatedVenue
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.server import serve, serve_in_thread
from hindsight.exchange.venue.venue import Venue
from hindsight.market.streams import Stream, Window, floor_to, from_ms, to_ms

START = datetime(2024, 3, 1, 3, 57, 30, tzinfo=UTC)  # ETH/USDT's candle of 03:59 is corrected at 04:03:54
ETH = "ETH/USDT"


@asynccontextmanager
async def _client(venue: Venue) -> AsyncIterator[ccxt.pro.binance]:
    client = ccxt.pro.binance(binance_urls(venue.url))
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def blocking(market: SecondsMarket) -> Iterator[tuple[Venue, ccxt.binance]]:
    with serve_in_thread(market, start_ms=to_ms(START), speed=20.0) as venue:
        yield venue, ccxt.binance(binance_urls(venue.url))


def _truth(timeframe: str, since: datetime, until: datetime) -> list[list[float]]:
    stream = Stream(venue="simulated", symbol=ETH, timeframe=timeframe)
    frame = pl.concat(SimulatedVenue(seed=19, phi=0.3).candles(stream, Window(start=since, end=until)))
    frame = frame.sort("open_time", "revision").unique("open_time", keep="last", maintain_order=True)
    return [[to_ms(row[0]), *row[1:6]] for row in frame.iter_rows()]


def test_the_blocking_client_reads_clock_markets_candles_book_and_trades(
    blocking: tuple[Venue, ccxt.binance],
) -> None:
    venue, client = blocking
    assert abs(client.fetch_time() - venue.clock.now_ms()) < 60_000
    assert list(client.load_markets()) == [ETH, "BTC/USDT"]
    assert client.market(ETH)["precision"]["price"] == 0.001
    assert client.market(ETH)["spot"]
    book = client.fetch_order_book(ETH, 100)
    assert len(book["bids"]) == len(book["asks"]) == 100
    assert book["bids"][0][0] < book["asks"][0][0]
    ids = [int(trade["id"]) for trade in client.fetch_trades(ETH, limit=600)]
    assert ids == list(range(ids[0], ids[0] + 600))
    ticker = client.fetch_bids_asks([ETH])[ETH]
    assert ticker["bid"] < ticker["ask"]
    with pytest.raises(ccxt.BadSymbol):
        client.fetch_ohlcv("ADA/USDT")


@pytest.mark.parametrize("timeframe", ["1s", "1m", "5m", "1h"])
def test_past_candles_are_those_of_the_simulated_venue(blocking: tuple[Venue, ccxt.binance], timeframe: str) -> None:
    _, client = blocking
    since = START.replace(second=0, minute=0) - timedelta(hours=30 if timeframe != "1s" else 1)
    step = Stream(venue="simulated", symbol=ETH, timeframe=timeframe).step
    candles = client.fetch_ohlcv(ETH, timeframe, since=to_ms(since), limit=1000)
    until = min(since + 1000 * step, floor_to(START, step))
    assert [row for row in candles if row[0] < to_ms(until)] == _truth(timeframe, since, until)
    assert len(candles) >= 30


def test_the_source_of_candles_reads_the_venue_like_any_exchange(blocking: tuple[Venue, ccxt.binance]) -> None:
    venue, _ = blocking
    source = CcxtRest("binance", config=binance_urls(venue.url))
    window = Window(start=START - timedelta(hours=20), end=START - timedelta(minutes=2))
    frame = pl.concat(source.candles(Stream(venue="binance", symbol=ETH, timeframe="1m"), window))
    rows = [[to_ms(row[0]), *row[1:6]] for row in frame.iter_rows()]
    assert rows == _truth("1m", window.start, START.replace(second=0) - timedelta(minutes=2))


def test_candles_watched_at_sixty_times_the_speed_are_those_of_the_simulated_venue(market: SecondsMarket) -> None:
    async def watch() -> dict[str, dict[float, list[float]]]:
        seen: dict[str, dict[float, list[float]]] = {"1s": {}, "1m": {}}
        async with serve(market, start_ms=to_ms(START), speed=60) as venue, _client(venue) as client:

            async def follow(timeframe: str, until: datetime) -> None:
                while max(seen[timeframe], default=0) < to_ms(until):
                    for row in await client.watch_ohlcv(ETH, timeframe):
                        seen[timeframe][row[0]] = row

            async with asyncio.timeout(120):
                await asyncio.gather(
                    follow("1m", START + timedelta(minutes=8)), follow("1s", START + timedelta(minutes=2))
                )
        return seen

    seen = asyncio.run(watch())
    for timeframe, candles in seen.items():
        opens = sorted(candles)
        known = from_ms(int(opens[-1]))  # the last one forms
        truth = _truth(timeframe, from_ms(int(opens[0])), known)
        assert [candles[time_] for time_ in opens[:-1]] == truth
        assert len(truth) >= 7


def test_watched_trades_have_no_hole_and_watched_books_pass_ccxts_own_check(market: SecondsMarket) -> None:
    async def watch() -> tuple[list[int], int]:
        async with serve(market, start_ms=to_ms(START), speed=3) as venue, _client(venue) as client:
            ids: list[int] = []
            books = 0
            ends = time.monotonic() + 4

            async def trades() -> None:
                while len(ids) < 40:
                    ids.extend(int(trade["id"]) for trade in await client.watch_trades(ETH))

            async def orders(symbol: str) -> None:
                nonlocal books
                while time.monotonic() < ends or books < 40:
                    book = await client.watch_order_book(symbol)  # raises ChecksumError where the chain breaks
                    assert book["bids"][0][0] < book["asks"][0][0]
                    assert len(book["bids"]) >= 900
                    books += 1

            async with asyncio.timeout(60):
                await asyncio.gather(trades(), orders(ETH), orders("BTC/USDT"))
        return ids, books

    ids, books = asyncio.run(watch())
    assert all(b - a == 1 for a, b in pairwise(sorted(set(ids))))
    assert books >= 40


def test_a_broken_chain_is_noticed_by_ccxt_and_the_next_book_is_whole(market: SecondsMarket) -> None:
    async def watch() -> None:
        async with serve(market, start_ms=to_ms(START)) as venue, _client(venue) as client, asyncio.timeout(60):
            for _ in range(5):
                await client.watch_order_book(ETH)
            venue.faults.add("break_chain", stream="ethusdt@depth*")

            async def watch_on() -> None:
                while True:
                    await client.watch_order_book(ETH)

            with pytest.raises(ccxt.ChecksumError):
                await watch_on()
            book = await client.watch_order_book(ETH)
            assert book["bids"][0][0] < book["asks"][0][0]

    asyncio.run(watch())


def test_nothing_of_the_clients_addresses_is_left_at_the_real_exchange() -> None:
    def addresses(urls: object) -> Iterator[str]:
        if isinstance(urls, dict):
            for each in urls.values():
                yield from addresses(each)
        elif isinstance(urls, str):
            yield urls

    client = ccxt.pro.binance(binance_urls("http://127.0.0.1:1/"))
    found = list(addresses(client.urls["api"]))
    assert len(found) > 20
    assert all("://127.0.0.1:1/" in address for address in found)
