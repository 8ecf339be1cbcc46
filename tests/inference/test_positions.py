"""Positions: one path through the action values, the same in any pieces, and experience drawn without crowding out."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import ModelBroken, SettingRefused
from hindsight.inference.positions import (
    FLAT,
    LEAST_PRIORITY,
    LONG,
    POSITION,
    SHORT,
    Decided,
    ExperienceRule,
    decide,
    draw_experience,
    n_step,
    priority,
)

FIRST_ROW = 28_000_000
UNBIASED = ExperienceRule(correction=1.0)
RULES = (UNBIASED, ExperienceRule(), ExperienceRule(exponent=1.0))


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


# Deciding --------------------------------------------------------------------------------------------------------


def test_a_code_stands_for_its_position():
    assert POSITION[[SHORT, FLAT, LONG]].tolist() == [-1, 0, 1]


def test_a_path_is_followed_from_the_position_held_before():
    enter_long = [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    stay_or_leave = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    turn_around = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    q = np.array([stay_or_leave, enter_long, stay_or_leave, turn_around, turn_around, turn_around], np.float32)
    decided = decide(q, first_row=FIRST_ROW)
    assert decided.actions.tolist() == [FLAT, LONG, LONG, SHORT, LONG, SHORT]
    assert decided.previous.tolist() == [FLAT, FLAT, LONG, LONG, SHORT, LONG]
    assert decide(q[:1], first_row=FIRST_ROW, previous=SHORT).actions.tolist() == [SHORT]


@given(seed=st.integers(0, 1000), count=st.integers(0, 60), previous=st.sampled_from([SHORT, FLAT, LONG]))
def test_positions_are_those_of_ten_plain_lines(seed: int, count: int, previous: int):
    q = values(count, seed, silent=0.1)
    found = decide(q, first_row=FIRST_ROW, previous=previous)
    assert found.actions.tolist() == in_plain_lines(q, previous)
    assert found.previous.tolist() == [previous, *found.actions.tolist()][:count]
    assert not found.explored.any()


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
    assert decide(q, first_row=0, previous=held).actions.tolist() == [expected]


def test_a_model_that_says_nothing_goes_flat_and_starts_again_from_there():
    stay_or_leave = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    q = np.array([stay_or_leave, np.full((3, 3), np.nan), stay_or_leave], np.float32)
    decided = decide(q, first_row=FIRST_ROW, previous=LONG, epsilon=1.0, seed=3)
    assert decided.explored.tolist() == [True, False, True]
    assert decide(q, first_row=FIRST_ROW, previous=LONG).actions.tolist() == [LONG, FLAT, FLAT]
    nothing = decide(np.full((50, 3, 3), np.nan), first_row=FIRST_ROW, previous=SHORT, epsilon=1.0)
    assert nothing.actions.tolist() == [FLAT] * 50


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_candle_are_stretches_too(count: int):
    decided = decide(values(count, 1), first_row=FIRST_ROW, epsilon=0.5, seed=1)
    assert len(decided.actions) == len(decided.previous) == len(decided.explored) == count


@given(
    seed=st.integers(0, 2**64 - 1),
    cuts=st.sets(st.integers(1, 119), max_size=20),
    epsilon=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_pieces_are_the_whole(seed: int, cuts: set[int], epsilon: float):
    q = values(120, seed % 7, silent=0.05)
    whole = decide(q, first_row=FIRST_ROW, previous=LONG, epsilon=epsilon, seed=seed)
    edges, held = [0, *sorted(cuts), 120], LONG
    for start, end in pairwise(edges):
        piece = decide(q[start:end], first_row=FIRST_ROW + start, previous=held, epsilon=epsilon, seed=seed)
        assert_same(piece, whole, slice(start, end))
        held = int(piece.actions[-1])


def test_what_comes_later_changes_nothing_before():
    q = values(200, 4, silent=0.05)
    whole = decide(q, first_row=FIRST_ROW, epsilon=0.2, seed=9)
    for cut in range(0, 200, 7):
        absurd = q.copy()
        absurd[cut:] = 1e30 * np.arange(9).reshape(3, 3)
        found = decide(absurd, first_row=FIRST_ROW, epsilon=0.2, seed=9)
        assert found.actions[:cut].tolist() == whole.actions[:cut].tolist()


def test_exploring_follows_from_seed_and_row_and_takes_all_three_alike():
    q = np.zeros((30_000, 3, 3), np.float32)
    decided = decide(q, first_row=FIRST_ROW, epsilon=0.1, seed=5)
    assert decided.explored.mean() == pytest.approx(0.1, abs=0.006)
    counts = np.bincount(decided.actions[decided.explored], minlength=3)
    assert counts.min() > 0.9 * counts.mean()
    other = decide(q, first_row=FIRST_ROW, epsilon=0.1, seed=6)
    assert (other.explored != decided.explored).any()
    more = decide(q, first_row=FIRST_ROW, epsilon=0.2, seed=5)
    assert more.explored[decided.explored].all(), "who explores more explores there too"
    first = decide(np.zeros((12, 3, 3)), first_row=100, epsilon=1.0, seed=7)
    assert first.actions.tolist() == [2, 1, 0, 2, 1, 2, 1, 2, 0, 1, 2, 1]


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_values_that_are_none_are_refused_by_their_row(wrong: float):
    q = values(20, 1)
    q[12, 1, 2] = wrong
    with pytest.raises(ModelBroken, match=f"row {FIRST_ROW + 12}"):
        decide(q, first_row=FIRST_ROW)


@pytest.mark.parametrize(
    "change",
    [{"q": np.zeros((4, 3))}, {"q": np.zeros((4, 3, 2))}, {"previous": 3}, {"previous": -1}, {"epsilon": 1.5}],
)
def test_arguments_that_cannot_be_are_refused(change: dict):
    with pytest.raises(ValueError, match=r"expected .*found"):
        decide(**{"q": np.zeros((4, 3, 3)), "first_row": 0} | change)


# Returns over n steps --------------------------------------------------------------------------------------------


def returns_in_plain_lines(rewards, gamma, n, last, valued):
    found = []
    for row in range(len(rewards)):
        total, best = 0.0, (np.nan, -1, 0.0)
        if valued[row] and row + n <= min(last, len(rewards) - 1):
            for ahead in range(n):
                total += gamma**ahead * rewards[row + ahead]
                if np.isnan(total):
                    break
                if valued[row + ahead + 1]:
                    best = (total, row + ahead + 1, gamma ** (ahead + 1))
        found.append(best)
    return found


@given(
    seed=st.integers(0, 1000),
    count=st.integers(0, 30),
    n=st.integers(1, 6),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    last=st.integers(-3, 40),
)
def test_returns_are_those_of_ten_plain_lines(seed: int, count: int, n: int, gamma: float, last: int):
    chance = np.random.default_rng(seed)
    rewards = np.where(chance.random(count) < 0.15, np.nan, chance.normal(size=count))
    valued = chance.random(count) < 0.8
    found = n_step(rewards, gamma, n, first_row=FIRST_ROW, event_row=FIRST_ROW + last, predictable=valued)
    expected = np.array(returns_in_plain_lines(rewards, gamma, n, last, valued)).reshape(-1, 3)
    np.testing.assert_array_equal(np.column_stack([found.total, found.bootstrap, found.discount]), expected)


def test_three_steps_by_hand_with_a_gap():
    rewards = np.array([1.0, 2.0, 4.0, 8.0, np.nan, np.nan, 16.0, 32.0, np.nan])
    found = n_step(rewards, 0.5, 3, first_row=0, event_row=8)
    np.testing.assert_array_equal(found.total, [3.0, 6.0, 8.0, 8.0, np.nan, np.nan, np.nan, np.nan, np.nan])
    assert found.bootstrap.tolist() == [3, 4, 4, 4, -1, -1, -1, -1, -1]
    assert found.discount.tolist() == [0.125, 0.125, 0.25, 0.5, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("n", [1, 3, 5])
def test_only_settled_rewards_are_used_and_a_return_is_final_once_it_is_there(n: int):
    """The reward of a row is known at the next close: absurd rewards that settle later change nothing."""
    chance = np.random.default_rng(2)
    rewards = np.where(chance.random(60) < 0.1, np.nan, chance.normal(size=60))
    whole = n_step(rewards, 0.9, n, first_row=FIRST_ROW, event_row=FIRST_ROW + 59)
    for event in range(60):
        absurd = np.where(np.arange(60) + 1 > event, 1e30, rewards)
        found = n_step(absurd, 0.9, n, first_row=FIRST_ROW, event_row=FIRST_ROW + event)
        there = max(event - n + 1, 0)
        np.testing.assert_array_equal(found.total[:there], whole.total[:there])
        np.testing.assert_array_equal(found.bootstrap[:there], whole.bootstrap[:there])
        assert np.isnan(found.total[there:]).all()
        assert (found.bootstrap <= event).all()


@pytest.mark.parametrize(("gamma", "n"), [(1.1, 1), (-0.1, 1), (0.9, 0), (np.nan, 1)])
def test_returns_that_make_no_sense_are_refused(gamma: float, n: int):
    with pytest.raises(ValueError, match=r"expected .*found"):
        n_step(np.zeros(3), gamma, n, first_row=0, event_row=2)


# Drawing experience again ----------------------------------------------------------------------------------------


@given(
    td_error=st.lists(st.floats(allow_nan=True), min_size=1, max_size=20),
    reward=st.floats(-1e6, 1e6),
    share=st.floats(0, 1),
)
def test_priorities_are_bounded_whatever_the_error(td_error: list[float], reward: float, share: float):
    found = priority(np.array(td_error), np.full(len(td_error), reward), ExperienceRule(profit_share=share))
    assert ((found >= LEAST_PRIORITY) & (found <= 1)).all()


def test_priority_rises_with_the_size_of_the_error_and_with_profit_and_no_loss_adds_to_it():
    rule = ExperienceRule(profit_share=0.3)
    by_error = priority(np.array([0, 0.5, -1, 2, -9, np.inf]), np.zeros(6), rule)
    assert (np.diff(by_error) > 0).all()
    by_profit = priority(np.zeros(5), np.array([-9, 0, 0.5, 1, 9]), rule)
    assert by_profit[0] == by_profit[1] == LEAST_PRIORITY
    assert (np.diff(by_profit[1:]) > 0).all()
    assert by_error[2] == pytest.approx(0.05 + 0.95 * 0.7 / 2), "one unit is half of the most"
    assert by_profit[3] == pytest.approx(0.05 + 0.95 * 0.3 / 2)
    assert priority(np.array([np.nan]), np.zeros(1), rule)[0] == by_error[-1], "unknown is as large as can be"


def test_what_has_no_reward_has_no_priority():
    with pytest.raises(ValueError, match="no usable outcome"):
        priority(np.zeros(2), np.array([0.0, np.nan]), ExperienceRule())


@given(
    size=st.integers(0, 80),
    count=st.integers(-1, 90),
    seed=st.integers(0, 2**64 - 1),
    kind=st.sampled_from(RULES),
    spread=st.floats(0, 30),
)
def test_a_draw_holds_as_many_different_experiences_as_asked_with_bounded_weights(
    size: int, count: int, seed: int, kind: ExperienceRule, spread: float
):
    """Also where priorities lie further apart than they can."""
    rows = np.arange(size) * 3 + FIRST_ROW
    priorities = np.exp(spread * np.random.default_rng(seed).normal(size=size))
    drawn = draw_experience(rows, priorities, count, kind, seed)
    assert len(drawn.rows) == len(drawn.weights) == max(min(count, size), 0)
    assert (np.diff(drawn.rows) > 0).all()
    assert set(drawn.rows.tolist()) <= set(rows.tolist())
    assert (drawn.weights > 0).all()
    assert (drawn.weights <= 2**kind.correction * (1 + 1e-6)).all()


def test_weights_stay_above_what_the_least_priority_allows():
    """Nothing is drawn more than 1/2 + 1/2 / LEAST_PRIORITY^exponent times as often as without priorities."""
    rows = np.arange(5000)
    priorities = np.where(rows == 17, 1.0, LEAST_PRIORITY)
    weights = np.concatenate([draw_experience(rows, priorities, 40, UNBIASED, seed).weights for seed in range(300)])
    assert weights.min() >= 1 / (0.5 + 0.5 / LEAST_PRIORITY**UNBIASED.exponent)


def test_high_priorities_cannot_crowd_out_the_rest():
    """Trap 27: half of the chance is everyone's alike."""
    rows = np.arange(1000)
    priorities = np.where(rows < 400, 1.0, LEAST_PRIORITY)
    rule = ExperienceRule(exponent=1.0)
    times = np.zeros(1000)
    for seed in range(4000):
        times[draw_experience(rows, priorities, 20, rule, seed).rows] += 1
    each = times / (4000 * 20 / 1000)
    assert each[400:].mean() >= 0.5
    assert each[400:].min() > 0.2, "80 draws of each without priorities, at least 40 with them"
    assert 1.5 < each[:400].mean() <= 0.5 + 0.5 * 1000 / 400


