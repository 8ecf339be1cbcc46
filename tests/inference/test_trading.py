"""Trading: rewards by hand, costs to the cent, and day by day the same figures as at once."""

import math
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import SettingRefused
from hindsight.inference.positions import FLAT, LONG, POSITION, SHORT, hold_along
from hindsight.inference.trading import (
    TradingCost,
    TradingSums,
    combine,
    rewards_of,
    rewards_of_all,
)

FIRST_ROW = 28_000_000
STEP_MS = 60_000
FREE = TradingCost(fee=0.0, half_spread=0.0)
CENT = TradingCost(fee=0.006, half_spread=0.004)
# Closes and what is held from each: +10 %, −10 %, +20 %, none, −50 %, 0 %, +100 %.
CLOSES = np.array([100.0, 110, 99, 118.8, 118.8, 59.4, 59.4, 118.8])
HELD = np.array([LONG, LONG, SHORT, FLAT, SHORT, SHORT, LONG], np.int8)
BEFORE = np.array([FLAT, LONG, LONG, SHORT, FLAT, SHORT, SHORT], np.int8)
BY_HAND = np.array([0.10 - 0.01, -0.10, -0.20 - 0.02, -0.01, 0.50 - 0.01, 0.0, 1.00 - 0.02])


def log_returns(closes: np.ndarray) -> np.ndarray:
    return np.log(closes[1:] / closes[:-1])


