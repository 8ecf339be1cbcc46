"""Candles in segments that were set aside: told from what landed around them, fetched once more, known from then on."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Times
from hindsight.exchange.feed.refused import Landed, RefusedSegments, held
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row, Segment
from hindsight.ingest import ingest
from hindsight.market.streams import Stream, from_ms
from hindsight.store.warehouse import Warehouse

ETH_1M = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
ETH_4H = Stream(venue="simulated", symbol="ETH/USDT", timeframe="4h")
CANDLES = f"{ETH_1M} candles"
NOW = 1_717_200_000_000  # midnight
MINUTE, HOUR = 60_000, 3_600_000


def candle(number: int, stream: Stream = ETH_1M, **changed: object) -> Row:
    row = {"stream": str(stream), "open_time_ms": NOW + stream.step_ms * number, "open": 1.5, "high": 2.0, "low": 1.0}
    return {**row, "close": 1.25, "volume": 3.0, "known_ms": None, "closed_by": "flag", **changed}


def name(venue_ms: int) -> str:
    return f"{venue_ms:015d}-000000-candles.jsonl"


class Asked:
    """Writes down what it is asked for again, and has it until it is told otherwise."""

    def __init__(self) -> None:
        self.opens: list[int] = []
        self.is_open = True

    def ask_again(self, opens: Iterable[int]) -> list[int]:
        self.opens += opens
        return list(self.opens)

    def is_asking_again(self, opens: Iterable[int]) -> bool:
        return self.is_open and bool(list(opens))


def watched(landing: Landing) -> tuple[RefusedSegments, Asked]:
    times, asked = Times(lambda: 0.0, lambda: NOW, Random(0)), Asked()
    outbox = Outbox(landing, VenueClock(times.monotonic), times)
    return RefusedSegments(landing, outbox, {ETH_1M: asked}), asked  # type: ignore[dict-item]


def look(refused: RefusedSegments) -> None:
    asyncio.run(refused.look())


def land(landing: Landing, *rows: Row) -> Path:
    """Lands candles as they close."""
    closes = max(row["known_ms"] or row["open_time_ms"] + MINUTE for row in rows)
    return landing.write("candles", list(rows), closes, closes)


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "home" / "landing")


FIRSTS = [Landed(name(NOW + MINUTE * number), NOW + MINUTE * (number - 1), True) for number in range(10)]
OTHERS = [row for row in FIRSTS if row.name != name(NOW + 5 * MINUTE)]


@pytest.mark.parametrize(
    ("refused_ms", "stream", "landed", "opens"),
    [
        pytest.param(NOW + 5 * MINUTE, ETH_1M, OTHERS, [NOW + 4 * MINUTE], id="between what landed around it"),
        pytest.param(NOW + 5 * MINUTE, ETH_1M, FIRSTS, [], id="nothing is lost"),
        pytest.param(
            NOW + 5 * MINUTE, ETH_1M, [*OTHERS, Landed(name(NOW + HOUR), NOW + 4 * MINUTE, False)], [], id="landed late"
        ),
        pytest.param(
            NOW + 11 * MINUTE + 31_234,
            ETH_1M,
            FIRSTS,
            [NOW + 9 * MINUTE, NOW + 10 * MINUTE],
            id="the last one, none that had not closed",
        ),
        pytest.param(
            NOW + 5 * MINUTE,
            ETH_1M,
            [*OTHERS[:4], *OTHERS[5:]],
            [NOW + 3 * MINUTE, NOW + 4 * MINUTE],
            id="two in a row",
        ),
        pytest.param(NOW + 5 * MINUTE, ETH_4H, [], [], id="nothing known from before, and none that had just closed"),
        pytest.param(NOW + 300, ETH_4H, [], [NOW - 4 * HOUR], id="nothing known from before, and one had just closed"),
        pytest.param(
            NOW + 300, ETH_4H, [Landed(name(NOW + 200), NOW - 4 * HOUR, True)], [], id="in the segment before it"
        ),
        pytest.param(
            NOW + 300, ETH_4H, [Landed(name(NOW + 900), NOW - 4 * HOUR, False)], [], id="just closed, landed late"
        ),
    ],
)
def test_what_a_segment_held_follows_from_what_landed_around_it(
    refused_ms: int, stream: Stream, landed: list[Landed], opens: list[int]
) -> None:
    assert held(name(refused_ms), stream, landed) == opens


def test_a_segment_is_asked_for_once_and_marked_once_it_has_landed(
    landing: Landing, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [land(landing, candle(number)) for number in range(4)]
    landing.refuse(paths[2], "for the test")
    refused, asked = watched(landing)
    mark = landing.refused / f"{paths[2].name}.asked"
    for _ in range(2):
        look(refused)
        assert asked.opens == [candle(2)["open_time_ms"]]
        assert not mark.exists()  # a feed that is killed now leaves the question to the next one
    asked.is_open = False
    look(refused)
    assert mark.exists()
    again, nothing = watched(landing)
    look(again)
    assert nothing.opens == []
    [told] = [each for each in caplog.messages if "corrections in it" in each]
    assert paths[2].name in told


def test_a_mark_that_cannot_be_made_is_no_reason_to_ask_again(landing: Landing) -> None:
    paths = [land(landing, candle(number)) for number in range(4)]
    landing.refuse(paths[2], "for the test")
    (landing.refused / f"{paths[2].name}.asked").symlink_to(landing.folder / "nowhere" / "at all")
    refused, asked = watched(landing)
    asked.is_open = False
    for _ in range(3):
        look(refused)
    assert asked.opens == [candle(2)["open_time_ms"]]


def test_a_file_of_another_name_is_none_of_the_segments(landing: Landing) -> None:
    paths = [land(landing, candle(number)) for number in range(4)]
    landing.refuse(paths[2], "for the test")
    (landing.refused / paths[2].name).rename(landing.refused / f"repaired-{paths[2].name}")
    refused, asked = watched(landing)
    look(refused)
    assert asked.opens == []


class Counted(Landing):
    """Counts the segments that it reads."""

    reads = 0

    def read(self, path: Path) -> Segment:
        Counted.reads += 1
        return super().read(path)


def test_however_many_segments_were_refused_what_landed_is_read_once(landing: Landing) -> None:
    paths = [land(landing, candle(number)) for number in range(30)]
    for path in paths[10:20]:
        landing.refuse(path, "for the test")
    refused, asked = watched(Counted(landing.folder))
    Counted.reads = 0
    look(refused)
    assert set(asked.opens) == {candle(number)["open_time_ms"] for number in range(10, 20)}
    assert Counted.reads <= 20


def test_candles_that_were_set_aside_and_fetched_again_are_in_the_tables_once_known_late(
    venue_home: Any, landing: Landing, table: Callable
) -> None:
    settings = venue_home.model_copy(update={"home": landing.folder.parent})
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5)
    land(landing, *(candle(number) for number in range(20)))
    torn = land(landing, *(candle(number) for number in range(20, 25)))
    land(landing, *(candle(number) for number in range(25, 30)))
    torn.write_bytes(torn.read_bytes()[:-20])
    known = from_ms(NOW) + timedelta(minutes=31, milliseconds=300)

    def take_up() -> list[str]:
        return ingest(warehouse, Landing(landing.folder), lambda: known, max_gap=3).set_aside

    assert len(take_up()) == 1
    assert len(table(settings, "candles", "open_time")) == 25
    refused, asked = watched(landing)
    look(refused)
    assert asked.opens == [candle(number)["open_time_ms"] for number in range(20, 25)]
    known_ms = NOW + 31 * MINUTE + 300
    land(landing, *(candle(number, known_ms=known_ms, closed_by="rest") for number in range(20, 25)))
    assert take_up() == []
    rows = table(settings, "candles", "open_time").to_dicts()
    assert [row["open_time"] for row in rows] == [from_ms(NOW + MINUTE * number) for number in range(30)]
    assert {row["recorded_at"] for row in rows[20:25]} == {known}


def test_candles_in_a_segment_that_was_set_aside_are_fetched_once_more(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live(timeframes=("1m", "5m")) as run:
            await run.connected(CANDLES)
            await run.landed(str(ETH_1M), 9)
            held_rows = await refuse_one(run)
            await fetched_again(run, held_rows)
            await run.until(lambda: run.part(CANDLES)["missing"] == 0)
            await run.until(lambda: list(run.landing.refused.glob("*.asked")))

    asyncio.run(scene())
    assert any(message.startswith(f"{ETH_1M} [2024-") and "set aside" in message for message in caplog.messages)


def test_a_feed_that_ends_before_it_could_ask_leaves_that_to_the_next_one(
    live: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with live() as run:
            await run.connected(CANDLES)
            await run.landed(str(ETH_1M), 9)
            run.venue.faults.add("status", path="/api/v3/klines", count=0)
            held_rows = await refuse_one(run)
            await run.until(lambda: any("asked for again" in message for message in caplog.messages))
            await run.end()
            assert not list(run.landing.refused.glob("*.asked"))
            run.venue.faults.remove()
            run.start()
            await fetched_again(run, held_rows)
            await run.until(lambda: list(run.landing.refused.glob("*.asked")))

    caplog.set_level(logging.WARNING)
    asyncio.run(scene())


async def refuse_one(run: Any) -> list[Row]:
    """Sets a segment with candles of a minute aside; its rows of them."""

    def found() -> list[tuple[Path, list[Row]]]:
        paths = [each for each in run.landing.segments() if "candles" in each.name]
        rows = [(path, [row for row in run.landing.read(path).rows if row["stream"] == str(ETH_1M)]) for path in paths]
        return [each for each in rows if each[1]]

    path, rows = (await run.until(found))[0]
    run.landing.refuse(path, "for the test")
    return rows


async def fetched_again(run: Any, lost: list[Row]) -> None:
    """Waits until what was lost has landed again, known from then on."""
    opens = {row["open_time_ms"] for row in lost}
    await run.until(lambda: opens <= {row["open_time_ms"] for row in run.candles(str(ETH_1M))})
    rows = {row["open_time_ms"]: row for row in run.candles(str(ETH_1M))}
    for row in lost:
        late = rows[row["open_time_ms"]]
        assert late["known_ms"] > row["open_time_ms"] + MINUTE
        assert late["close"] == row["close"]
