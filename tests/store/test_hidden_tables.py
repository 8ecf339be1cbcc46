"""Hidden states: what a model knew, to the bit, and only if it was known in time."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from hindsight.inference.shape import Read
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream, Window
from hindsight.store.hidden_tables import append_hidden, read_hidden
from hindsight.store.warehouse import Warehouse

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
DAY = Window(start=START - MINUTE, end=START + timedelta(days=1))
ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="simulated", symbol="BTC/USDT", timeframe="1m")


def closes(*minutes: int) -> pl.Series:
    return pl.Series([START + minute * MINUTE for minute in minutes], dtype=TIME)


def states_of(count: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float16)


def write(
    warehouse: Warehouse,
    minutes: tuple[int, ...],
    states: np.ndarray,
    now: datetime | None = None,
    passed: datetime | None = None,
    model: str = "cnn",
    stream: Stream = ETH,
) -> None:
    with warehouse.writing() as con:
        append_hidden(con, model, stream, closes(*minutes), states, now, passed)


def read(
    warehouse: Warehouse,
    window: Window = DAY,
    *,
    width: int = 4,
    deadline: timedelta = 5 * SECOND,
    model: str = "cnn",
    stream: Stream = ETH,
) -> dict[int, np.ndarray]:
    """States by the minute of their close."""
    with warehouse.reading() as con:
        asked = Read(model=model, width=width, deadline_ms=deadline // timedelta(milliseconds=1))
        found = read_hidden(con, asked, stream, window)
    assert found["made_at"].is_sorted()
    return {
        (made_at - START) // MINUTE: np.frombuffer(state, np.float16)
        for made_at, state in found.select("made_at", "state").iter_rows()
    }


def test_a_state_comes_back_to_the_bit(warehouse: Warehouse):
    states = states_of(3)
    states[1] = [65504, -65504, 6e-8, -0.0]  # the largest, the smallest, and nothing with a sign
    write(warehouse, (0, 1, 2), states)
    found = read(warehouse)
    assert list(found) == [0, 1, 2]
    for index, state in found.items():
        assert state.tobytes() == states[index].tobytes()


def test_a_window_holds_the_closes_after_its_start_up_to_its_end(warehouse: Warehouse):
    write(warehouse, (0, 1, 2, 3), states_of(4))
    assert list(read(warehouse, Window(start=START + MINUTE, end=START + 2 * MINUTE))) == [2]
    assert read(warehouse, Window(start=START + 3 * MINUTE, end=START + 9 * MINUTE)) == {}


def test_each_model_of_each_stream_has_its_own(warehouse: Warehouse):
    for seed, (model, stream) in enumerate((("cnn", ETH), ("lstm", ETH), ("cnn", BTC))):
        write(warehouse, (0,), states_of(1, seed=seed), model=model, stream=stream)
    found = [read(warehouse, model=model, stream=stream)[0] for model, stream in (("cnn", ETH), ("lstm", ETH))]
    np.testing.assert_array_equal(found, [states_of(1, seed=seed)[0] for seed in (0, 1)])
    assert read(warehouse, model="lstm", stream=BTC) == {}


@pytest.mark.parametrize(
    ("after", "is_read"),
    [
        pytest.param(timedelta(0), True, id="at the close"),
        pytest.param(5 * SECOND, True, id="at the deadline"),
        pytest.param(5 * SECOND + timedelta(microseconds=1), False, id="a microsecond later"),
        pytest.param(timedelta(days=30), False, id="a month later"),
    ],
)
def test_a_state_that_came_after_the_deadline_is_not_there_for_those_who_read_it(
    warehouse: Warehouse, after: timedelta, is_read: bool
):
    """Trap 30: whoever looks later must see what could have been seen then, and no more."""
    passed = START + 3 * MINUTE if after >= MINUTE else None  # its readers have gone on, a candle later
    write(warehouse, (3,), states_of(1), now=START + 3 * MINUTE + after, passed=passed)
    assert bool(read(warehouse)) == is_read
    assert read(warehouse, deadline=timedelta(days=31)) != {}


def test_of_what_is_stored_at_once_each_close_has_its_own_delay(warehouse: Warehouse):
    """A live call that makes up for four closes, of which readers went past the first two."""
    now, passed = START + 3 * MINUTE + 2 * SECOND, START + MINUTE
    write(warehouse, (0, 1, 2, 3), states_of(4), now=now, passed=passed)
    assert list(read(warehouse)) == [2, 3]
    assert list(read(warehouse, deadline=timedelta(0))) == [2]  # as a backfill has it: its target had closed
    assert list(read(warehouse, deadline=122 * SECOND)) == [1, 2, 3]


def test_who_fills_in_what_readers_did_without_does_not_change_what_they_saw(warehouse: Warehouse):
    """Trap 32: a backfill of a model that had failed, after those that read it went on."""
    write(warehouse, (0, 1, 2), states_of(3), passed=START + MINUTE)
    assert list(read(warehouse)) == [2]


def test_in_a_backfill_a_state_is_known_at_its_close(warehouse: Warehouse):
    write(warehouse, (0, 1, 2), states_of(3))
    assert list(read(warehouse, deadline=timedelta(0))) == [0, 1, 2]


def test_a_clock_that_is_behind_makes_nothing_known_before_its_close(warehouse: Warehouse):
    """Trap 12."""
    write(warehouse, (1,), states_of(1), now=START + MINUTE - 3 * SECOND)
    with warehouse.reading() as con:
        ((known,),) = con.execute("select available_at from hidden_states").fetchall()
    assert known == START + MINUTE


def test_a_state_of_another_width_is_of_another_model_and_is_left_out(warehouse: Warehouse):
    """Trap 29: the model that is read may have been changed since."""
    write(warehouse, (0,), states_of(1, width=8))
    write(warehouse, (1,), states_of(1, width=4))
    assert list(read(warehouse, width=4)) == [1]
    assert list(read(warehouse, width=8)) == [0]


def test_no_states_write_nothing(warehouse: Warehouse):
    write(warehouse, (), states_of(0))
    assert read(warehouse) == {}
