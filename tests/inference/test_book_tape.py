"""Stretches of the order book: what had been recorded by an instant, NaN where nothing had, and never an error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.book_tape import BOOK_COLUMN, BOOK_COLUMNS, PRICE, BookTape

FIRST_ROW = 1_700_000_000
NOTHING = np.empty((0, len(BOOK_COLUMNS)), np.float32)


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 2, (count, len(BOOK_COLUMNS))).astype(np.float32)


def tape_of(rows: np.ndarray) -> BookTape:
    return BookTape(first_row=FIRST_ROW, rows=rows)


def end_of(row: int) -> int:
    """When a row's second ends, in milliseconds; rows are counted from the tape's first."""
    return (FIRST_ROW + row + 1) * 1000


def by_plain_lines(tape: BookTape, made_ms: int, length: int) -> np.ndarray:
    """The stretch by asking for each second whether it is on the tape, has a row, and had ended."""
    seconds = [second for second in range(made_ms // 1000 - length - 1, made_ms // 1000 + 2)]
    ended = [second for second in seconds if (second + 1) * 1000 <= made_ms][-length:]
    stretch = np.full((length, len(BOOK_COLUMNS)), np.nan, np.float32)
    for place, second in enumerate(ended):
        if tape.first_row <= second < tape.end_row and tape.rows[second - tape.first_row, PRICE] > 0:
            stretch[place] = tape.rows[second - tape.first_row]
    return stretch


def test_the_columns_are_the_buckets_the_imbalances_and_the_price():
    assert BOOK_COLUMNS[:40] == tuple(f"amount_{bucket:02d}" for bucket in range(40))
    assert BOOK_COLUMNS[40:] == ("imbalance", "imbalance_5", "imbalance_15", "imbalance_60", "price")
    assert [BOOK_COLUMN[name] for name in BOOK_COLUMNS] == list(range(45))


@given(
    st.integers(0, 40),
    st.integers(1, 30),
    st.lists(st.integers(end_of(-80), end_of(80)), max_size=12),
    st.sets(st.integers(0, 39)),
    st.sets(st.integers(0, 39)),
)
def test_a_stretch_is_what_plain_lines_find(count, length, made_ms, holes, unknown):
    rows = rows_of(count)
    rows[[row for row in unknown if row < count], 3] = np.nan
    rows[[row for row in holes if row < count]] = 0
    stretches = tape_of(rows).gather(np.array(made_ms, np.int64), length)
    assert stretches.dtype == np.float32
    assert stretches.shape == (len(made_ms), length, len(BOOK_COLUMNS))
    for stretch, made in zip(stretches, made_ms, strict=True):
        np.testing.assert_array_equal(stretch, by_plain_lines(tape_of(rows), made, length))


def test_a_second_is_seen_from_its_end_on_and_not_a_millisecond_before():
    """Trap 24."""
    rows = rows_of(100)
    made_ms = np.array([end_of(59) - 1, end_of(59), end_of(59) + 999, end_of(60)])
    stretches = tape_of(rows).gather(made_ms, 30)
    np.testing.assert_array_equal(stretches, [rows[29:59], rows[30:60], rows[30:60], rows[31:61]])


def test_absurd_values_in_seconds_that_have_not_ended_change_no_byte_of_a_stretch():
    """Trap 3."""
    rows = rows_of(100)
    planted = rows.copy()
    planted[60:] = 1e30
    instants = np.arange(end_of(20), end_of(60), 500)
    assert tape_of(planted).gather(instants, 30).tobytes() == tape_of(rows).gather(instants, 30).tobytes()
    assert tape_of(rows[:60]).gather(instants, 30).tobytes() == tape_of(rows).gather(instants, 30).tobytes()
    later = np.array([end_of(60)])
    assert tape_of(planted).gather(later, 30).tobytes() != tape_of(rows).gather(later, 30).tobytes()


@pytest.mark.parametrize(
    ("last", "recorded"),
    [
        pytest.param(49, slice(0, 30), id="the newest there are"),
        pytest.param(52, slice(0, 27), id="three seconds after the last"),
        pytest.param(78, slice(0, 1), id="one second left of it"),
        pytest.param(79, slice(0, 0), id="after the tape"),
        pytest.param(29, slice(0, 30), id="the oldest there are"),
        pytest.param(12, slice(17, 30), id="from before the first"),
        pytest.param(0, slice(29, 30), id="the first second alone"),
        pytest.param(-1, slice(0, 0), id="before the tape"),
        pytest.param(-FIRST_ROW - 1, slice(0, 0), id="in 1970"),
    ],
)
def test_what_lies_beyond_the_tape_is_absent_and_the_rest_is_there(last: int, recorded: slice):
    """Trap 19: absent is NaN, never 0."""
    rows = rows_of(50)
    (stretch,) = tape_of(rows).gather(np.array([end_of(last)]), 30)
    there = np.arange(30)[recorded]
    np.testing.assert_array_equal(stretch[there], rows[there + last - 29])
    assert np.isnan(np.delete(stretch, there, axis=0)).all()


def test_a_tape_shorter_than_a_stretch_and_one_without_rows_fill_what_they_can():
    rows = rows_of(5)
    (stretch,) = tape_of(rows).gather(np.array([end_of(6)]), 30)
    np.testing.assert_array_equal(stretch[23:28], rows)
    assert np.isnan(np.delete(stretch, slice(23, 28), axis=0)).all()
    assert np.isnan(tape_of(NOTHING).gather(np.array([end_of(6), end_of(-6)]), 30)).all()
    assert tape_of(rows).gather(np.empty(0, np.int64), 30).shape == (0, 30, len(BOOK_COLUMNS))


def test_an_unknown_bucket_is_unknown_in_its_place_alone_and_an_empty_one_stays_empty():
    rows = rows_of(40)
    rows[35, BOOK_COLUMN["amount_00"]] = np.nan
    rows[35, BOOK_COLUMN["amount_01"]] = 0
    (stretch,) = tape_of(rows).gather(np.array([end_of(39)]), 10)
    np.testing.assert_array_equal(stretch, rows[30:])


def test_a_stretch_is_a_copy_of_which_the_tape_knows_nothing():
    tape = tape_of(rows_of(50))
    before = tape.rows.copy()
    for stretches in (tape.gather(np.array([end_of(40)]), 10), tape.gather(np.array([end_of(52)]), 10)):
        stretches[:] = 0
    np.testing.assert_array_equal(tape.rows, before)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(np.zeros((5, len(BOOK_COLUMNS)), np.float64), id="float64"),
        pytest.param(np.zeros((5, len(BOOK_COLUMNS) - 1), np.float32), id="a column missing"),
        pytest.param(np.zeros(len(BOOK_COLUMNS), np.float32), id="one row without its axis"),
    ],
)
def test_rows_of_another_kind_are_refused(rows: np.ndarray):
    with pytest.raises(ValueError, match="expected float32"):
        tape_of(rows)