def walk(count: int, seed: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log returns, and positions before and after each close, that know nothing of them."""
    chance = np.random.default_rng(seed)
    log_return = chance.normal(size=count) * 0.01
    log_return[chance.random(count) < missing] = np.nan
    actions = np.where(chance.random(count) < 0.5, chance.integers(0, 3, count), FLAT).astype(np.int8)
    return log_return, np.concatenate([[FLAT], actions])[:count].astype(np.int8), actions


def always(action: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([FLAT, *[action] * (count - 1)], np.int8), np.full(count, action, np.int8)


def sums_of(log_return: np.ndarray, previous: np.ndarray, actions: np.ndarray, cost: TradingCost) -> TradingSums:
    """The sums over closes in order, joined one by one; those without a reward are left out."""
    rewards = rewards_of(log_return, previous, actions, cost)
    known = np.isfinite(rewards)
    closes = zip(*(each[known].tolist() for each in (log_return, previous, actions, rewards)), strict=True)
    return combine(one_close(*close, cost) for close in closes)


def one_close(log_return: float, before: int, after: int, reward: float, cost: TradingCost) -> TradingSums:
    growth = math.log1p(reward) if reward > -1 else -math.inf  # a short position can lose more than all
    return TradingSums(
        candles=1,
        held=int(after != FLAT),
        hits=int((after - FLAT) * log_return > 0),
        turnover=abs(after - before),
        reward_sum=reward,
        reward_square_sum=reward**2,
        cost_sum=cost.per_turnover * abs(after - before),
        log_growth=growth,
        log_peak=max(growth, 0.0),
        log_low=min(growth, 0.0),
        log_drawdown=max(-growth, 0.0),
    )


def assert_close(found: TradingSums, expected: TradingSums) -> None:
    np.testing.assert_allclose(astuple(found), astuple(expected), rtol=1e-11, atol=1e-12)


# Rewards ---------------------------------------------------------------------------------------------------------


def test_rewards_of_a_known_series_are_those_by_hand():
    """Trap 35: entered at the close of the decision, paid for by the unit of turnover, 2 to turn around."""
    found = rewards_of(log_returns(CLOSES), BEFORE, HELD, CENT)
    np.testing.assert_allclose(found, BY_HAND, atol=1e-12)


def test_every_position_before_and_after_has_its_reward():
    found = rewards_of_all(np.array([math.log(1.1), np.nan]), CENT)
    np.testing.assert_allclose(
        found[0],
        [[-0.10, -0.01, 0.08], [-0.11, 0.0, 0.09], [-0.12, -0.01, 0.10]],
        atol=1e-12,
    )
    assert np.isnan(found[1]).all()


@given(seed=st.integers(0, 1000), count=st.integers(0, 40))
def test_the_rewards_taken_are_those_of_the_table(seed: int, count: int):
    log_return, previous, actions = walk(count, seed, missing=0.2)
    table = rewards_of_all(log_return, CENT)
    np.testing.assert_array_equal(
        rewards_of(log_return, previous, actions, CENT), table[np.arange(count), previous, actions]
    )


def test_a_decision_earns_the_candle_after_its_close_and_none_before():
    """Trap 35: whoever follows the last candle earns the next one. No return after a close changes what it decides."""
    log_return = walk(300, 3)[0]
    before = np.concatenate([[0.0], log_return[:-1]])  # known at each close: the return up to it

    def traded(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q = np.zeros((len(returns), 3, 3))
        q[:] = POSITION * np.concatenate([[0.0], returns[:-1]])[:, None, None]
        decided = hold_along(q, first_row=FIRST_ROW)
        return decided.actions, rewards_of(returns, decided.previous, decided.actions, FREE)

    actions, rewards = traded(log_return)
    np.testing.assert_allclose(rewards, np.sign(before) * np.expm1(log_return), atol=1e-15)
    for row in range(0, 299, 13):
        absurd = log_return.copy()
        absurd[row:] = 3.0
        found_actions, found_rewards = traded(absurd)
        assert found_actions[: row + 1].tolist() == actions[: row + 1].tolist()
        assert found_rewards[:row].tolist() == rewards[:row].tolist()
        assert found_rewards[row] == pytest.approx(POSITION[actions[row]] * math.expm1(3.0))


def test_what_is_held_into_a_gap_has_no_reward_and_costs_nothing_to_leave():
    returns = np.array([math.log(1.1), np.nan, np.nan, math.log(1.1)])
    stay_or_enter = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 1]], np.float64)
    q = np.stack([stay_or_enter, stay_or_enter, np.full((3, 3), np.nan), stay_or_enter])
    decided = hold_along(q, first_row=FIRST_ROW)
    assert decided.actions.tolist() == [LONG, LONG, FLAT, LONG]
    found = rewards_of(returns, decided.previous, decided.actions, CENT)
    np.testing.assert_allclose(found, [0.09, np.nan, np.nan, 0.09], atol=1e-12)


def test_no_edge_loses_exactly_its_costs():
    """Trap 35: whatever is done in a flat market, and any trader together with its mirror in any market."""
    log_return, previous, actions = walk(2000, 5)
    for returns in (np.zeros(2000), log_return):
        sums, mirrored = (
            sums_of(returns, before, after, CENT)
            for before, after in ((previous, actions), (LONG - previous, LONG - actions))
        )
        assert sums.turnover == mirrored.turnover > 1000
        assert sums.reward_sum + mirrored.reward_sum == pytest.approx(-2 * 0.01 * sums.turnover, rel=1e-12)
    flat = sums_of(np.zeros(2000), previous, actions, CENT)
    assert flat.reward_sum == pytest.approx(-flat.cost_sum, rel=1e-12)
    assert flat.hits == 0
    assert sums_of(np.zeros(2000), previous, actions, FREE).net_return == 0


def test_who_knows_nothing_loses_its_costs_within_noise():
    gains = []
    for seed in range(300):
        log_return, previous, actions = walk(500, seed)
        fair = np.log1p(log_return)  # the mean simple return is 0
        sums = sums_of(fair, previous, actions, CENT)
        gains.append(sums.reward_sum + sums.cost_sum)
    assert abs(np.mean(gains)) < 3 * np.std(gains) / math.sqrt(300)


def test_always_long_is_buy_and_hold_less_one_entry():
    log_return = walk(1000, 8)[0]
    sums = sums_of(log_return, *always(LONG, 1000), CENT)
    growth, first = math.exp(log_return.sum()), math.exp(log_return[0])
    assert sums.turnover == 1
    # The entry is paid at the first close, out of what then grows no more.
    assert sums.net_return == pytest.approx(growth - 1 - 0.01 * growth / first, rel=1e-9)
    assert sums.reward_sum == pytest.approx(np.expm1(log_return).sum() - 0.01, rel=1e-9)
    assert sums_of(log_return, *always(LONG, 1000), FREE).net_return == pytest.approx(growth - 1, rel=1e-9)


# Figures ---------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_known_series_are_those_by_hand():
    sums = sums_of(log_returns(CLOSES), BEFORE, HELD, CENT)
    assert (sums.candles, sums.held, sums.hits, sums.turnover) == (7, 6, 3, 7)
    assert sums.cost_sum == pytest.approx(0.07)
    assert sums.reward_sum == pytest.approx(1.23)
    assert sums.net_return == pytest.approx(1.09 * 0.90 * 0.78 * 0.99 * 1.49 * 1.98 - 1)
    assert sums.max_drawdown == pytest.approx(1 - 0.90 * 0.78 * 0.99), "from the first close to the fourth"
    assert sums.hit_rate == pytest.approx(1 / 2)
    assert sums.time_in_market == pytest.approx(6 / 7)
    yearly = math.sqrt(365 * 24 * 60)
    assert sums.sharpe(STEP_MS) == pytest.approx(BY_HAND.mean() / BY_HAND.std(ddof=1) * yearly)
    assert sums.sharpe(60 * STEP_MS) == pytest.approx(sums.sharpe(STEP_MS) / math.sqrt(60))


def test_sharpe_of_two_rewards_by_hand():
    """Mean 1 %, standard deviation √2 × 2 %: 0.3536 a day, 6.755 a year."""
    sums = sums_of(np.log([1.03, 0.99]), *always(LONG, 2), FREE)
    assert sums.sharpe(86_400_000) == pytest.approx(math.sqrt(365) / math.sqrt(8))


@pytest.mark.parametrize("reward", [0.0, 0.001, -0.3, 1e-9])
def test_rewards_that_do_not_vary_have_no_sharpe(reward: float):
    sums = sums_of(np.full(1000, math.log1p(reward)), *always(LONG, 1000), FREE)
    assert math.isnan(sums.sharpe(STEP_MS))
    assert math.isnan(combine([sums] * 50).sharpe(STEP_MS))


def test_one_candle_has_figures_and_no_sharpe():
    sums = sums_of(np.log([1.1]), np.array([FLAT]), np.array([SHORT]), CENT)
    assert sums.net_return == pytest.approx(-0.11)
    assert sums.max_drawdown == pytest.approx(0.11), "the start counts as a peak"
    assert sums.hit_rate == 0
    assert math.isnan(sums.sharpe(STEP_MS))


@pytest.mark.parametrize("count", [0, 50])
def test_without_any_reward_nothing_is_claimed(count: int):
    _, previous, actions = walk(count, 1)
    sums = sums_of(np.full(count, np.nan), previous, actions, CENT)
    assert sums == TradingSums() == combine([])
    assert sums.net_return == sums.reward_sum == sums.max_drawdown == 0
    assert all(map(math.isnan, (sums.hit_rate, sums.time_in_market, sums.sharpe(STEP_MS))))


def test_who_never_trades_has_a_flat_line():
    sums = sums_of(walk(100, 2)[0], *always(FLAT, 100), CENT)
    assert sums == TradingSums(candles=100)
    assert sums.time_in_market == 0
    assert math.isnan(sums.hit_rate)


def test_a_short_position_can_lose_all_and_then_nothing_is_left():
    returns = np.log([1.1, 2.5, 0.5, 1.2])
    whole = sums_of(returns, *always(SHORT, 4), FREE)
    assert (whole.net_return, whole.max_drawdown) == (-1, 1)
    parts = [sums_of(returns[[at]], np.array([SHORT]), np.array([SHORT]), FREE) for at in range(4)]
    assert combine(parts).net_return == -1
    assert combine(parts).max_drawdown == 1
    assert combine([*parts, whole, *parts]).log_drawdown == math.inf


@pytest.mark.parametrize("wrong", [{"fee": -0.1}, {"half_spread": 1.0}, {"fee": math.nan}, {"half_spread": math.inf}])
def test_costs_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(SettingRefused, match="expected at least 0 and below 1, found"):
        TradingCost(**{"fee": 0.001, "half_spread": 0.0} | wrong)


# Days ------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), cuts=st.sets(st.integers(1, 199), max_size=12), missing=st.sampled_from([0, 0.2, 1]))
def test_any_parts_combine_to_the_whole_in_any_grouping(seed: int, cuts: set[int], missing: float):
    log_return, previous, actions = walk(200, seed, missing)
    whole = sums_of(log_return, previous, actions, CENT)
    edges = [0, *sorted(cuts), 200]
    parts = [
        sums_of(log_return[start:end], previous[start:end], actions[start:end], CENT) for start, end in pairwise(edges)
    ]
    assert_close(combine(parts), whole)
    half = len(parts) // 2
    assert_close(combine([combine(parts[:half]), combine(parts[half:])]), whole)
    counts = ("candles", "held", "hits", "turnover")
    assert [getattr(combine(parts), name) for name in counts] == [getattr(whole, name) for name in counts]


def test_a_fall_across_midnight_is_found():
    """No day by itself falls by more than a tenth."""
    returns = np.log([1.5, 0.9, 0.9, 1.2])
    days = [sums_of(part, np.full(2, LONG), np.full(2, LONG), FREE) for part in (returns[:2], returns[2:])]
    assert [day.max_drawdown for day in days] == pytest.approx([0.1, 0.1])
    assert combine(days).max_drawdown == pytest.approx(0.19)


def test_figures_are_those_of_ten_plain_lines():
    log_return, previous, actions = walk(500, 12, missing=0.1)
    equity = peak = 1.0
    deepest, rewards = 0.0, []
    for r, before, after in zip(log_return.tolist(), previous.tolist(), actions.tolist(), strict=True):
        if not math.isnan(r):
            rewards.append((after - 1) * (math.exp(r) - 1) - 0.01 * abs(after - before))
            equity *= 1 + rewards[-1]
            peak = max(peak, equity)
            deepest = max(deepest, 1 - equity / peak)
    sums = sums_of(log_return, previous, actions, CENT)
    assert sums.net_return == pytest.approx(equity - 1, rel=1e-9)
    assert sums.max_drawdown == pytest.approx(deepest, rel=1e-9)
    assert sums.reward_sum == pytest.approx(sum(rewards), rel=1e-9)
    assert sums.candles == len(rewards)
