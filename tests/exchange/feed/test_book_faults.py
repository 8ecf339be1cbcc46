"""Order books that break on the way: rows of whole books alone, and none where there is no book."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hindsight.exchange.segments import Row
from hindsight.market.book_rows import book_frame

BOOK, DEPTH = "ETH/USDT order_book", "ethusdt@depth@100ms"
SETTINGS = {"speed": 5.0, "books": True, "timeframes": ("1s",)}


def check(rows: list[Row]) -> None:
    """Rows that the table takes: in order, each second once, none of a crossed book."""
    assert len(book_frame(rows)) == len(rows)
    assert all(earlier["second_ms"] < later["second_ms"] for earlier, later in pairwise(rows))
    for row in rows:
        below, above = row["amounts"][:20], row["amounts"][20:]
        assert sum(filter(None, below)) > 0
        assert sum(filter(None, above)) > 0


async def more_rows(run: Any, more: int) -> list[Row]:
    count = len(run.rows("order_book")) + more
    return await run.until(lambda: len(found := run.rows("order_book")) >= count and found)


def test_a_row_is_the_book_at_the_end_of_its_second(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(**SETTINGS) as run:
            rows = (await more_rows(run, 15))[1:]
            check(rows)
            closes = {row["open_time_ms"]: row["close"] for row in run.candles("simulated ETH/USDT 1s")}
            # The venue's mid is its last trade's price, to half a level.
            near = [abs(row["price"] - closes[row["second_ms"]]) for row in rows if row["second_ms"] in closes]
            assert len(near) > 8
            assert sorted(near)[len(near) // 2] < 0.05
            assert {row["snapshots"] for row in rows} <= set(range(11))
            assert sorted(row["snapshots"] for row in rows)[len(rows) // 2] == 10

    asyncio.run(scene())


# Each costs a snapshot of 5000 levels, which ccxt asks for no more often than every 2.5 seconds.
BROKEN: list[dict[str, Any]] = [
    {"fault": "break_chain"},
    {"fault": "drop"},
    {"fault": "reorder"},
    {"fault": "corrupt"},
    {"fault": "field", "name": "b.0.1", "value": "-3"},
    {"fault": "field", "name": "a.0", "value": "cheap"},
]


def test_a_broken_chain_of_updates_begins_anew_from_a_snapshot(live: Callable[..., Any]) -> None:
    """Trap 21: a gap in the sequence, or an update that cannot be, and the book is asked for again."""

    async def scene() -> None:
        async with live(**SETTINGS) as run:
            await more_rows(run, 3)
            for fault in BROKEN:
                asked = run.venue.requests["/api/v3/depth 200"]
                words = {name: value for name, value in fault.items() if name != "fault"}
                run.venue.faults.add(fault["fault"], stream=DEPTH, **words)
                await run.until(lambda asked=asked: run.venue.requests["/api/v3/depth 200"] > asked)
                await more_rows(run, 3)
            check(run.rows("order_book")[1:])
            await run.connected(BOOK)

    asyncio.run(scene())


def test_a_crossed_book_is_refused_and_counted_until_a_snapshot_uncrosses_it(live: Callable[..., Any]) -> None:
    """Trap 21."""

    async def scene() -> None:
        async with live(**SETTINGS) as run:
            await more_rows(run, 3)
            run.venue.faults.add("cross", stream=DEPTH)
            await run.until(lambda: run.part(BOOK).get("refused", {}).get("crossed"))
            check((await more_rows(run, 10))[1:])

    asyncio.run(scene())


def test_a_dead_book_gives_no_rows_and_its_candles_go_on(live: Callable[..., Any]) -> None:
    """Trap 21: the stream stands still without being closed."""

    async def scene() -> None:
        async with live(**SETTINGS, book_age_seconds=2.0, silent_seconds=600.0) as run:
            await more_rows(run, 3)
            run.venue.faults.add("half_open", stream=DEPTH)
            await run.until(lambda: not run.venue.faults.armed)
            await asyncio.sleep(3)  # 15 of the venue's seconds; seconds are given out 5 later, and land after that
            count = len(run.rows("order_book"))
            await run.landed("simulated ETH/USDT 1s", 8)
            assert len(run.rows("order_book")) == count
            assert run.rows("order_book")[-1]["age_ms"] <= 2000
            check(run.rows("order_book")[1:])

    asyncio.run(scene())


def test_a_book_survives_its_snapshot_being_refused(live: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with live(is_started=False, **SETTINGS) as run:
            run.venue.faults.add("status", path="/api/v3/depth", status=503, count=4)
            run.start()
            check((await more_rows(run, 5))[1:])

    asyncio.run(scene())


def test_the_books_of_several_venues_are_added_up_and_each_may_die_alone(live: Callable[..., Any]) -> None:
    """Trap 21: one venue of two stands still."""
    from hindsight.exchange.venue.server import serve_in_thread
    from hindsight.exchange.venue.simulated_days import simulated_market

    async def scene(other: Any) -> None:
        async with live(
            is_started=False, **SETTINGS, book_venues=("simulated", f"binance@{other.url}"), book_age_seconds=2.0
        ) as run:
            other.clock.start_ms, other.clock.started_at = run.venue.clock.start_ms, run.venue.clock.started_at
            run.start()
            await run.until(lambda: any(row["venues"] == ["simulated", "binance"] for row in run.rows("order_book")))
            both = run.rows("order_book")[-1]
            other.faults.add("half_open", stream=DEPTH)
            await run.until(lambda: run.rows("order_book")[-1]["venues"] == ["simulated"])
            one = run.rows("order_book")[-1]
            assert sum(filter(None, both["amounts"])) > 1.3 * sum(filter(None, one["amounts"]))

    with serve_in_thread(simulated_market(("ETH/USDT",), 7, 0.3), speed=5.0) as other:
        asyncio.run(scene(other))