def test_experience_is_drawn_as_often_as_its_chance_says():
    rows, rule = np.arange(50), ExperienceRule(exponent=1.0, correction=1.0)
    priorities = np.linspace(LEAST_PRIORITY, 1, 50)
    times = np.zeros(50)
    for seed in range(20_000):
        times[draw_experience(rows, priorities, 8, rule, seed).rows] += 1
    expected = 8 * (0.5 / 50 + 0.5 * priorities / priorities.sum())
    np.testing.assert_allclose(times / 20_000, expected, atol=5 * np.sqrt(0.25 / 20_000))


@pytest.mark.parametrize("count", [5, 60, 110], ids=["few", "many", "some of them always"])
def test_the_weighted_mean_of_a_draw_is_the_mean_of_all_and_the_bare_one_is_not(count: int):
    chance = np.random.default_rng(0)
    rows = np.arange(120)
    reward = chance.normal(size=120)
    priorities = priority(chance.normal(size=120), 5 * reward, UNBIASED)
    weighted, bare = [], []
    for seed in range(4000):
        drawn = draw_experience(rows, priorities, count, UNBIASED, seed)
        weighted.append((drawn.weights * reward[drawn.rows]).mean())
        bare.append(reward[drawn.rows].mean())
    assert abs(np.mean(weighted) - reward.mean()) < 4 * np.std(weighted) / np.sqrt(4000)
    assert np.mean(bare) - reward.mean() > 8 * np.std(bare) / np.sqrt(4000)


