"""Every fault over real sockets: it does what its name says, as often as it was told, and nothing else."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from hindsight.errors import SettingRefused
from hindsight.exchange.venue.faults import Fault
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.server import serve
from hindsight.market.streams import to_ms

START = to_ms(datetime(2024, 3, 1, 12, 0, 30, tzinfo=UTC))
DEPTH, TRADE, KLINE = "ethusdt@depth@100ms", "ethusdt@trade", "ethusdt@kline_1s"
Listen = Callable[..., Any]


def _heard(market: SecondsMarket, listen: Listen, stream: str, number: int, /, **fault: Any) -> list[str]:
    """The texts of `number` messages of a stream, under one fault from the start."""

    async def hear() -> list[str]:
        told = [Fault(**fault)]
        async with (
            serve(market, start_ms=START, speed=5, faults=told) as venue,
            listen(venue, f"/ws/{stream}") as ear,
        ):
            return [await ear.text() for _ in range(number)]

    return asyncio.run(hear())


def _ids(texts: list[str], name: str = "t") -> list[int]:
    return [json.loads(text)[name] for text in texts]


def test_messages_are_dropped_and_then_no_more(market: SecondsMarket, listen: Listen) -> None:
    ids = _ids(_heard(market, listen, TRADE, 20, fault="drop", stream="ethusdt@trade", after=5, count=3))
    assert [b - a for a, b in pairwise(ids)] == [1] * 4 + [4] + [1] * 14


def test_messages_come_twice(market: SecondsMarket, listen: Listen) -> None:
    ids = _ids(_heard(market, listen, TRADE, 10, fault="duplicate", after=2, count=2))
    assert [id_ - ids[0] for id_ in ids] == [0, 1, 2, 2, 3, 3, 4, 5, 6, 7]


def test_messages_change_places(market: SecondsMarket, listen: Listen) -> None:
    ids = _ids(_heard(market, listen, TRADE, 8, fault="reorder", after=2))
    assert [id_ - ids[0] for id_ in ids] == [0, 1, 3, 2, 4, 5, 6, 7]


def test_a_delayed_message_comes_after_those_that_followed_it(market: SecondsMarket, listen: Listen) -> None:
    ids = _ids(_heard(market, listen, TRADE, 60, fault="delay", after=2, seconds=1.0))
    place = [id_ - ids[0] for id_ in ids].index(2)
    assert place > 4
    assert sorted(ids) == list(range(ids[0], ids[0] + 60))


@pytest.mark.parametrize("fault", ["corrupt", "truncate"])
def test_texts_that_are_no_json(market: SecondsMarket, listen: Listen, fault: str) -> None:
    texts = _heard(market, listen, DEPTH, 6, fault=fault, after=1, count=2)
    assert all(text.startswith("{") for text in texts)
    for place, text in enumerate(texts):
        if place in (1, 2):
            with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra|delimiter"):
                json.loads(text)
        else:
            assert json.loads(text)["e"] == "depthUpdate"


@pytest.mark.parametrize(
    ("stream", "words", "expected"),
    [
        pytest.param(KLINE, {"name": "k.c", "value": "NaN"}, lambda told: told["k"]["c"] == "NaN", id="NaN"),
        pytest.param(KLINE, {"name": "k.o", "value": "soon"}, lambda told: told["k"]["o"] == "soon", id="a word"),
        pytest.param(KLINE, {"name": "k.t"}, lambda told: "t" not in told["k"], id="missing"),
        pytest.param(DEPTH, {"name": "b.0.1", "value": "-3"}, lambda told: told["b"][0][1] == "-3", id="negative size"),
        pytest.param(DEPTH, {"name": "b.0"}, lambda told: isinstance(told["b"], list), id="a level less"),
        pytest.param(TRADE, {"name": "q", "value": None}, lambda told: told["q"] is None, id="null"),
        pytest.param(TRADE, {"name": "x.y", "value": 1}, lambda told: "x" not in told, id="a place that is not there"),
    ],
)
def test_a_field_is_replaced_or_missing(
    market: SecondsMarket, listen: Listen, stream: str, words: dict[str, Any], expected: Callable[[Any], bool]
) -> None:
    first, second = map(json.loads, _heard(market, listen, stream, 2, fault="field", **words))
    assert expected(first)
    assert first["E"] <= second["E"]
    assert "NaN" not in json.dumps(second)


def test_the_chain_of_a_book_breaks_once(market: SecondsMarket, listen: Listen) -> None:
    told = [json.loads(text) for text in _heard(market, listen, DEPTH, 6, fault="break_chain", after=2)]
    holes = [after["U"] - before["u"] - 1 for before, after in pairwise(told)]
    assert [hole > 0 for hole in holes] == [False, True, False, False, False]


@pytest.mark.parametrize("stream", [DEPTH, "ethusdt@bookTicker"])
def test_a_book_is_crossed(market: SecondsMarket, listen: Listen, stream: str) -> None:
    first, second = map(json.loads, _heard(market, listen, stream, 2, fault="cross"))
    if stream == DEPTH:
        best_bid = max(float(price) for price, amount in first["b"] if float(amount))
        assert min(float(price) for price, amount in first["a"] if float(amount)) < best_bid
    else:
        assert float(first["b"]) > float(first["a"])
        assert float(second["b"]) < float(second["a"])


@pytest.mark.parametrize("code", [0, 1001])
def test_connections_are_closed_with_and_without_a_word(
    market: SecondsMarket, listen: Listen, wait_until: Listen, code: int
) -> None:
    async def check() -> None:
        async with (
            serve(market, start_ms=START) as venue,
            listen(venue, f"/ws/{DEPTH}") as ear,
            listen(venue, "/ws/btcusdt@depth@100ms") as other,
        ):
            await ear.messages(2)
            armed = venue.faults.add("close", stream="ethusdt@depth*", code=code)
            end = await ear.end()
            if code:
                assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, code)
            else:
                assert end.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            await other.messages(3)
            await wait_until(lambda: len(venue.connections) == 1)
            assert armed.fired == 1
            async with listen(venue, f"/ws/{DEPTH}") as again:
                await again.messages(3)

    asyncio.run(check())


def test_a_half_open_connection_stays_and_is_silent(market: SecondsMarket, listen: Listen) -> None:
    async def check() -> None:
        async with (
            serve(market, start_ms=START, ping_seconds=0.05, pong_seconds=0.5) as venue,
            listen(venue, f"/ws/{DEPTH}", autoping=False) as ear,
        ):
            venue.faults.add("half_open", stream=DEPTH)
            while not next(iter(venue.connections.values())).is_half_open:
                await ear.socket.receive()
            await ear.socket.ping(b"anybody?")
            await ear.socket.send_str('{"method": "LIST_SUBSCRIPTIONS", "id": 5}')
            said = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):  # longer than the venue waits for a pong
                    while True:
                        said.append(await ear.socket.receive())
            assert all(message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING) for message in said)
            assert len(said) < 5  # what was under way
            assert not ear.socket.closed

    asyncio.run(check())


def test_a_connection_wakes_up_where_a_time_was_said(market: SecondsMarket, listen: Listen) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue, listen(venue, f"/ws/{DEPTH}") as ear:
            first = (await ear.messages(1))[0]
            venue.faults.add("half_open", stream=DEPTH, seconds=1.0)
            told = [first, *await ear.messages(5)]
            assert max(after["U"] - before["u"] for before, after in pairwise(told)) > 16 * 5  # a second is lost

    asyncio.run(check())


def test_requests_are_answered_with_a_status_as_often_as_told(market: SecondsMarket, get: Listen) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue:
            venue.faults.add("status", path="/api/v3/klines", status=429, retry_after=7, count=2)
            venue.faults.add("status", path="/api/*", status=502, after=1)
            assert (await get(venue, "/api/v3/time"))[0] == 200
            status, page, _ = await get(venue, "/api/v3/time")
            assert (status, "<html>" in page) == (502, True)
            for _ in range(2):
                status, body, headers = await get(venue, "/api/v3/klines", symbol="ETHUSDT", interval="1m")
                assert (status, body["code"], headers["Retry-After"]) == (429, -1003, "7")
            assert (await get(venue, "/api/v3/klines", symbol="ETHUSDT", interval="1m"))[0] == 200
            venue.faults.add("status", status=418, retry_after=1)
            assert (await get(venue, "/api/v3/ping"))[0] == 418

    asyncio.run(check())


def test_a_connection_may_be_refused_too(market: SecondsMarket, listen: Listen) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue:
            venue.faults.add("status", path="/ws*", status=429, retry_after=2)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with listen(venue, f"/ws/{DEPTH}"):
                    pass
            assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "2")  # pyright: ignore
            async with listen(venue, f"/ws/{DEPTH}") as ear:
                await ear.messages(1)

    asyncio.run(check())


def test_an_answer_may_be_slow(market: SecondsMarket, get: Listen) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue:
            venue.faults.add("slow", path="/api/v3/time", seconds=0.6)
            began = time.monotonic()
            assert (await get(venue, "/api/v3/time"))[0] == 200
            assert time.monotonic() - began >= 0.6

    asyncio.run(check())


@pytest.mark.parametrize("skew_ms", [3000, -3000])
def test_the_clock_is_off_in_answers_and_messages(
    market: SecondsMarket, listen: Listen, get: Listen, skew_ms: int
) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START) as venue, listen(venue, f"/ws/{TRADE}/{DEPTH}") as ear:
            armed = venue.faults.add("skew", ms=skew_ms)
            trade = await ear.until(lambda told: told["e"] == "trade" and told["E"] != told["T"])
            assert trade["E"] - trade["T"] == skew_ms
            shown = (await get(venue, "/api/v3/time"))[1]["serverTime"]
            assert abs(shown - venue.clock.now_ms() - skew_ms) < 2000
            venue.faults.remove(armed.number)
            trade = await ear.until(lambda told: told["e"] == "trade" and told["E"] == told["T"])
            assert abs((await get(venue, "/api/v3/time"))[1]["serverTime"] - venue.clock.now_ms()) < 2000

    asyncio.run(check())


def test_a_closed_candle_is_corrected_on_the_stream_and_over_rest(
    market: SecondsMarket, listen: Listen, get: Listen
) -> None:
    async def check() -> None:
        told = [Fault(fault="correct", stream=KLINE, seconds=0.5, values={"h": "9000.5", "v": "12.5"})]
        async with (
            serve(market, start_ms=START, speed=10, faults=told) as venue,
            listen(venue, f"/ws/{KLINE}") as ear,
        ):
            closing = await ear.until(lambda told: told["k"]["x"])
            opened = closing["k"]["t"]
            query = {"symbol": "ETHUSDT", "interval": "1s", "startTime": opened, "limit": 1}
            row = (await get(venue, "/api/v3/klines", **query))[1][0]
            if venue.clock.now_ms() < venue.faults.corrections[0].known_ms:
                assert row[5] == closing["k"]["v"]
            again = await ear.until(lambda told: told["k"]["t"] == opened)
            assert (again["k"]["x"], again["k"]["h"], again["k"]["v"]) == (True, "9000.5", "12.5")
            assert again["k"]["c"] == closing["k"]["c"]
            assert again["E"] >= closing["E"] + 5000 - 100
            row = (await get(venue, "/api/v3/klines", **query))[1][0]
            assert (row[2], row[5], row[4]) == ("9000.5", "12.5", closing["k"]["c"])

    asyncio.run(check())


@pytest.mark.parametrize("where", ["stream", "rest", "both"])
def test_a_gap_is_left_on_the_stream_over_rest_or_in_both(
    market: SecondsMarket, listen: Listen, get: Listen, where: str
) -> None:
    async def check() -> None:
        async with serve(market, start_ms=START, speed=10) as venue, listen(venue, f"/ws/{KLINE}") as ear:
            first = (await ear.until(lambda told: told["k"]["x"]))["k"]["t"]
            venue.faults.add("gap", stream=KLINE, candles=5, where=where)
            seen = {first}
            while max(seen) < first + 20_000:
                seen.add((await ear.messages(1))[0]["k"]["t"])
            rows = await get(venue, "/api/v3/klines", symbol="ETHUSDT", interval="1s", startTime=first, limit=18)
            for name, opens in (("stream", sorted(seen)), ("rest", [row[0] for row in rows[1]])):
                steps = [b - a for a, b in pairwise(opens)]
                assert sorted(set(steps)) == ([1000, 6000] if where in (name, "both") else [1000]), name
            hours = await get(venue, "/api/v3/klines", symbol="ETHUSDT", interval="1m", startTime=first - 120_000)
            assert len(hours[1]) >= 2  # candles of other lengths stay

    asyncio.run(check())


def test_only_closing_candles_may_be_struck(market: SecondsMarket, listen: Listen) -> None:
    texts = _heard(market, listen, KLINE, 12, fault="drop", stream="*@kline_*", only="closing", count=0)
    assert not any(json.loads(text)["k"]["x"] for text in texts)
    texts = _heard(market, listen, KLINE, 12, fault="drop", stream="*@kline_*", only="forming", count=0)
    assert all(json.loads(text)["k"]["x"] for text in texts)


def test_faults_are_told_to_a_running_venue_over_http(market: SecondsMarket, listen: Listen, get: Listen) -> None:
    async def check() -> None:
        async with (
            aiohttp.ClientSession() as session,
            serve(market, start_ms=START) as venue,
            listen(venue, f"/ws/{DEPTH}") as ear,
        ):
            faults = [{"fault": "drop", "stream": DEPTH, "count": 2}, {"fault": "skew", "ms": -500}]
            answer = await session.post(f"{venue.url}/control/faults", json=faults)
            assert await answer.json() == {"armed": [1, 2]}
            await ear.messages(2)
            state = (await get(venue, "/control/state"))[1]
            assert state["clock"]["speed"] == 1.0
            assert state["clock"]["skew_ms"] == -500
            assert abs(state["clock"]["now_ms"] - venue.clock.now_ms()) < 2000
            assert [each["streams"] for each in state["connections"]] == [[DEPTH]]
            assert state["messages"][DEPTH] >= 2
            assert {each["fault"]: each["fired"] for each in state["faults"]} == {"drop": 2, "skew": 0}
            await session.delete(f"{venue.url}/control/faults", params={"number": 2})
            assert (await get(venue, "/control/state"))[1]["clock"]["skew_ms"] == 0
            for wrong in ('{"fault": "explode"}', "{", '{"fault": "drop", "times": 3}', '{"fault": "field"}', "7"):
                answer = await session.post(f"{venue.url}/control/faults", data=wrong)
                assert answer.status == 400
                assert (await answer.json())["error"]

    asyncio.run(check())


@pytest.mark.parametrize(
    "told",
    [{"fault": "drop", "count": -1}, {"fault": "drop", "only": "some"}, {"fault": "gap", "where": "here"}, {}, None],
)
def test_a_fault_that_is_none_is_refused(told: object) -> None:
    with pytest.raises(SettingRefused):
        Fault.read(told)
