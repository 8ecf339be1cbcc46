"""Faults of a venue, over real sockets: after each, what landed is what the undisturbed market would have left."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

ETH_1M, ETH_1S = "simulated ETH/USDT 1m", "simulated ETH/USDT 1s"
CANDLES, TRADES, BOOK = f"{ETH_1M} candles", "ETH/USDT trades", "ETH/USDT order_book"
KLINES = "ethusdt@kline_1m"


def test_a_connection_lost_in_the_middle_of_a_candle_costs_no_candle(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            for code in (0, 1001):
                lost = run.venue.faults.add("close", stream=KLINES, only="forming", code=code)
                await run.until(lambda lost=lost: lost.fired)
                await run.landed(ETH_1M, 3)
            await run.until(lambda: run.part(CANDLES)["reconnects"] == 2)
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


def test_a_socket_that_is_open_and_says_nothing_is_noticed_and_made_anew(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live(silent_seconds=1.0) as run:
            await run.connected(CANDLES, TRADES)
            run.venue.faults.add("half_open", stream=KLINES)
            run.venue.faults.add("half_open", stream="ethusdt@trade")
            await run.until(lambda: run.part(CANDLES)["reconnects"] and run.part(TRADES)["reconnects"])
            await run.connected(CANDLES, TRADES)
            await run.landed(ETH_1M, 3)
            run.assert_whole(ETH_1M)

    asyncio.run(scene())
    assert any(CANDLES in message and "silent" in message for message in caplog.messages)


def test_a_dead_socket_never_becomes_flat_candles(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(silent_seconds=600.0, timeframes=("1s",), speed=20.0) as run:
            await run.landed(ETH_1S, 8)
            run.venue.faults.add("half_open", stream="ethusdt@*", count=0)
            run.venue.faults.add("status", path="/api/*", count=0)
            await asyncio.sleep(1)
            before = len(run.candles(ETH_1S))
            await asyncio.sleep(2)  # forty seconds of the market
            assert len(run.candles(ETH_1S)) == before
            run.venue.faults.remove()
            await run.landed(ETH_1S, 40)  # over REST alone, once it answers
            run.assert_whole(ETH_1S)

    asyncio.run(scene())


def test_candles_that_come_twice_or_in_the_wrong_order_are_landed_once_and_in_order(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            faults = [
                run.venue.faults.add("duplicate", stream=KLINES, only="closing", count=3),
                run.venue.faults.add("duplicate", stream=KLINES, only="forming", count=5),
                run.venue.faults.add("reorder", stream=KLINES, only="closing", count=2, after=3),
                run.venue.faults.add("delay", stream=KLINES, only="closing", count=1, after=6, seconds=1.5),
                run.venue.faults.add("delay", stream=KLINES, only="forming", count=3, after=9, seconds=1.2),
            ]
            await run.until(lambda: not run.venue.faults.armed)
            await run.landed(ETH_1M, 3)
            assert all(fault.fired for fault in faults)
            rows = run.assert_whole(ETH_1M)
            assert not [row for row in rows if row["known_ms"] is not None]

    asyncio.run(scene())


def test_a_correction_after_the_close_is_one_row_known_at_its_event_time(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            run.venue.faults.add("correct", stream=KLINES, seconds=1.0)
            run.venue.faults.add("duplicate", stream=KLINES, only="closing", count=0)
            [row] = await run.until(lambda: [row for row in run.candles(ETH_1M) if row["known_ms"] is not None])
            [correction] = run.venue.faults.corrections
            assert row["open_time_ms"] == correction.open_ms
            assert abs(row["known_ms"] - correction.known_ms) < 1000
            assert row["close"] == float(correction.values["close"])
            await run.landed(ETH_1M, 2)
            run.assert_whole(ETH_1M)
            assert sum(each["known_ms"] is not None for each in run.candles(ETH_1M)) == 1

    asyncio.run(scene())


def test_a_correction_missed_while_the_socket_was_gone_is_found_over_rest(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            struck = run.venue.faults.add("correct", stream=KLINES, seconds=3.5)
            await run.until(lambda: struck.fired)
            run.venue.faults.add("status", path="/ws*", count=0)
            run.venue.faults.add("close", stream=KLINES)
            await run.until(lambda: run.part(CANDLES)["state"] == "down")
            await asyncio.sleep(3.5)
            run.venue.faults.remove()
            [row] = await run.until(lambda: [row for row in run.candles(ETH_1M) if row["known_ms"] is not None])
            [correction] = run.venue.faults.corrections
            assert (row["open_time_ms"], row["closed_by"]) == (correction.open_ms, "rest")
            assert row["close"] == float(correction.values["close"])
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


# Of 500 candles in seconds: 500 minutes take too long even at a fast venue.
GAPS = [(200.0, "1m", 1), (200.0, "1m", 5), (100.0, "1s", 500)]


@pytest.mark.parametrize(("speed", "timeframe", "candles"), GAPS)
def test_a_gap_in_the_stream_is_filled_over_rest(
    live: Callable[..., Any], speed: float, timeframe: str, candles: int
) -> None:
    async def scene() -> None:
        async with live(speed=speed, timeframes=(timeframe,)) as run:
            stream = f"simulated ETH/USDT {timeframe}"
            await run.connected(f"{stream} candles")
            await run.landed(stream, 2)
            run.venue.faults.add("gap", stream=f"ethusdt@kline_{timeframe}", candles=candles, where="stream")
            await run.landed(stream, candles + 4)
            run.assert_whole(stream)
            assert run.part(f"{stream} candles")["missing"] == 0

    asyncio.run(scene())


@pytest.mark.parametrize(("speed", "timeframe", "candles"), [*GAPS, (5.0, "1s", 12)])
def test_a_gap_at_the_venue_is_missing_and_never_made_up(
    live: Callable[..., Any], speed: float, timeframe: str, candles: int
) -> None:
    async def scene() -> None:
        async with live(speed=speed, timeframes=(timeframe,)) as run:
            stream = f"simulated ETH/USDT {timeframe}"
            await run.connected(f"{stream} candles", TRADES)
            await run.landed(stream, 2)
            armed = run.venue.faults.add("gap", stream=f"ethusdt@kline_{timeframe}", candles=candles)
            step_ms = 1000 if timeframe == "1s" else 60_000
            first_ms = -(-armed.since_ms // step_ms) * step_ms
            gap = {first_ms + number * step_ms for number in range(candles)}
            await run.until(lambda: run.candles(stream)[-1]["open_time_ms"] > max(gap) + 2 * step_ms)
            # A second in which nobody traded is known to be quiet, by the ids of the trades around it.
            landed = {row["open_time_ms"]: row for row in run.candles(stream)}
            run.assert_whole(stream, missing=gap - landed.keys())
            frame = run.expected(stream, min(gap), max(gap)).to_dicts()
            traded = {int(row["open_time"].timestamp() * 1000) for row in frame if row["volume"] > 0}
            assert not traded & landed.keys()
            assert all(landed[opened]["volume"] == 0 for opened in gap & landed.keys())
            await run.until(lambda: run.part(f"{stream} candles")["missing"] == len(gap - landed.keys()))

    asyncio.run(scene())


@pytest.mark.parametrize("skew_ms", [3000, -3000])
@pytest.mark.parametrize("is_there_from_the_start", [True, False])
def test_a_clock_that_is_wrong_by_three_seconds_lands_no_forming_candle(
    live: Callable[..., Any], skew_ms: int, is_there_from_the_start: bool
) -> None:
    async def scene() -> None:
        # 10 times as fast: three of the venue's seconds are long enough to be caught at.
        async with live(is_started=False, speed=10.0, timeframes=("1s", "1m"), grace_seconds=0.0) as run:
            if is_there_from_the_start:
                run.venue.faults.add("skew", ms=skew_ms)
            run.start()
            await run.landed(ETH_1S, 20)
            if not is_there_from_the_start:
                run.venue.faults.add("skew", ms=skew_ms)
            # Closes that do not come are asked for, by a clock that cannot be believed.
            run.venue.faults.add("drop", stream="ethusdt@kline_*", only="closing", count=30)
            await run.until(lambda: not [each for each in run.venue.faults.armed if each.fault.fault == "drop"])
            await run.landed(ETH_1S, 20)
            run.assert_whole(ETH_1S)
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


@pytest.mark.parametrize("status", [429, 418])
def test_a_venue_that_asks_to_be_left_alone_is_left_alone_as_long_as_it_wants(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            run.venue.faults.add("gap", stream=KLINES, candles=2, where="stream")
            refused = run.venue.faults.add("status", path="/api/v3/klines", status=status, retry_after=3)
            await run.until(lambda: refused.fired)
            await asyncio.sleep(0.2)  # answers that are on their way
            asked = sum(run.venue.requests.values())
            await asyncio.sleep(2.0)
            assert sum(run.venue.requests.values()) == asked
            await run.landed(ETH_1M, 4)
            run.assert_whole(ETH_1M)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scene())
    told = [message for message in caplog.messages if f"answered {status}" in message]
    assert len(told) == 1
    assert "3 seconds" in told[0]


def test_what_follows_a_hole_waits_while_rest_is_away_and_other_streams_go_on(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        symbols = ("ETH/USDT", "BTC/USDT")
        async with live(symbols=symbols) as run:
            await run.connected(CANDLES, "simulated BTC/USDT 1m candles")
            await run.landed(ETH_1M, 9)
            run.venue.faults.add("status", path="/api/*", count=0)
            run.venue.faults.add("drop", stream=KLINES, only="closing")
            await run.until(lambda: len(run.venue.faults.armed) == 1)
            before = len(run.candles(ETH_1M))
            await run.landed("simulated BTC/USDT 1m", 5)
            assert len(run.candles(ETH_1M)) <= before + 1
            run.venue.faults.remove()
            await run.landed(ETH_1M, 6)
            for symbol in symbols:
                run.assert_whole(f"simulated {symbol} 1m")

    asyncio.run(scene())


def test_without_any_socket_candles_still_land_over_rest(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(is_started=False) as run:
            run.venue.faults.add("status", path="/ws*", count=0)
            run.start()
            rows = await run.landed(ETH_1M, 9)
            assert rows[-1]["closed_by"] == "clock"
            run.venue.faults.remove()
            await run.until(lambda: run.candles(ETH_1M)[-1]["closed_by"] == "flag")
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("no JSON", {"fault": "corrupt"}),
    ("no JSON", {"fault": "truncate"}),
    ("unreadable", {"fault": "field", "name": "e"}),
    ("nobody asked for it", {"fault": "field", "name": "s"}),
    ("nobody asked for it", {"fault": "field", "name": "s", "value": "LTCUSDT"}),
    ("unreadable", {"fault": "field", "name": "k"}),
    ("a field is missing", {"fault": "field", "name": "k.c"}),
    ("no number", {"fault": "field", "name": "k.h", "value": "high"}),
    ("no number", {"fault": "field", "name": "k.c", "value": "NaN"}),
    ("no JSON", {"fault": "field", "name": "k.c", "value": float("nan")}),
    ("negative", {"fault": "field", "name": "k.v", "value": "-1"}),
    ("no instant", {"fault": "field", "name": "k.t", "value": "now"}),
    ("contradictory", {"fault": "field", "name": "k.t", "value": 1709294400001}),
    ("a field is missing", {"fault": "field", "name": "k.x", "value": 1}),
    ("unreadable", {"fault": "field", "name": "k", "value": [1, 2]}),
]


async def strike(run: Any, stream: str, fault: dict[str, Any], count: int, **more: Any) -> None:
    """Has the venue spoil messages of a stream, and waits until it has."""
    words = {name: value for name, value in fault.items() if name != "fault"}
    armed = run.venue.faults.add(fault["fault"], stream=stream, count=count, **words, **more)
    await run.until(lambda: armed.fired == count)


def test_a_malformed_candle_is_refused_and_counted_and_the_rest_goes_on(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            for reason, fault in MALFORMED:
                before = run.part(CANDLES)["refused"].get(reason, 0)
                await strike(run, KLINES, fault, 2, only="closing")
                await run.until(
                    lambda reason=reason, before=before: run.part(CANDLES)["refused"].get(reason, 0) >= before + 2
                )
            await run.landed(ETH_1M, 3)
            run.assert_whole(ETH_1M)
            assert run.part(CANDLES)["reconnects"] == 0

    asyncio.run(scene())
    told = [message for message in caplog.messages if "refused" in message]
    assert told
    assert all(message.startswith(CANDLES) for message in told)


def test_a_trade_that_was_malformed_or_lost_is_fetched_over_rest(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(speed=10.0) as run:
            await run.connected(TRADES)
            faults: list[dict[str, Any]] = [
                {"fault": "corrupt"},
                {"fault": "field", "name": "q", "value": "-1"},
                {"fault": "field", "name": "p", "value": "NaN"},
                {"fault": "field", "name": "t"},
                {"fault": "drop"},
            ]
            for fault in faults:
                await strike(run, "ethusdt@trade", fault, 3)
            await run.until(lambda: run.part(TRADES)["filled"] == 3 * len(faults))
            count = len(run.rows("trades"))
            await run.until(lambda: len(run.rows("trades")) > count + 20)
            ids = [row["trade_id"] for row in run.rows("trades")]
            assert len(ids) == len(set(ids))
            newest = max(ids) - 20  # the last few may be on their way
            assert {each for each in ids if each < newest} == set(range(min(ids), newest))
            assert run.part(TRADES)["missing"] == 0

    asyncio.run(scene())


def test_trades_of_an_hour_without_a_connection_are_fetched_page_by_page(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(speed=600.0) as run:
            await run.connected(TRADES)
            await run.until(lambda: len(run.rows("trades")) > 1000)
            run.venue.faults.add("status", path="/ws*", count=0)
            run.venue.faults.add("close", stream="ethusdt@trade")
            await run.until(lambda: run.part(TRADES)["state"] == "down")
            await asyncio.sleep(7)
            run.venue.faults.remove()
            await run.until(lambda: run.part(TRADES)["filled"] > 15_000)

            async def whole() -> None:
                while True:
                    ids = sorted(row["trade_id"] for row in run.rows("trades"))
                    if ids == list(range(ids[0], ids[-1] + 1)):
                        return
                    await asyncio.sleep(2)

            await asyncio.wait_for(whole(), 120)
            assert run.part(TRADES)["missing"] == 0

    asyncio.run(scene())
