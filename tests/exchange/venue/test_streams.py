"""Connections over real sockets: subscriptions, wrapped messages, pings, their end after a day, slow readers."""

import asyncio
import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp

from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.server import serve
from hindsight.market.streams import to_ms


def _narrow(address: Any) -> socket.socket:
    """A socket that takes in little ahead of its reader, so that one who does not read is soon noticed."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


START = to_ms(datetime(2024, 3, 1, 12, 0, 30, tzinfo=UTC))


def test_a_client_subscribes_lists_and_leaves(
    market: SecondsMarket, listen: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue, listen(venue, "/ws") as ear:
            assert await ear.ask("SUBSCRIBE", "ethusdt@trade", "btcusdt@depth@100ms") == {"result": None, "id": 1}
            assert (await ear.until(lambda told: told["e"] == "trade"))["s"] == "ETHUSDT"
            assert (await ear.until(lambda told: told["e"] == "depthUpdate"))["s"] == "BTCUSDT"
            listed = await ear.ask("LIST_SUBSCRIPTIONS", number=2)
            assert listed["result"] == ["ethusdt@trade", "btcusdt@depth@100ms"]
            await ear.ask("UNSUBSCRIBE", "ethusdt@trade", "never@heard", number=3)
            assert (await ear.ask("LIST_SUBSCRIPTIONS", number=4))["result"] == ["btcusdt@depth@100ms"]
            assert {told["e"] for told in await ear.messages(20)} == {"depthUpdate"}
            assert not venue.broadcast.listeners("ethusdt@trade")
            await ear.socket.close()
            await wait_until(lambda: not venue.connections)

    asyncio.run(check())


def test_streams_may_be_named_in_the_address(market: SecondsMarket, listen: Callable[..., Any]) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue:
            async with listen(venue, "/ws/ethusdt@depth@100ms/btcusdt@depth") as ear:
                assert {told["s"] for told in await ear.messages(15)} == {"ETHUSDT", "BTCUSDT"}
            async with listen(venue, "/stream?streams=ethusdt@depth@100ms/btcusdt@bookTicker") as ear:
                told = await ear.messages(20)
                assert {each["stream"] for each in told} == {"ethusdt@depth@100ms", "btcusdt@bookTicker"}
                assert all(each["data"]["s"].lower() in each["stream"] for each in told)

    asyncio.run(check())


def test_unknown_streams_stay_silent_and_nonsense_is_answered(
    market: SecondsMarket, listen: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue, listen(venue, "/ws/stream/0") as ear:
            assert await ear.ask("SUBSCRIBE", "adausdt@trade", "ethusdt@kline_3m", number=7) == {
                "result": None,
                "id": 7,
            }
            assert (await ear.ask("LIST_SUBSCRIPTIONS"))["result"] == ["adausdt@trade", "ethusdt@kline_3m"]
            assert (await ear.ask("DANCE", number=9))["error"]["code"] == 2
            for nonsense in ("{", "[]", "7", '{"params": []}', '{"method": "SUBSCRIBE", "params": "x", "id": 1}'):
                await ear.socket.send_str(nonsense)
                assert "error" in (await ear.messages(1))[0]
            assert await ear.ask("SET_PROPERTY", "combined", True, number=3) == {"result": None, "id": 3}
            assert (await ear.ask("GET_PROPERTY", "combined", number=4))["result"] is True

    asyncio.run(check())


def test_two_listeners_hear_the_same(market: SecondsMarket, listen: Callable[..., Any]) -> None:
    async def check() -> None:
        path = "/ws/ethusdt@depth@100ms"
        async with serve(market, start_ms=START) as venue, listen(venue, path) as one, listen(venue, path) as other:
            first = await other.messages(1)
            told = await one.until(lambda told: told["u"] == first[0]["u"])
            assert [told] == first
            assert await one.messages(5) == await other.messages(5)
            assert venue.broadcast.sent["ethusdt@depth@100ms"] < 30

    asyncio.run(check())


def test_pings_come_and_a_client_that_does_not_answer_is_cut(
    market: SecondsMarket, listen: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with (
            serve(market, start_ms=START, ping_seconds=0.05, pong_seconds=0.3) as venue,
            listen(venue, "/ws") as answering,
            listen(venue, "/ws", autoping=False) as silent,
        ):
            staying = asyncio.create_task(answering.end())
            first = await asyncio.wait_for(silent.socket.receive(), 60)
            assert first.type is aiohttp.WSMsgType.PING
            assert abs(int(first.data) - venue.clock.now_ms()) < 60_000
            while (await asyncio.wait_for(silent.socket.receive(), 60)).type is aiohttp.WSMsgType.PING:
                pass
            assert silent.socket.closed
            assert not staying.done()
            await wait_until(lambda: len(venue.connections) == 1)
            staying.cancel()

    asyncio.run(check())


def test_a_clients_ping_is_answered(market: SecondsMarket, listen: Callable[..., Any]) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue, listen(venue, "/ws", autoping=False) as ear:
            await ear.socket.ping(b"hello")
            pong = await asyncio.wait_for(ear.socket.receive(), 60)
            assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"hello")

    asyncio.run(check())


def test_a_connection_ends_after_its_day(
    market: SecondsMarket, listen: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START, lifetime_seconds=0.5) as venue:
            async with listen(venue, "/ws/ethusdt@depth@100ms") as ear:
                end = await ear.end()
                assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
            await wait_until(lambda: not venue.broadcast.listeners("ethusdt@depth@100ms"))

    asyncio.run(check())


def test_a_reader_that_is_too_slow_is_cut_off_and_others_go_on(
    market: SecondsMarket, listen: Callable[..., Any]
) -> None:
    async def check() -> None:
        path = "/ws/ethusdt@depth@100ms/btcusdt@depth@100ms/ethusdt@trade/btcusdt@trade"
        async with (
            serve(market, start_ms=START, speed=60, backlog=1000) as venue,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_narrow)) as session,
            session.ws_connect(venue.url + path),  # never read
            listen(venue, path) as quick,
        ):
            while len(venue.connections) > 1:
                await quick.messages(100)
            assert json.loads(await quick.text())

    asyncio.run(check())


def test_a_venue_that_stops_ends_its_connections(market: SecondsMarket, listen: Callable[..., Any]) -> None:
    async def check() -> None:
        async with aiohttp.ClientSession() as session:
            async with serve(market, start_ms=START) as venue:
                socket = await session.ws_connect(venue.url + "/ws/ethusdt@depth@100ms")
                await asyncio.wait_for(socket.receive(), 60)
            while not socket.closed:
                await asyncio.wait_for(socket.receive(), 60)

    asyncio.run(check())
