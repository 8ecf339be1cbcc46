"""Frames: the rows up to a close as they stood then, and a digest that proves it."""

import numpy as np
import pytest

from hindsight.inference.blocks import digest
from hindsight.inference.frames import COLUMN, COLUMNS, Superseded, Tape, unbroken, warm

FIRST_ROW, STEP_MS = 28_000_000, 60_000


def rows_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(COLUMNS))).astype(np.float32)


def tape_of(rows: np.ndarray, *superseded: Superseded) -> Tape:
    return Tape(step_ms=STEP_MS, first_row=FIRST_ROW, rows=rows, superseded=superseded)


def close_of(row: int) -> int:
    """When the row closes, in milliseconds; rows are counted from the tape's first."""
    return (FIRST_ROW + row + 1) * STEP_MS


def test_absurd_values_in_rows_after_the_cut_change_no_byte_of_a_frame():
    """Trap 3."""
    rows = rows_of(100)
    frame = tape_of(rows).gather(np.array([FIRST_ROW + 59]), 30)[0]
    planted = rows.copy()
    planted[60:] = 1e30
    seen = tape_of(planted).gather(np.array([FIRST_ROW + 59]), 30)[0]
    assert seen.tobytes() == frame.tobytes() == rows[30:60].tobytes()
    assert digest([seen]) == digest([frame])
    assert digest([tape_of(planted).gather(np.array([FIRST_ROW + 60]), 30)[0]]) != digest([frame])


def test_a_frame_is_a_copy_of_which_the_tape_knows_nothing():
    tape = tape_of(rows_of(50))
    frames = tape.gather(np.array([FIRST_ROW + 40, FIRST_ROW + 41]), 10)
    before = tape.rows.copy()
    frames[:] = 0
    np.testing.assert_array_equal(tape.rows, before)


@pytest.mark.parametrize(
    "last_rows",
    [
        pytest.param([FIRST_ROW + 28], id="before the first row"),
        pytest.param([FIRST_ROW + 50], id="after the last row"),
        pytest.param([FIRST_ROW + 40, FIRST_ROW + 28], id="one of two before"),
        pytest.param([0], id="in 1970"),
    ],
)
def test_a_frame_that_reaches_beyond_the_tape_is_an_error_never_padding(last_rows: list[int]):
    """Trap 19."""
    tape = tape_of(rows_of(50))
    with pytest.raises(ValueError, match=r"reach beyond the tape's rows \[28000000, 28000050\)"):
        tape.gather(np.array(last_rows), 30)


def test_frames_at_both_ends_of_the_tape_are_whole():
    rows = rows_of(50)
    frames = tape_of(rows).gather(FIRST_ROW + np.array([29, 49]), 30)
    np.testing.assert_array_equal(frames, [rows[:30], rows[20:]])
    assert tape_of(rows).gather(np.empty(0, np.int64), 30).shape == (0, 30, len(COLUMNS))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(np.zeros((5, len(COLUMNS)), np.float64), id="float64"),
        pytest.param(np.zeros((5, len(COLUMNS) - 1), np.float32), id="a column missing"),
        pytest.param(np.zeros(len(COLUMNS), np.float32), id="one row without its axis"),
    ],
)
def test_rows_of_another_kind_are_refused(rows: np.ndarray):
    with pytest.raises(ValueError, match="expected float32"):
        tape_of(rows)


def test_a_correction_after_the_frame_was_made_does_not_change_it_and_one_before_does():
    """Trap 32: row 40 is corrected while row 45 is forming."""
    rows = rows_of(60)
    old = rows[40:45] + 1  # rows 40..44 as they stood until then
    corrected_at = close_of(45) - 1
    tape = tape_of(rows, Superseded(first_row=FIRST_ROW + 40, rows=old, until_ms=corrected_at))
    for last in range(40, 45):
        frame = tape.gather(np.array([FIRST_ROW + last]), 20)[0]
        np.testing.assert_array_equal(frame, np.concatenate([rows[last - 19 : 40], old[: last - 39]]))
    for last in (39, 45, 59):
        np.testing.assert_array_equal(tape.gather(np.array([FIRST_ROW + last]), 20)[0], rows[last - 19 : last + 1])


def test_a_correction_known_at_the_very_close_is_seen_by_the_frame_made_at_it():
    rows = rows_of(60)
    for until, sees in ((close_of(44), True), (close_of(44) + 1, False)):
        tape = tape_of(rows, Superseded(first_row=FIRST_ROW + 40, rows=rows[40:45] + 1, until_ms=until))
        frame = tape.gather(np.array([FIRST_ROW + 44]), 10)[0]
        assert (frame[-1] == rows[44]).all() == sees


def test_of_two_corrections_each_frame_sees_those_that_were_known_in_whatever_order_they_are_listed():
    rows = rows_of(60)
    # row 40 is corrected after 42 and row 38 after 46; `now` holds both
    first = Superseded(first_row=FIRST_ROW + 40, rows=rows[40:43] + 1, until_ms=close_of(43))
    second = Superseded(first_row=FIRST_ROW + 38, rows=rows[38:47] + 2, until_ms=close_of(47))
    for blocks in ((first, second), (second, first)):
        tape = tape_of(rows, *blocks)
        before, between, after = (tape.gather(np.array([FIRST_ROW + last]), 20)[0] for last in (42, 45, 47))
        np.testing.assert_array_equal(before[-5:], np.concatenate([rows[38:40] + 2, rows[40:43] + 1]))
        np.testing.assert_array_equal(between[-8:], rows[38:46] + 2)
        np.testing.assert_array_equal(after, rows[28:48])
        known = tape.first_known(FIRST_ROW + 38, FIRST_ROW + 50)
        expected = np.concatenate([rows[38:40] + 2, rows[40:43] + 1, rows[43:47] + 2, rows[47:50]])
        np.testing.assert_array_equal(known, expected)


def test_the_digest_of_a_frame_is_the_same_on_every_machine_and_day():
    frame = np.arange(600 * 43, dtype=np.float32).reshape(600, 43)
    assert digest([frame]) == 1932591146738404524
    assert digest([np.asfortranarray(frame)]) == digest([frame[:]]) == digest([frame.astype(">f4")])
    assert digest([frame[:200], frame[200:]]) == digest([frame])


def test_one_changed_bit_anywhere_changes_the_digest():
    frame = rows_of(600)
    for row, column in ((0, 0), (299, 20), (599, len(COLUMNS) - 1)):
        changed = frame.copy()
        changed[row, column] = np.nextafter(changed[row, column], np.float32(np.inf))
        assert digest([changed]) != digest([frame])


def test_an_unbroken_run_starts_anew_after_every_missing_candle():
    """Trap 18."""
    rows = rows_of(8)
    rows[[0, 4, 5]] = np.nan
    assert unbroken(rows).tolist() == [0, 1, 2, 3, 0, 0, 1, 2]
    assert unbroken(rows_of(4)).tolist() == [1, 2, 3, 4]


def test_a_row_is_warm_when_candle_and_indicators_are_there_whether_or_not_pivots_are():
    """Trap 17."""
    rows = rows_of(4)
    rows[0, COLUMN["L5H_price"]] = np.nan
    rows[1, COLUMN["adx_14"]] = np.nan
    rows[2, COLUMN["volume"]] = np.inf
    assert warm(rows).tolist() == [True, False, False, True]
