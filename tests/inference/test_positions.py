"""Positions: one path through the action values, the same in any pieces, and what experience is worth."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import ModelBroken
from hindsight.inference.positions import (
    FLAT,
    LONG,
    POSITION,
    SHORT,
    Decided,
    hold_along,
)

FIRST_ROW = 28_000_000


def values(count: int, seed: int, silent: float = 0.0) -> np.ndarray:
    """Action values on a coarse grid, so that equal ones are common; some rows say nothing."""
    chance = np.random.default_rng(seed)
    q = chance.integers(-2, 3, (count, 3, 3)).astype(np.float32) / 4
    q[chance.random(count) < silent] = np.nan
    return q


def in_plain_lines(q: np.ndarray, previous: int) -> list[int]:
    actions = []
    for table in q.tolist():
        of_previous = table[previous]
        if of_previous[0] != of_previous[0]:
            action = FLAT
        else:
            best = [action for action in (SHORT, FLAT, LONG) if of_previous[action] == max(of_previous)]
            action = previous if previous in best else FLAT if FLAT in best else best[0]
        actions.append(action)
        previous = action
    return actions


def assert_same(found: Decided, expected: Decided, chosen: slice) -> None:
    for name in Decided.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[chosen], err_msg=name)


# Holding ---------------------------------------------------------------------------------------------------------


def test_a_code_stands_for_its_position():
    assert POSITION[[SHORT, FLAT, LONG]].tolist() == [-1, 0, 1]


def test_a_path_is_followed_from_the_position_held_before():
    enter_long = [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    stay_or_leave = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    turn_around = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    q = np.array([stay_or_leave, enter_long, stay_or_leave, turn_around, turn_around, turn_around], np.float32)
    decided = hold_along(q, first_row=FIRST_ROW)
    assert decided.actions.tolist() == [FLAT, LONG, LONG, SHORT, LONG, SHORT]
    assert decided.previous.tolist() == [FLAT, FLAT, LONG, LONG, SHORT, LONG]
    assert hold_along(q[:1], first_row=FIRST_ROW, previous=SHORT).actions.tolist() == [SHORT]


@given(seed=st.integers(0, 1000), count=st.integers(0, 60), previous=st.sampled_from([SHORT, FLAT, LONG]))
def test_positions_are_those_of_ten_plain_lines(seed: int, count: int, previous: int):
    q = values(count, seed, silent=0.1)
    found = hold_along(q, first_row=FIRST_ROW, previous=previous)
    assert found.actions.tolist() == in_plain_lines(q, previous)
    assert found.previous.tolist() == [previous, *found.actions.tolist()][:count]


@pytest.mark.parametrize(
    ("held", "of_previous", "expected"),
    [
        pytest.param(LONG, [1, 1, 1], LONG, id="all alike: as before"),
        pytest.param(SHORT, [1, 1, 1], SHORT, id="all alike, short: as before"),
        pytest.param(LONG, [0, 1, 1], LONG, id="as before rather than flat"),
        pytest.param(LONG, [1, 1, 0], FLAT, id="flat rather than the other side"),
        pytest.param(FLAT, [1, 0, 1], SHORT, id="two sides from flat: the lower code"),
        pytest.param(SHORT, [0, 1, 1], FLAT, id="flat rather than long"),
        pytest.param(SHORT, [-0.0, -1, 0.0], SHORT, id="both zeros are one"),
    ],
)
def test_of_equal_values_the_position_before_is_kept_then_flat(held: int, of_previous: list[float], expected: int):
    q = np.full((1, 3, 3), -9, np.float32)
    q[0, held] = of_previous
    assert hold_along(q, first_row=0, previous=held).actions.tolist() == [expected]


def test_a_model_that_says_nothing_goes_flat_and_starts_again_from_there():
    stay_or_leave = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    q = np.array([stay_or_leave, np.full((3, 3), np.nan), stay_or_leave], np.float32)
    assert hold_along(q, first_row=FIRST_ROW, previous=LONG).actions.tolist() == [LONG, FLAT, FLAT]
    nothing = hold_along(np.full((50, 3, 3), np.nan), first_row=FIRST_ROW, previous=SHORT)
    assert nothing.actions.tolist() == [FLAT] * 50


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_candle_are_stretches_too(count: int):
    decided = hold_along(values(count, 1), first_row=FIRST_ROW)
    assert len(decided.actions) == len(decided.previous) == count


@given(seed=st.integers(0, 1000), cuts=st.sets(st.integers(1, 119), max_size=20))
def test_any_pieces_are_the_whole(seed: int, cuts: set[int]):
    q = values(120, seed, silent=0.05)
    whole = hold_along(q, first_row=FIRST_ROW, previous=LONG)
    edges, held = [0, *sorted(cuts), 120], LONG
    for start, end in pairwise(edges):
        piece = hold_along(q[start:end], first_row=FIRST_ROW + start, previous=held)
        assert_same(piece, whole, slice(start, end))
        held = int(piece.actions[-1])


def test_what_comes_later_changes_nothing_before():
    q = values(200, 4, silent=0.05)
    whole = hold_along(q, first_row=FIRST_ROW)
    for cut in range(0, 200, 7):
        absurd = q.copy()
        absurd[cut:] = 1e30 * np.arange(9).reshape(3, 3)
        found = hold_along(absurd, first_row=FIRST_ROW)
        assert found.actions[:cut].tolist() == whole.actions[:cut].tolist()


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_values_that_are_none_are_refused_by_their_row(wrong: float):
    q = values(20, 1)
    q[12, 1, 2] = wrong
    with pytest.raises(ModelBroken, match=f"row {FIRST_ROW + 12}"):
        hold_along(q, first_row=FIRST_ROW)


@pytest.mark.parametrize(
    "change",
    [{"q": np.zeros((4, 3))}, {"q": np.zeros((4, 3, 2))}, {"previous": 3}, {"previous": -1}],
)
def test_arguments_that_cannot_be_are_refused(change: dict):
    with pytest.raises(ValueError, match=r"expected .*found"):
        hold_along(**{"q": np.zeros((4, 3, 3)), "first_row": 0} | change)
