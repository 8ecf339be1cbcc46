"""Drift: a loss that has risen is found soon, one that fell never, noise seldom, and every cut finds the same."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindsight.inference.drift import Drift, DriftRule, drifts, first_row_needed

WEEK = 10_080
FIRST_ROW = 2_800 * WEEK  # an anchor
ADWIN_ALONE = {"page_hinkley_threshold": math.inf}
PAGE_HINKLEY_ALONE = {"adwin_delta": 0.0}
# Small enough that many anchors, pools and drifts fit into a test.
EAGER = DriftRule(
    pool=5, adwin_delta=0.9, page_hinkley_threshold=5.0, page_hinkley_min=5, cool_down=60, restart_every=200
)
ALONE = [
    pytest.param({}, id="both"),
    pytest.param(ADWIN_ALONE, id="adwin"),
    pytest.param(PAGE_HINKLEY_ALONE, id="page_hinkley"),
]


def rows_of(losses: np.ndarray) -> np.ndarray:
    return np.arange(FIRST_ROW, FIRST_ROW + len(losses))


def noise(count: int, seed: int, kept: float = 0.9) -> np.ndarray:
    """Losses around 0.69 with a spread of 0.1, each keeping a share of what the one before was off."""
    news = np.random.default_rng(seed).normal(scale=0.1 * math.sqrt(1 - kept**2), size=count + 500)
    for index in range(1, len(news)):
        news[index] += kept * news[index - 1]
    return 0.69 + news[500:]


def stepped(at: int, by: float, seed: int, count: int = 20_000, kept: float = 0.9) -> np.ndarray:
    losses = noise(count, seed, kept)
    losses[at:] += by
    return losses


def restless(seed: int, count: int = 1500) -> np.ndarray:
    """A loss that steps up and down every 80 rows, so that EAGER finds a lot in it."""
    chance = np.random.default_rng(seed)
    return chance.exponential(size=count) + np.repeat(2 * chance.normal(size=count // 80 + 1), 80)[:count]


@pytest.mark.parametrize(
    ("alone", "detector", "delay"),
    [
        pytest.param(ADWIN_ALONE, "adwin", 1500, id="adwin"),
        pytest.param(PAGE_HINKLEY_ALONE, "page_hinkley", 800, id="page_hinkley"),
        pytest.param({}, "page_hinkley", 800, id="both"),
    ],
)
@pytest.mark.parametrize("at", [6000, WEEK - 1, WEEK, WEEK + 1, 14_000])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_up_by_one_spread_is_found_within_a_day(alone: dict, detector: str, delay: int, at: int, seed: int):
    """Wherever it happens: also just as an anchor passes."""
    losses = stepped(at, by=0.1, seed=seed)
    found = drifts(rows_of(losses), losses, rule=DriftRule(**alone))[0]
    assert FIRST_ROW + at <= found.row <= FIRST_ROW + at + delay
    assert found.detector == detector
    assert found.mean_before == pytest.approx(0.69, abs=0.03)
    assert found.mean_after == pytest.approx(0.79, abs=0.12)  # a few pools may be all that was seen of it


@pytest.mark.parametrize(("alone", "delay"), [(ADWIN_ALONE, 100), (PAGE_HINKLEY_ALONE, 60)])
def test_unpooled_a_detector_is_faster_where_losses_are_independent(alone: dict, delay: int):
    losses = stepped(6000, by=0.1, seed=1, kept=0.0)
    found = drifts(rows_of(losses), losses, rule=DriftRule(pool=1, **alone))
    assert FIRST_ROW + 6000 < found[0].row <= FIRST_ROW + 6000 + delay


@pytest.mark.parametrize("alone", ALONE)
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_falls_is_no_drift(alone: dict, seed: int):
    losses = stepped(6000, by=-0.2, seed=seed)
    losses[12_000:] -= np.linspace(0, 0.3, 8000)
    assert drifts(rows_of(losses), losses, rule=DriftRule(**alone)) == []


def test_a_loss_that_rises_again_after_it_fell_is_a_drift():
    losses = stepped(5000, by=-0.2, seed=0)
    losses[8000:] += 0.2
    found = drifts(rows_of(losses), losses, rule=DriftRule())
    assert FIRST_ROW + 8000 < found[0].row < FIRST_ROW + 9000


@pytest.mark.parametrize("kept", [0.0, 0.9], ids=["independent", "bound to their neighbours"])
def test_of_100000_stationary_losses_two_at_most_are_taken_for_a_drift(kept: float):
    alarms = [
        len(drifts(rows_of(losses), losses, rule=DriftRule()))
        for losses in (noise(20_000, seed, kept) for seed in range(5))
    ]
    assert sum(alarms) <= 2


def test_of_100000_independent_losses_a_few_are_taken_for_a_drift_unpooled():
    rule = DriftRule(pool=1)
    alarms = [
        len(drifts(rows_of(losses), losses, rule=rule)) for losses in (noise(20_000, seed, 0.0) for seed in range(5))
    ]
    assert sum(alarms) <= 12


def test_unpooled_losses_that_share_their_answers_are_drift_after_drift():
    """Trap 26: overlapping labels are no independent values."""
    losses = noise(20_000, seed=0)
    assert len(drifts(rows_of(losses), losses, rule=DriftRule(pool=1, cool_down=0))) > 100


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_losses_of_any_scale_have_the_same_drifts(scale: float):
    losses = stepped(6000, by=0.1, seed=0)
    found = drifts(rows_of(losses), losses * scale, rule=DriftRule())
    assert [each.row for each in found] == [each.row for each in drifts(rows_of(losses), losses, rule=DriftRule())]
    assert found[0].mean_after == pytest.approx(0.79 * scale, rel=0.1)


def test_a_loss_that_never_changes_has_no_drift_and_one_that_then_does_has():
    losses = np.full(20_000, 0.1)
    assert drifts(rows_of(losses), losses, rule=DriftRule()) == []
    losses[6000:] = 0.11
    found = drifts(rows_of(losses), losses, rule=DriftRule())
    assert FIRST_ROW + 6000 < found[0].row <= FIRST_ROW + 6000 + 600


@pytest.mark.parametrize("seed", range(5))
def test_between_two_anchors_nothing_is_reported_during_the_cool_down(seed: int):
    losses = restless(seed)
    rule = replace(EAGER, restart_every=2000, cool_down=200)
    found = [each.row for each in drifts(rows_of(losses), losses, rule=rule)]
    assert len(found) > 3
    assert min(after - before for before, after in pairwise(found)) >= rule.cool_down
    at_once = [each.row for each in drifts(rows_of(losses), losses, rule=replace(rule, cool_down=0))]
    assert set(found) < set(at_once)
    assert min(after - before for before, after in pairwise(at_once)) < rule.cool_down


@pytest.mark.parametrize("alone", ALONE)
@pytest.mark.parametrize("seed", range(3))
def test_the_first_losses_have_those_drifts_of_all_that_were_known_by_then(alone: dict, seed: int):
    """Trap 1."""
    rule, losses = replace(EAGER, **alone), restless(seed)
    whole = drifts(rows_of(losses), losses, rule=rule)
    assert len(whole) > 4
    for count in range(0, len(losses), 7):
        known = [each for each in whole if each.row < FIRST_ROW + count]
        assert drifts(rows_of(losses)[:count], losses[:count], rule=rule) == known


@pytest.mark.parametrize("alone", ALONE)
@pytest.mark.parametrize("seed", range(3))
def test_the_drifts_since_any_row_follow_from_the_losses_since_the_first_row_needed(alone: dict, seed: int):
    """Resume = uninterrupted, to the bit."""
    rule, losses = replace(EAGER, **alone), restless(seed)
    rows = rows_of(losses)
    whole = drifts(rows, losses, rule=rule)
    for since in range(FIRST_ROW, FIRST_ROW + len(losses), 13):
        expected = [each for each in whole if each.row >= since]
        needed = rows >= first_row_needed(since, rule)
        assert drifts(rows[needed], losses[needed], rule=rule, since=since) == expected
        assert drifts(rows, losses, rule=rule, since=since) == expected


def test_the_first_row_needed_is_the_anchor_before_the_anchor_of_a_row():
    rule = DriftRule(restart_every=WEEK)
    assert first_row_needed(FIRST_ROW, rule) == FIRST_ROW - WEEK
    assert first_row_needed(FIRST_ROW + WEEK - 1, rule) == FIRST_ROW - WEEK
    assert first_row_needed(FIRST_ROW + WEEK, rule) == FIRST_ROW


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_losses_that_settle_in_bunches_are_judged_the_same_however_they_arrive(data: st.DataObject):
    """Several losses settle at one row, none at others, some have no answer; they come in pieces of any length."""
    chance = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    losses = restless(int(chance.integers(1000)), count=1000)
    losses[chance.random(1000) < 0.1] = np.nan
    rows = FIRST_ROW + np.sort(chance.integers(0, 1200, 1000))
    whole = drifts(rows, losses, rule=EAGER)
    cuts = sorted(data.draw(st.lists(st.integers(FIRST_ROW, FIRST_ROW + 1200), max_size=8), label="cuts"))
    in_pieces: list[Drift] = []
    for since, until in pairwise([0, *cuts, FIRST_ROW + 1200]):
        piece = (rows >= first_row_needed(since, EAGER)) & (rows < until)
        in_pieces += drifts(rows[piece], losses[piece], rule=EAGER, since=since)
    assert in_pieces == whole


def test_a_drift_is_known_at_the_row_of_the_loss_that_fills_its_pool():
    losses = np.concatenate([np.tile([0.1, 0.3], 500), np.full(1000, 3.0)])
    rows = FIRST_ROW + np.arange(2000) // 4 * 3  # four losses settle at every third row
    rule = DriftRule(pool=10, page_hinkley_min=10)
    (found,) = drifts(rows, losses, rule=rule)
    filled = np.flatnonzero(rows == found.row)
    assert any((index + 1) % 10 == 0 for index in filled)
    assert found.mean_before == pytest.approx(0.2)
    assert found.mean_after == pytest.approx(3.0)


def test_losses_without_an_answer_are_passed_over():
    losses = stepped(6000, by=0.1, seed=0)
    with_none = np.insert(losses, np.arange(0, 20_000, 3), np.nan)
    rows = np.insert(rows_of(losses), np.arange(0, 20_000, 3), rows_of(losses)[::3])
    assert drifts(rows, with_none, rule=DriftRule()) == drifts(rows_of(losses), losses, rule=DriftRule()) != []


@pytest.mark.parametrize("losses", [np.zeros(0), np.full(500, np.nan), np.ones(7)], ids=["none", "NaN", "too few"])
def test_where_there_is_nothing_to_compare_there_is_no_drift(losses: np.ndarray):
    assert drifts(rows_of(losses), losses, rule=EAGER) == []


def test_losses_are_judged_and_not_changed():
    losses = restless(0)
    before = losses.copy()
    assert drifts(rows_of(losses), losses, rule=EAGER) == drifts(rows_of(losses), before, rule=EAGER)
    np.testing.assert_array_equal(losses, before)


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_an_infinite_loss_is_refused(bad: float):
    losses = np.ones(500)
    losses[100] = bad
    with pytest.raises(ValueError, match="finite"):
        drifts(rows_of(losses), losses, rule=EAGER)


@pytest.mark.parametrize("rows", [np.array([1, 3, 2]), np.array([1, 2])], ids=["out of order", "too few"])
def test_rows_that_do_not_stand_beside_the_losses_are_refused(rows: np.ndarray):
    with pytest.raises(ValueError, match="ascending rows"):
        drifts(rows, np.ones(3), rule=EAGER)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": 0},
        {"page_hinkley_min": 1},
        {"cool_down": -1},
        {"adwin_delta": 1.0},
        {"adwin_delta": math.nan},
        {"page_hinkley_threshold": 0.0},
        {"page_hinkley_delta": -0.1},
        {"restart_every": 1799},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict):
    with pytest.raises(ValueError, match="expected a"):
        DriftRule(**wrong)
