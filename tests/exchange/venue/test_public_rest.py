"""Public endpoints over real sockets: paging, limits, refusals, and the weight of requests."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.server import serve
from hindsight.exchange.venue.weights import Weights
from hindsight.market.streams import to_ms

START = to_ms(datetime(2024, 3, 2, 6, 0, 30, tzinfo=UTC))  # after an outage of five minutes
MINUTE = 60_000
OPENING = to_ms(datetime(2024, 1, 1, tzinfo=UTC))
Get = Callable[..., Any]


def test_klines_come_as_binance_pages_them(market: SecondsMarket, get: Get) -> None:
    async def opens(venue: Any, **query: object) -> list[int]:
        status, rows, _ = await get(venue, "/api/v3/klines", symbol="ETHUSDT", interval="1m", **query)
        assert status == 200
        assert all(row[6] == row[0] + MINUTE - 1 for row in rows)
        return [row[0] for row in rows]

    async def check() -> None:
        async with serve(market, start_ms=START) as venue:
            forming = START // MINUTE * MINUTE
            newest = await opens(venue)
            assert (len(newest), newest[-1]) == (500, forming)
            assert await opens(venue, limit=3) == newest[-3:]
            assert len(await opens(venue, limit=5000)) == 1000
            gaps = {b - a for a, b in pairwise(newest)}
            assert gaps == {MINUTE, 6 * MINUTE}  # five are missing
            assert await opens(venue, startTime=newest[0], limit=1000) == newest
            assert await opens(venue, startTime=newest[0] + 1, limit=2) == newest[1:3]
            assert await opens(venue, startTime=newest[5], endTime=newest[7]) == newest[5:8]
            assert await opens(venue, endTime=newest[7], limit=3) == newest[5:8]
            assert await opens(venue, startTime=forming + MINUTE) == []
            assert await opens(venue, startTime=0, limit=2) == [OPENING, OPENING + MINUTE]
            hours = await get(venue, "/api/v3/klines", symbol="BTCUSDT", interval="1h", limit=200)
            assert len(hours[1]) == 200

    asyncio.run(check())


def test_trades_are_found_by_time_by_id_and_as_the_newest(market: SecondsMarket, get: Get) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START, speed=0.001) as venue:
            _, newest, _ = await get(venue, "/api/v3/trades", symbol="ETHUSDT", limit=1000)
            ids = [trade["id"] for trade in newest]
            assert ids == list(range(ids[0], ids[0] + 1000))
            assert all(a["time"] <= b["time"] for a, b in pairwise(newest))
            _, found, _ = await get(venue, "/api/v3/aggTrades", symbol="ETHUSDT", fromId=ids[10], limit=700)
            assert [trade["a"] for trade in found] == ids[10:710]
            assert [(trade["p"], trade["q"]) for trade in found[:3]] == [(t["price"], t["qty"]) for t in newest[10:13]]
            first, last = newest[100]["time"], newest[200]["time"]
            _, found, _ = await get(venue, "/api/v3/aggTrades", symbol="ETHUSDT", startTime=first, endTime=last)
            assert [trade["a"] for trade in found] == [t["id"] for t in newest if first <= t["time"] <= last]
            _, latest, _ = await get(venue, "/api/v3/aggTrades", symbol="ETHUSDT")
            assert [trade["a"] for trade in latest] == ids[-500:]

    asyncio.run(check())


def test_the_book_and_the_best_prices_are_one(market: SecondsMarket, get: Get) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START, speed=0.001) as venue:
            for limit, levels in ((None, 100), (5, 5), (1000, 1000), (5000, 1002)):
                query = {} if limit is None else {"limit": limit}
                _, book, _ = await get(venue, "/api/v3/depth", symbol="BTCUSDT", **query)
                assert levels - 2 <= len(book["bids"]) <= levels
            _, best, _ = await get(venue, "/api/v3/ticker/bookTicker", symbol="BTCUSDT")
            assert [best["bidPrice"], best["bidQty"]] == book["bids"][0]
            _, every, _ = await get(venue, "/api/v3/ticker/bookTicker")
            assert [each["symbol"] for each in every] == ["ETHUSDT", "BTCUSDT"]
            assert every[1] == best

    asyncio.run(check())


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("klines", {"interval": "1m"}, -1102),
        ("klines", {"symbol": "ADAUSDT", "interval": "1m"}, -1121),
        ("klines", {"symbol": "ETHUSDT", "interval": "7m"}, -1120),
        ("klines", {"symbol": "ETHUSDT", "interval": "1m", "startTime": "soon"}, -1100),
        ("depth", {"symbol": "ETHUSDT", "limit": 0}, -1130),
        ("depth", {"symbol": "ADAUSDT"}, -1121),
        ("aggTrades", {}, -1102),
    ],
)
def test_requests_are_refused_with_binances_codes(
    market: SecondsMarket, get: Get, path: str, query: dict[str, object], code: int
) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue:
            status, body, _ = await get(venue, f"/api/v3/{path}", **query)
            assert (status, body["code"]) == (400, code)
            assert (await get(venue, "/api/v3/order"))[0] == 404

    asyncio.run(check())


def test_weight_is_counted_told_and_at_last_refused(market: SecondsMarket, get: Get) -> None:
    async def check() -> None:
        weights = Weights(limit=60, patience=2, ban_seconds=7)
        async with serve(market, start_ms=START, weights=weights) as venue:
            _, _, headers = await get(venue, "/api/v3/ping")
            assert headers["X-MBX-USED-WEIGHT-1M"] == "1"
            _, _, headers = await get(venue, "/api/v3/depth", symbol="ETHUSDT", limit=1000)
            assert headers["X-MBX-USED-WEIGHT"] == "51"
            statuses = []
            for _ in range(5):
                status, body, headers = await get(venue, "/api/v3/exchangeInfo")
                statuses.append(status)
                assert body["code"] == -1003
                assert 1 <= int(headers["Retry-After"]) <= 60
            assert statuses == [429, 429, 418, 418, 418]
            assert int(headers["Retry-After"]) <= 8
            assert (await get(venue, "/control/state"))[0] == 200  # the control is not the exchange

    asyncio.run(check())


def test_the_weight_of_a_minute_is_forgotten_with_it() -> None:
    weights = Weights(limit=10)
    assert [weights.charge(4, now).status for now in (0.0, 59.0, 59.9, 60.0)] == [200, 200, 429, 200]
    banned = Weights(limit=10, patience=1, ban_seconds=100)
    assert [banned.charge(11, now).status for now in (0.0, 1.0, 50.0, 100.0)] == [429, 418, 418, 418]
    assert banned.charge(1, 101.1).status == 200
