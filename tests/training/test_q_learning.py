"""What experience is worth another look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.training.q_learning import LEAST_PRIORITY, priority


@given(td_error=st.lists(st.floats(allow_nan=True), min_size=1, max_size=20), reward=st.floats(-1e6, 1e6))
def test_priorities_are_bounded_whatever_the_error(td_error: list[float], reward: float):
    found = priority(np.array(td_error), np.full(len(td_error), reward))
    assert ((found >= LEAST_PRIORITY) & (found <= 1)).all()


def test_priority_rises_with_the_size_of_the_error_and_with_profit_and_no_loss_adds_to_it():
    by_error = priority(np.array([0, 0.5, -1, 2, -9, np.inf]), np.zeros(6))
    assert (np.diff(by_error) > 0).all()
    by_profit = priority(np.zeros(5), np.array([-9, 0, 0.5, 1, 9]))
    assert by_profit[0] == by_profit[1] == LEAST_PRIORITY
    assert (np.diff(by_profit[1:]) > 0).all()
    assert by_error[2] == pytest.approx(0.05 + 0.95 * 0.7 / 2), "one unit is half of the most"
    assert by_profit[3] == pytest.approx(0.05 + 0.95 * 0.3 / 2)
    assert priority(np.array([np.nan]), np.zeros(1))[0] == by_error[-1], "unknown is as large as can be"


def test_what_has_no_reward_has_no_priority():
    with pytest.raises(ValueError, match="no usable outcome"):
        priority(np.zeros(2), np.array([0.0, np.nan]))
