"""Replay: corrective answers more often, ordinary ones always, and the weight of each draw corrected for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.training.replay import ReplayRule, draw, step_seed

RULE = ReplayRule()
sizes = st.integers(0, 300)


def pools(normal: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(0).permutation(normal + high) + 1000
    return rows[:normal], rows[normal:]


@given(normal=sizes, high=sizes, count=st.integers(0, 100), seed=st.integers(0, 2**64 - 1), weight=st.floats(1, 4))
def test_a_draw_holds_different_references_of_its_pools_the_high_ones_first(
    normal: int, high: int, count: int, seed: int, weight: float
):
    of_normal, of_high = pools(normal, high)
    drawn = draw(of_normal, of_high, count, ReplayRule(corrective_weight=weight), seed)
    assert len(drawn.rows) <= count
    assert len(set(drawn.rows.tolist())) == len(drawn.rows)
    assert set(drawn.rows[: drawn.high].tolist()) <= set(of_high.tolist())
    assert set(drawn.rows[drawn.high :].tolist()) <= set(of_normal.tolist())
    assert np.isfinite([drawn.weight_normal, drawn.weight_high]).all()
    assert min(drawn.weight_normal, drawn.weight_high) > 0


@given(normal=sizes, high=sizes, count=st.integers(0, 100), seed=st.integers(0, 2**32))
def test_high_priority_never_takes_more_than_half_of_a_draw(normal: int, high: int, count: int, seed: int):
    """Trap 27. Of an odd number, a toss decides who has the middle one."""
    drawn = draw(*pools(normal, high), count, RULE, seed)
    assert drawn.high <= (len(drawn.rows) + 1) // 2


@given(normal=sizes, high=sizes, count=st.integers(0, 100), seed=st.integers(0, 2**32))
def test_a_draw_is_full_while_there_are_ordinary_ones_to_fill_it(normal: int, high: int, count: int, seed: int):
    drawn = draw(*pools(normal, high), count, RULE, seed)
    ordinary = len(drawn.rows) - drawn.high
    assert len(drawn.rows) == min(count, normal + high) or ordinary == normal


def test_high_priority_is_half_on_average_when_it_is_most_of_what_there_is():
    shares = [draw(*pools(40, 4000), 17, RULE, seed).high / 17 for seed in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.005)


def test_ordinary_references_are_still_drawn_and_high_ones_are_likelier_by_the_corrective_weight():
    """Trap 27: correct ones are still sampled."""
    normal, high = pools(900, 100)
    counts = np.zeros(2)
    for seed in range(3000):
        drawn = draw(normal, high, 20, RULE, seed)
        counts += (drawn.high, len(drawn.rows) - drawn.high)
    likelier = (counts[0] / len(high)) / (counts[1] / len(normal))
    assert likelier == pytest.approx(2.0, rel=0.05)


def test_every_reference_of_a_pool_can_be_drawn_and_each_as_likely_as_the_next():
    normal, high = pools(30, 10)
    times = dict.fromkeys([*normal.tolist(), *high.tolist()], 0)
    for seed in range(3000):
        for row in draw(normal, high, 8, RULE, seed).rows.tolist():
            times[row] += 1
    for pool in (normal, high):
        of_pool = np.array([times[row] for row in pool.tolist()])
        assert of_pool.std() < 0.1 * of_pool.mean()


def test_the_importance_of_a_draw_undoes_half_of_its_priority():
    """β = 0.5: the weights are the roots of natural share over drawn share, of each kind."""
    drawn = draw(*pools(60, 20), 16, RULE, 3)
    natural, share = 20 / 80, drawn.high / 16
    assert drawn.weight_high == pytest.approx((natural / share) ** 0.5)
    assert drawn.weight_normal == pytest.approx(((1 - natural) / (1 - share)) ** 0.5)
    assert drawn.weight_high < 1 < drawn.weight_normal


@pytest.mark.parametrize(
    ("normal", "high", "count", "expected"),
    [
        pytest.param(0, 0, 5, (0, 0), id="nothing"),
        pytest.param(10, 0, 5, (5, 0), id="only ordinary ones"),
        pytest.param(0, 10, 5, (1, 1), id="only high ones"),
        pytest.param(2, 10, 8, (5, 3), id="too few ordinary ones"),
        pytest.param(10, 10, 0, (0, 0), id="nothing wanted"),
        pytest.param(3, 2, 50, (5, 2), id="more wanted than there is"),
    ],
)
def test_small_pools_give_what_they_have(normal: int, high: int, count: int, expected: tuple[int, int]):
    drawn = draw(*pools(normal, high), count, RULE, 1)
    assert (len(drawn.rows), drawn.high) == expected


def test_a_draw_follows_from_its_seed_alone():
    pool = pools(500, 200)
    first, again, other = (draw(*pool, 30, RULE, seed) for seed in (7, 7, 8))
    assert first.rows.tolist() == again.rows.tolist() != other.rows.tolist()


def test_the_seed_of_a_step_follows_from_its_event_and_differs_between_events():
    seeds = {step_seed(seed, row, trigger) for seed in (0, 1) for row in range(500) for trigger in ("candle", "pivot")}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert step_seed(0, 28_000_000, "candle") == 3681676546191856638