def test_half_a_correction_is_the_root_of_a_whole_one():
    rows, priorities = np.arange(300), np.random.default_rng(1).random(300) + 0.1
    half, whole = (draw_experience(rows, priorities, 20, ExperienceRule(correction=c), 4) for c in (0.5, 1.0))
    assert half.rows.tolist() == whole.rows.tolist()
    np.testing.assert_allclose(half.weights**2, whole.weights)


def test_a_draw_follows_from_its_seed_alone():
    rows, priorities = np.arange(500), np.random.default_rng(1).random(500) + 0.1
    first, again, other = (draw_experience(rows, priorities, 30, UNBIASED, seed) for seed in (7, 7, 8))
    assert first.rows.tolist() == again.rows.tolist() != other.rows.tolist()
    assert first.weights.tolist() == again.weights.tolist()


@pytest.mark.parametrize("wrong", [[1.0, 0.0], [1.0, np.nan], [1.0, np.inf], [1.0]])
def test_priorities_that_are_none_are_refused(wrong: list[float]):
    with pytest.raises(ValueError, match="priority above 0"):
        draw_experience(np.arange(2), np.array(wrong), 1, ExperienceRule(), 0)


@pytest.mark.parametrize("name", ["profit_share", "exponent", "correction"])
@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_rules_that_make_no_sense_are_refused(name: str, wrong: float):
    with pytest.raises(SettingRefused, match=f"{name}: expected 0 to 1, found"):
        ExperienceRule(**{name: wrong})
