"""The newest pivots of each type at a close: never one before it was confirmed, the newest first."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.frames import COLUMN, PIVOT_TYPES
from hindsight.inference.pivot_history import PIVOT_COLUMNS, PivotHistory
from hindsight.market.candles import TIME
from hindsight.market.pivots import PivotState, advance
from hindsight.market.streams import from_ms

FIRST_ROW = 28_000_000
STEP_MS = 60_000
STEP = timedelta(milliseconds=STEP_MS)
AGE, PRICE, STRENGTH, AT_PIVOT, AT_CONFIRMATION = range(5)


def opens(row: int) -> int:
    return (FIRST_ROW + row) * STEP_MS


def pivots_of(*found: tuple[str, int, int, float]) -> pl.DataFrame:
    """Pivots by type, row of the pivot, row that confirmed it, and price; rows are counted from FIRST_ROW."""
    rows = [
        (pivot_type, from_ms(opens(at)), from_ms(opens(by + 1)), price, price / 1000)
        for pivot_type, at, by, price in found
    ]
    schema = {"pivot_type": pl.String, "pivot_time": TIME, "confirmed_at": TIME, "price": pl.Float64}
    return pl.DataFrame(rows, schema={**schema, "strength": pl.Float64}, orient="row")


def by_plain_lines(pivots: pl.DataFrame, last_row: int, count: int) -> np.ndarray:
    """What is known at the close of `last_row`, by walking through all pivots."""
    found = np.full((len(PIVOT_TYPES), count, len(PIVOT_COLUMNS)), np.nan, np.float32)
    close = from_ms((last_row + 1) * STEP_MS)
    for place, pivot_type in enumerate(PIVOT_TYPES):
        of_type = [row for row in pivots.iter_rows(named=True) if row["pivot_type"] == pivot_type]
        known = [row for row in of_type if row["confirmed_at"] <= close]
        for back, row in enumerate(known[::-1][:count]):
            age = (close - STEP - row["pivot_time"]) // STEP
            beside = [row.get(name) for name in PIVOT_COLUMNS[3:]]
            found[place, back] = [age, row["price"], row["strength"], *(np.nan if x is None else x for x in beside)]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_pivot_enters_at_its_confirmation_whatever_is_confirmed_later(walk, seed: int):
    """Trap 1: at every close what is known is what the pivots of the candles up to then give, and nothing else."""
    rows, pivots = walk(400, seed, missing=0.02)
    closes = FIRST_ROW + np.arange(-2, len(rows))
    whole = PivotHistory.of(pivots, None, STEP_MS).gather(closes, 4)
    for row, found in zip(closes.tolist(), whole, strict=True):
        np.testing.assert_array_equal(found, by_plain_lines(pivots, row, 4))
        known = pivots.filter(pl.col("confirmed_at") <= from_ms((row + 1) * STEP_MS))
        prefix = PivotHistory.of(known, None, STEP_MS)
        np.testing.assert_array_equal(prefix.gather(np.array([row]), 4)[0], found)
    assert np.isfinite(whole[-1, :4, :, :3]).all()


def test_the_first_candles_give_the_first_rows_of_the_whole(walk):
    """Trap 1, by the other road: the pivots of the candles up to a close, found anew."""
    rows, pivots = walk(300, 5)
    prices = {name: rows[:, COLUMN[name]].astype(float) for name in ("open", "high", "low", "close")}
    open_times = pl.Series([from_ms(opens(row)) for row in range(len(rows))], dtype=TIME)
    candles = pl.DataFrame({"open_time": open_times, **prices, "atr_14": np.ones(len(rows))})
    whole = PivotHistory.of(pivots, None, STEP_MS)
    for length in range(1, 301):
        _, found = advance(PivotState.initial(), candles[:length], STEP, max_gap=3)
        last = np.array([FIRST_ROW + length - 1])
        prefix = PivotHistory.of(found, None, STEP_MS).gather(last, 3)
        np.testing.assert_array_equal(prefix, whole.gather(last, 3))


@given(
    st.lists(
        st.tuples(st.sampled_from([*PIVOT_TYPES, "L6H"]), st.integers(0, 30), st.integers(1, 9), st.integers(1, 99)),
        max_size=25,
    ),
    st.lists(st.integers(-3, 45), max_size=8),
    st.integers(1, 5),
)
def test_any_history_gives_what_plain_lines_find(found, closes, count):
    pivots = pivots_of(*((pivot_type, at, at + lag, price) for pivot_type, at, lag, price in found))
    pivots = pivots.sort("confirmed_at", maintain_order=True)
    last_rows = FIRST_ROW + np.array(closes, np.int64)
    newest = PivotHistory.of(pivots, None, STEP_MS).gather(last_rows, count)
    assert newest.dtype == np.float32
    assert newest.shape == (len(closes), len(PIVOT_TYPES), count, len(PIVOT_COLUMNS))
    for row, each in zip(last_rows.tolist(), newest, strict=True):
        np.testing.assert_array_equal(each, by_plain_lines(pivots, row, count))


def test_the_newest_comes_first_with_its_age_in_candles():
    pivots = pivots_of(("L2H", 3, 9, 100), ("L2L", 5, 11, 90), ("L2H", 12, 15, 110), ("L2H", 14, 20, 105))
    history = PivotHistory.of(pivots, None, STEP_MS)
    before, at, later = history.gather(FIRST_ROW + np.array([14, 15, 30]), 2)[:, PIVOT_TYPES.index("L2H")]
    np.testing.assert_array_equal(before[:, :3], np.array([[11, 100, 0.1], [np.nan] * 3], np.float32))
    np.testing.assert_array_equal(at[:, :3], np.array([[3, 110, 0.11], [12, 100, 0.1]], np.float32))
    np.testing.assert_array_equal(later[:, :3], np.array([[16, 105, 0.105], [18, 110, 0.11]], np.float32))


def test_a_confirmation_between_two_closes_is_known_at_the_second():
    pivots = pivots_of(("L1H", 3, 4, 100)).with_columns(pl.col("confirmed_at") + timedelta(milliseconds=1))
    found = PivotHistory.of(pivots, None, STEP_MS).gather(FIRST_ROW + np.array([4, 5]), 1)
    assert np.isnan(found[0]).all()
    assert found[1, PIVOT_TYPES.index("L1H"), 0, AGE] == 2


def test_the_books_stand_beside_their_pivots_and_nan_where_there_is_none():
    pivots = pivots_of(("L1H", 3, 4, 100), ("L1L", 3, 5, 99), ("L1H", 6, 7, 101), ("L1H", 9, 12, 102))
    beside = {"imbalance_at_pivot": [0.5, None, -0.25], "imbalance_at_confirmation": [0.125, 1.0, None]}
    floats = pl.DataFrame(beside, schema=dict.fromkeys(beside, pl.Float32))
    keys = pivots.select("pivot_type", "pivot_time", "confirmed_at")
    books = pl.concat([keys[[3, 1, 0]], floats], how="horizontal")
    (found,) = PivotHistory.of(pivots, books, STEP_MS).gather(np.array([FIRST_ROW + 20]), 3)
    highs, lows = found[PIVOT_TYPES.index("L1H")], found[PIVOT_TYPES.index("L1L")]
    assert highs[:, PRICE].tolist() == [102, 101, 100]
    assert lows[0, PRICE] == 99
    np.testing.assert_array_equal(highs[:, AT_PIVOT], np.array([0.5, np.nan, -0.25], np.float32))
    np.testing.assert_array_equal(highs[:, AT_CONFIRMATION], np.array([0.125, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(lows[0, AT_PIVOT:], np.array([np.nan, 1.0], np.float32))
    (without,) = PivotHistory.of(pivots, books.clear(), STEP_MS).gather(np.array([FIRST_ROW + 20]), 3)
    np.testing.assert_array_equal(without[:, :, : STRENGTH + 1], found[:, :, : STRENGTH + 1])
    assert np.isnan(without[:, :, AT_PIVOT:]).all()


def test_no_pivots_are_nan_and_no_closes_are_no_rows():
    history = PivotHistory.of(pivots_of(), None, STEP_MS)
    assert np.isnan(history.gather(np.array([FIRST_ROW]), 4)).all()
    assert history.gather(np.empty(0, np.int64), 4).shape == (0, 10, 4, 5)
