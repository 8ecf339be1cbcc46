"""REST that answers wrongly, over real sockets: it is refused, counted and asked again, and never believed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from hindsight.exchange.feed.sequence import FRUITLESS
from hindsight.exchange.feed.upkeep import CLOCK_SECONDS

ETH_1M, ETH_1S = "simulated ETH/USDT 1m", "simulated ETH/USDT 1s"
CANDLES, TRADES, BOOK = f"{ETH_1M} candles", "ETH/USDT trades", "ETH/USDT order_book"
KLINES = "ethusdt@kline_1m"
HOUR_MS = 3_600_000


def refused(run: Any, name: str) -> dict[str, int]:
    """What a part shows in feed.json of what it refused."""
    return run.part(name).get("refused", {})


@pytest.mark.parametrize(("field", "value", "reason"), [("4", "NaN", "no number"), ("0", None, "a field is missing")])
def test_a_malformed_row_is_asked_for_again_and_the_candle_is_not_missing(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture, field: str, value: object, reason: str
) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            await run.landed(ETH_1M, 7)
            # The first row is the candle that the socket did not tell; the next ones stand behind it.
            spoiled = run.venue.faults.add("answer", path="/api/v3/klines", name=f"0.{field}", value=value, count=3)
            run.venue.faults.add("gap", stream=KLINES, candles=2, where="stream")
            await run.until(lambda: spoiled.fired == 3)
            await run.landed(ETH_1M, 4)
            run.assert_whole(ETH_1M)
            assert run.part(CANDLES)["missing"] == 0
            await run.until(lambda: refused(run, CANDLES).get(reason, 0) >= 3)

    asyncio.run(scene())
    told = [message for message in caplog.messages if f"refused ({reason}: " in message]
    assert told
    assert all(message.startswith(f"{CANDLES} [2024-") for message in told)  # stream and window


def test_a_row_that_stays_malformed_is_missing_after_some_answers_and_the_log_says_why(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            await run.landed(ETH_1M, 7)
            before = run.candles(ETH_1M)[-1]["open_time_ms"]
            run.venue.faults.add("answer", path="/api/v3/klines", name="0.4", value="NaN", count=0)
            run.venue.faults.add("drop", stream=KLINES, only="closing")
            [gone] = await run.until(lambda: _gone(run, before))
            run.venue.faults.remove()
            await run.landed(ETH_1M, 3)
            run.assert_whole(ETH_1M, missing={gone})

    asyncio.run(scene())
    [told] = [message for message in caplog.messages if "1 candles are missing" in message]
    assert told.startswith(f"{CANDLES} [2024-")
    assert f"asked for {FRUITLESS} times, some of it malformed" in told


def _gone(run: Any, before_ms: int) -> set[int]:
    """Open times that were passed over since."""
    opens = [row["open_time_ms"] for row in run.candles(ETH_1M) if row["open_time_ms"] >= before_ms]
    return set(range(before_ms, opens[-1], 60_000)) - set(opens)


NO_LISTS = [{"code": 0, "msg": "soon"}, None, "soon", [None], ["soon", 5], 7, [[]]]


@pytest.mark.parametrize("value", NO_LISTS, ids=str)
def test_candles_that_are_no_list_are_refused_and_asked_for_again(live: Callable[..., Any], value: object) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            spoiled = run.venue.faults.add("answer", path="/api/v3/klines", value=value, count=2)
            run.venue.faults.add("gap", stream=KLINES, candles=2, where="stream")
            await run.until(lambda: spoiled.fired == 2)
            await run.landed(ETH_1M, 4)
            run.assert_whole(ETH_1M)
            await run.until(lambda: sum(refused(run, CANDLES).values()) >= 2)
            assert run.part(CANDLES)["missing"] == 0

    asyncio.run(scene())


ROWS = [{"id": 1}, [], None, {"id": None, "time": "now", "price": None, "qty": [], "isBuyerMaker": 3}]


@pytest.mark.parametrize("value", [*NO_LISTS, *([row] for row in ROWS)], ids=str)
def test_trades_that_cannot_be_read_are_refused_and_asked_for_again(live: Callable[..., Any], value: object) -> None:
    async def scene() -> None:
        async with live(speed=10.0) as run:
            await run.connected(TRADES)
            spoiled = run.venue.faults.add("answer", path="/api/v3/trades", value=value, count=2)
            run.venue.faults.add("answer", path="/api/v3/aggTrades", value=value, count=2)
            run.venue.faults.add("drop", stream="ethusdt@trade", count=3)
            await run.until(lambda: spoiled.fired == 2)
            await run.until(lambda: run.part(TRADES)["filled"] == 3)
            assert run.part(TRADES)["missing"] == 0
            await run.until(lambda: sum(refused(run, TRADES).values()) >= 1)

    asyncio.run(scene())


@pytest.mark.parametrize("value", [None, "soon", [1], {"serverTime": None}, {"serverTime": 5}], ids=str)
@pytest.mark.parametrize("path", ["/api/v3/time", "/api/v3/exchangeInfo"])
def test_a_venue_that_answers_nonsense_at_the_start_is_asked_until_it_makes_sense(
    live: Callable[..., Any], path: str, value: object
) -> None:
    async def scene() -> None:
        async with live(is_started=False) as run:
            run.venue.faults.add("answer", path=path, value=value, count=2)
            run.start()
            await run.landed(ETH_1M, 2)
            run.assert_whole(ETH_1M)

    asyncio.run(scene())


def offset(run: Any) -> float:
    """Milliseconds by which the feed's clock is ahead of the venue's, as it was when the heartbeat was written."""
    beat = run.beat()
    return beat["venue_ms"] - run.venue.clock.now_ms()


def test_one_wrong_answer_about_the_time_is_not_believed_and_a_lasting_jump_is_followed(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live(is_started=False, speed=1.0, timeframes=("1s",)) as run:
            wrong = run.venue.faults.add("answer", path="/api/v3/time", name="serverTime", value=CALM_MS + HOUR_MS)
            run.start()
            await run.connected(f"{ETH_1S} candles")
            assert wrong.fired == 1
            assert abs(offset(run)) < 60_000
            run.venue.faults.add("answer", path="/api/v3/time", name="serverTime", value=CALM_MS + HOUR_MS)
            await lost(run)
            await run.until(lambda: not run.venue.faults.armed)
            await run.landed(ETH_1S, 2)
            assert abs(offset(run)) < 60_000
            run.venue.faults.add("skew", ms=90_000)
            await lost(run)
            await run.until(lambda: offset(run) > 60_000)
            await run.landed(ETH_1S, 3)
            run.assert_whole(ETH_1S)

    asyncio.run(scene())
    assert any("asked once more" in message for message in caplog.messages)


CALM_MS = 1_709_424_000_000  # where the venue begins


async def lost(run: Any) -> None:
    """Ends a socket, after which the feed looks at the clocks again."""
    count = run.part(f"{ETH_1S} candles")["reconnects"]
    run.venue.faults.add("close", stream="ethusdt@kline_1s")
    await run.until(lambda: run.part(f"{ETH_1S} candles")["reconnects"] > count)


def test_a_book_that_is_ahead_of_the_clock_makes_no_second_of_the_future(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(speed=2.0, books=True, timeframes=("1s",)) as run:
            await run.until(lambda: len(run.rows("order_book")) > 3)
            for ahead_ms in (3000, 9000):  # 1.5 s of ours are believed, and end no second before its time
                event_ms = run.venue.clock.now_ms() + ahead_ms
                run.venue.faults.add("field", stream="ethusdt@depth@100ms", name="E", value=event_ms)
                await run.until(lambda: not run.venue.faults.armed)
                count = len(run.rows("order_book"))
                for _ in range(50):
                    now_ms = run.venue.clock.now_ms()
                    rows = run.rows("order_book")
                    assert all(row["second_ms"] + 1000 <= now_ms + 500 for row in rows), ahead_ms
                    await asyncio.sleep(0.02)
                await run.until(lambda count=count: len(run.rows("order_book")) > count + 8)
            await run.until(lambda: refused(run, BOOK).get("from the future"))

    asyncio.run(scene())


def test_seconds_without_a_living_book_are_counted(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        settings = {"speed": 5.0, "books": True, "timeframes": ("1s",)}
        async with live(**settings, book_age_seconds=2.0, silent_seconds=600.0) as run:
            await run.until(lambda: len(run.rows("order_book")) > 3)
            run.venue.faults.add("half_open", stream="ethusdt@depth@100ms")
            await run.until(lambda: refused(run, BOOK).get("stale", 0) >= 3)

    asyncio.run(scene())


def test_a_silent_stream_whose_venue_has_no_candles_keeps_its_socket(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live(speed=20.0, silent_seconds=1.0) as run:
            await run.connected(CANDLES, TRADES)
            run.venue.faults.add("gap", stream=KLINES, candles=3)
            await run.until(lambda: run.part(CANDLES)["missing"] == 3)
            await run.connected(CANDLES)
            assert run.part(CANDLES)["reconnects"] == 0
            run.venue.faults.add("gap", stream=KLINES, candles=3, where="stream")  # now it has some
            await run.until(lambda: run.part(CANDLES)["reconnects"])
            await run.connected(CANDLES)

    caplog.set_level(logging.INFO)
    asyncio.run(scene())
    assert any("and so is the venue" in message for message in caplog.messages)


def test_a_silent_stream_whose_venue_has_no_candles_is_well(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live(speed=60.0, silent_seconds=1.0) as run:
            await run.connected(CANDLES)
            armed = run.venue.faults.add("gap", stream=KLINES, candles=5000)
            await run.until(lambda: run.venue.clock.now_ms() > armed.since_ms + 120_000)
            caplog.clear()
            await run.until(lambda: any("and so is the venue" in message for message in caplog.messages))
            told_ms = run.beat()["written_ms"]
            await run.until(
                lambda: run.beat()["written_ms"] > told_ms + 1 and run.part(CANDLES)["state"] == "connected"
            )
            assert run.part(CANDLES)["reconnects"] == 0

    caplog.set_level(logging.INFO)
    asyncio.run(scene())


def test_a_silent_stream_whose_venue_answers_rows_that_cannot_be_read_is_connected_anew(
    live: Callable[..., Any],
) -> None:
    async def scene() -> None:
        async with live(speed=60.0, silent_seconds=1.0) as run:
            await run.connected(CANDLES)
            run.venue.faults.add("answer", path="/api/v3/klines", name="0.4", value="NaN", count=0)
            run.venue.faults.add("gap", stream=KLINES, candles=5000)
            await run.until(lambda: run.part(CANDLES)["reconnects"])

    asyncio.run(scene())


@pytest.mark.parametrize(("name", "value"), [("0", None), ("", {"code": 0})], ids=["a row", "all of it"])
def test_trades_that_cannot_be_read_hold_no_second_back_for_ever(
    live: Callable[..., Any], name: str, value: object
) -> None:
    async def scene() -> None:
        async with live(speed=10.0, timeframes=("1s",)) as run:
            await run.connected(f"{ETH_1S} candles", TRADES)
            await run.landed(ETH_1S, 3)
            run.venue.faults.add("answer", path="/api/v3/aggTrades", name=name, value=value, count=0)
            armed = run.venue.faults.add("gap", stream="ethusdt@kline_1s", candles=12)
            await run.until(lambda: run.candles(ETH_1S)[-1]["open_time_ms"] > armed.since_ms + 14_000)
            await run.until(lambda: sum(refused(run, f"{ETH_1S} candles").values()))

    asyncio.run(scene())


def test_candles_from_the_future_have_the_clock_read_soon(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(speed=1.0, timeframes=("1s",)) as run:
            await run.connected(f"{ETH_1S} candles")
            await run.landed(ETH_1S, 2)
            run.venue.faults.add("skew", ms=90_000)
            # Long before the clock would be read anyway.
            await run.until(lambda: offset(run) > 60_000, seconds=CLOCK_SECONDS / 2)
            await run.landed(ETH_1S, 3)
            assert refused(run, f"{ETH_1S} candles").get("from the future")

    asyncio.run(scene())
