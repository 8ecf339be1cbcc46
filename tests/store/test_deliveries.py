"""Candles delivered once, again, corrected, late and out of order."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from hindsight.market.candles import CANDLES
from hindsight.market.streams import Stream, Window
from hindsight.store.deliveries import Written, write_candles
from hindsight.store.market_tables import read_candles, read_revisions
from hindsight.store.warehouse import Warehouse

STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
MINUTE = timedelta(minutes=1)
START = datetime(2024, 1, 31, 23, 58, tzinfo=UTC)
ALWAYS = Window(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC))
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def candle(minute: int, close: float = 100.0, revision: int = 0, known_after: int = 1) -> dict[str, object]:
    """The candle that opens `minute` minutes after START; known `known_after` minutes after it opened."""
    opens = START + minute * MINUTE
    prices = {"open": 100.0, "high": 200.0, "low": 50.0, "close": close, "volume": 1.0}
    return {"open_time": opens, **prices, "revision": revision, "recorded_at": opens + known_after * MINUTE}


def frame(*candles: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(candles), schema=CANDLES).sort("open_time", "revision")


def write(warehouse: Warehouse, *candles: dict[str, object], now: datetime = NOW) -> Written:
    with warehouse.writing() as con:
        return write_candles(con, STREAM, frame(*candles), now)


def current(warehouse: Warehouse) -> pl.DataFrame:
    with warehouse.reading() as con:
        return read_candles(con, STREAM, ALWAYS)


def superseded(warehouse: Warehouse) -> list[tuple[float, int, datetime, datetime]]:
    with warehouse.reading() as con:
        return read_revisions(con, STREAM, ALWAYS).select("close", "revision", "recorded_at", "superseded_at").rows()


def test_candles_are_stored_as_delivered(warehouse: Warehouse):
    written = write(warehouse, candle(0), candle(1, 101.0))
    assert written == Written(inserted=2, revised=0, span=Window(start=START, end=START + 2 * MINUTE))
    assert current(warehouse).equals(frame(candle(0), candle(1, 101.0)))
    assert superseded(warehouse) == []


def test_the_same_delivery_twice_is_once(warehouse: Warehouse):
    write(warehouse, candle(0), candle(1))
    assert write(warehouse, candle(0), candle(1)) == Written(inserted=0, revised=0, span=None)
    assert current(warehouse).height == 2


def test_only_what_is_new_of_an_overlapping_delivery_is_stored(warehouse: Warehouse):
    write(warehouse, candle(0), candle(1))
    written = write(warehouse, candle(1), candle(2))
    assert written == Written(inserted=1, revised=0, span=Window(start=START + 2 * MINUTE, end=START + 3 * MINUTE))
    assert current(warehouse)["open_time"].to_list() == [START, START + MINUTE, START + 2 * MINUTE]


def test_a_correction_moves_what_it_replaces_aside_with_its_interval(warehouse: Warehouse):
    write(warehouse, candle(0), candle(1))
    corrected = candle(0, 105.0, revision=1, known_after=9)
    assert write(warehouse, corrected).revised == 1
    assert current(warehouse).equals(frame(corrected, candle(1)))
    assert superseded(warehouse) == [(100.0, 0, START + MINUTE, START + 9 * MINUTE)]
    assert write(warehouse, corrected) == Written(inserted=0, revised=0, span=None)


def test_the_first_delivery_again_after_a_correction_changes_nothing(warehouse: Warehouse):
    write(warehouse, candle(0))
    write(warehouse, candle(0, 105.0, revision=1, known_after=9))
    assert write(warehouse, candle(0)) == Written(inserted=0, revised=0, span=None)
    assert write(warehouse, candle(0), candle(0, 105.0, revision=1, known_after=9)).revised == 0
    assert current(warehouse)["close"].to_list() == [105.0]
    assert len(superseded(warehouse)) == 1


def test_a_first_delivery_that_contradicts_what_is_stored_is_a_correction_known_from_now(warehouse: Warehouse):
    write(warehouse, candle(0))
    assert write(warehouse, candle(0, 99.0)).revised == 1
    assert current(warehouse).select("close", "revision", "recorded_at").rows() == [(99.0, 1, NOW)]
    assert superseded(warehouse) == [(100.0, 0, START + MINUTE, NOW)]
    assert write(warehouse, candle(0, 99.0), now=NOW + MINUTE).revised == 0


def test_a_clock_that_runs_behind_puts_no_correction_before_what_it_corrects(warehouse: Warehouse):
    write(warehouse, candle(0))
    write(warehouse, candle(0, 99.0), now=START)
    assert superseded(warehouse)[0][3] > superseded(warehouse)[0][2]


def test_a_correction_that_goes_back_to_the_first_values_is_one(warehouse: Warehouse):
    write(warehouse, candle(0))
    write(warehouse, candle(0, 105.0, revision=1, known_after=9))
    assert write(warehouse, candle(0, 100.0, revision=2, known_after=12)).revised == 1
    assert current(warehouse).select("close", "revision").rows() == [(100.0, 2)]
    assert [row[:2] for row in superseded(warehouse)] == [(100.0, 0), (105.0, 1)]


def test_a_correction_that_changes_nothing_is_none(warehouse: Warehouse):
    write(warehouse, candle(0))
    assert write(warehouse, candle(0, revision=1, known_after=9)) == Written(inserted=0, revised=0, span=None)
    assert current(warehouse)["revision"].to_list() == [0]


def test_a_number_that_is_taken_is_not_given_twice(warehouse: Warehouse):
    write(warehouse, candle(0))
    write(warehouse, candle(0, 99.0))  # unannounced: becomes revision 1, known from NOW
    late = {**candle(0, 98.0, revision=1), "recorded_at": NOW + MINUTE}
    write(warehouse, late)
    assert current(warehouse).select("close", "revision").rows() == [(98.0, 2)]
    assert [row[:2] for row in superseded(warehouse)] == [(100.0, 0), (99.0, 1)]


ALL = [
    candle(0),
    candle(1),
    candle(1, 105.0, 1, 5),
    candle(1, 106.0, 2, 8),
    candle(2),
    candle(2, 90.0, 1, 30),
    candle(4),
]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([[each] for each in ALL], id="one by one"),
        pytest.param([ALL[:3], ALL[3:]], id="in two, inside a candle's corrections"),
        pytest.param([ALL[:1], ALL[4:], ALL[1:4]], id="a hole filled later"),
        pytest.param([ALL[:2], [ALL[3]], [ALL[2]], ALL[4:]], id="corrections in the wrong order"),
        pytest.param([ALL, ALL, ALL[2:4]], id="again and again"),
    ],
)
def test_tables_are_the_same_in_whatever_pieces_deliveries_come(warehouse: Warehouse, pieces):
    for piece in pieces:
        write(warehouse, *piece)
    assert current(warehouse).equals(frame(candle(0), candle(1, 106.0, 2, 8), candle(2, 90.0, 1, 30), candle(4)))
    second, third = START + MINUTE, START + 2 * MINUTE
    assert superseded(warehouse) == [
        (100.0, 0, second + MINUTE, second + 5 * MINUTE),
        (105.0, 1, second + 5 * MINUTE, second + 8 * MINUTE),
        (100.0, 0, third + MINUTE, third + 30 * MINUTE),
    ]


def test_the_hole_is_filled_where_only_a_correction_was_stored(warehouse: Warehouse):
    write(warehouse, candle(0), candle(2), candle(1, 105.0, 1, 5))
    assert write(warehouse, candle(1)).revised == 1
    assert current(warehouse)["close"].to_list() == [100.0, 105.0, 100.0]
    assert [row[:2] for row in superseded(warehouse)] == [(100.0, 0)]


def test_a_correction_of_what_lies_before_all_history_is_left_out(warehouse: Warehouse):
    assert write(warehouse, candle(-3, 105.0, 1, 5)) == Written(inserted=0, revised=0, span=None)
    assert write(warehouse, candle(-3, 105.0, 1, 5), candle(0)).inserted == 1
    assert current(warehouse)["open_time"].to_list() == [START]


def test_streams_do_not_touch_each_other(warehouse: Warehouse):
    write(warehouse, candle(0))
    other = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
    with warehouse.writing() as con:
        assert write_candles(con, other, frame(candle(0, 99.0)), NOW).inserted == 1
    assert current(warehouse)["close"].to_list() == [100.0]
