"""Evidence: a challenger is better only where the market says so often enough, block by block."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from hindsight.inference.evidence import MINIMUM_BLOCKS, Evidence, paired_evidence

FIRST_ROW = 28_000_000
HORIZON = 20
SIMULATIONS = 400


def rows_of(count: int) -> np.ndarray:
    return np.arange(FIRST_ROW, FIRST_ROW + count)


def kept(count: int, chance: np.random.Generator, mean: float = 0.0) -> np.ndarray:
    """Differences that keep nine tenths of the one before: AR(1), with a memory of about HORIZON rows."""
    news = chance.normal(size=count + 10 * HORIZON) * math.sqrt(1 - 0.9**2)
    for index in range(1, len(news)):
        news[index] += 0.9 * news[index - 1]
    return news[10 * HORIZON :] + mean


def shared(count: int, chance: np.random.Generator, mean: float = 0.0) -> np.ndarray:
    """Differences that share all but one of HORIZON answers with their neighbour, as overlapping labels do."""
    news = chance.normal(size=count + HORIZON - 1)
    return np.convolve(news, np.full(HORIZON, HORIZON**-0.5), "valid") + mean


def compared(difference: np.ndarray, *, block: int = 5 * HORIZON, seed: int = 0, resamples: int = 2000) -> Evidence:
    champion = np.random.default_rng(seed).exponential(0.7, len(difference))
    return paired_evidence(
        rows_of(len(difference)),
        champion,
        champion + difference,
        block=block,
        embargo_until_row=FIRST_ROW,
        resamples=resamples,
        seed=seed,
    )


def promotions(make, *, blocks: int, block: int, judged_by: int, mean: float = 0.0) -> float:
    """The share of SIMULATIONS in which the challenger is found better."""
    found = 0
    for seed in range(SIMULATIONS):
        difference = make(blocks * block, np.random.default_rng(seed), mean)
        found += compared(difference, block=judged_by, seed=seed, resamples=500).is_better
    return found / SIMULATIONS


@pytest.mark.parametrize("make", [kept, shared])
@pytest.mark.parametrize("blocks", [MINIMUM_BLOCKS, 40])
def test_of_two_equals_the_challenger_is_found_better_about_as_seldom_as_promised(make, blocks: int):
    """Trap 26: 2.5 % by the promise; 400 simulations tell it to within 1.6 %."""
    assert promotions(make, blocks=blocks, block=5 * HORIZON, judged_by=5 * HORIZON) < 0.05


@pytest.mark.parametrize("make", [kept, shared])
def test_blocks_of_one_horizon_promise_a_little_too_much(make):
    assert 0.02 < promotions(make, blocks=40, block=HORIZON, judged_by=HORIZON) < 0.09


@pytest.mark.parametrize("make", [kept, shared])
def test_without_blocks_a_third_of_all_equals_would_be_promoted(make):
    """Trap 26: overlapping labels inflate what is known."""
    assert promotions(make, blocks=8, block=5 * HORIZON, judged_by=1) > 0.25


def test_a_real_difference_is_found():
    # 60 blocks of 100 rows know the mean to within 0.055: three times that is found in four fifths of all cases.
    assert promotions(shared, blocks=60, block=5 * HORIZON, judged_by=5 * HORIZON, mean=-0.165) > 0.75
    assert promotions(shared, blocks=60, block=5 * HORIZON, judged_by=5 * HORIZON, mean=0.165) == 0


def test_the_figures_are_those_of_ten_plain_lines():
    chance = np.random.default_rng(3)
    rows = np.sort(FIRST_ROW + chance.choice(6000, 2500, replace=False))  # blocks of unequal counts
    champion, challenger = chance.exponential(1, 2500), chance.exponential(0.9, 2500)
    found = paired_evidence(rows, champion, challenger, block=100, embargo_until_row=FIRST_ROW, resamples=300, seed=9)
    by_block: dict[int, list[float]] = {}
    for row, first, second in zip(rows.tolist(), champion.tolist(), challenger.tolist(), strict=True):
        by_block.setdefault(row // 100, []).append(second - first)
    totals, counts = [sum(each) for each in by_block.values()], [len(each) for each in by_block.values()]

    def mean_and_error(chosen: list[int]) -> tuple[float, float]:
        count = sum(counts[each] for each in chosen)
        mean = sum(totals[each] for each in chosen) / count
        return mean, math.sqrt(sum((totals[each] - mean * counts[each]) ** 2 for each in chosen)) / count

    mean, error = mean_and_error(list(range(len(totals))))
    drawn = np.random.Generator(np.random.PCG64(9)).integers(0, len(totals), (300, len(totals))).tolist()
    students = sorted((each - mean) / its_error for each, its_error in map(mean_and_error, drawn))
    # Of 300, a fortieth are 7.5: the eighth from below and, from above, what leaves as many out.
    low, high = mean - students[292] * error, mean - students[7] * error
    assert (found.references, found.blocks, found.confidence) == (2500, len(totals), 0.95)
    assert (found.mean_champion, found.mean_challenger) == pytest.approx((champion.mean(), challenger.mean()))
    assert (found.difference, found.low, found.high) == pytest.approx((mean, low, high))


def test_a_difference_counts_by_reference_and_not_by_block():
    difference = np.full(1100, -1.0)
    difference[:100] = 5.0
    rows = np.concatenate([rows_of(100), FIRST_ROW + 1000 + np.arange(1000) * 10])  # one full block, 100 thin ones
    found = paired_evidence(
        rows, np.zeros(1100), difference, block=100, embargo_until_row=FIRST_ROW, resamples=200, seed=0
    )
    assert found.difference == pytest.approx(difference.mean())
    assert found.blocks == 101


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(seed: int):
    difference = shared(2000, np.random.default_rng(seed))
    assert compared(difference, seed=seed) == compared(difference.copy(), seed=seed)
    assert compared(difference, seed=seed).high != compared(difference, seed=seed + 1).high


def test_more_confidence_asks_for_more():
    difference = shared(4000, np.random.default_rng(0), mean=-0.2)
    champion = np.zeros(4000)
    asked = [
        paired_evidence(
            rows_of(4000),
            champion,
            difference,
            block=100,
            embargo_until_row=0,
            confidence=confidence,
            seed=0,
        )
        for confidence in (0.5, 0.95, 0.999)
    ]
    assert asked[0].high < asked[1].high < asked[2].high
    assert asked[0].low > asked[1].low > asked[2].low
    assert len({each.difference for each in asked}) == 1


def test_nobody_is_better_than_himself():
    found = compared(np.zeros(2000))
    assert (found.difference, found.low, found.high, found.is_better) == (0, 0, 0, False)


def test_a_challenger_that_is_always_better_by_the_same_is_better():
    found = compared(np.full(2000, -0.5))
    assert (found.difference, found.low, found.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert found.is_better


def test_a_challenger_that_was_better_in_one_block_only_is_not_better():
    difference = np.zeros(4000)
    difference[:100] = -10
    found = compared(difference)
    assert found.difference < 0
    assert not found.is_better


def test_nothing_is_said_without_references():
    none = np.zeros(0)
    found = paired_evidence(np.zeros(0, np.int64), none, none, block=100, embargo_until_row=0, seed=0)
    assert (found.references, found.blocks, found.low, found.high) == (0, 0, -math.inf, math.inf)
    assert np.isnan([found.mean_champion, found.mean_challenger, found.difference]).all()
    assert not found.is_better


@pytest.mark.parametrize("blocks", [1, MINIMUM_BLOCKS - 1, MINIMUM_BLOCKS])
def test_fewer_than_ten_blocks_never_make_a_better_challenger(blocks: int):
    found = compared(np.full(blocks * 100, -5.0) + np.arange(blocks * 100) / 1000, block=100)  # row 28,000,000 is on it
    assert found.blocks == blocks
    assert found.difference < -3
    assert math.isfinite(found.high) == found.is_better == (blocks == MINIMUM_BLOCKS)


def test_what_has_no_answer_for_one_is_left_out_for_both():
    difference = shared(3000, np.random.default_rng(1))
    champion = np.random.default_rng(2).exponential(1, 3000)
    challenger = champion + difference
    champion[::7], challenger[::5] = np.nan, np.nan
    both = ~np.isnan(champion) & ~np.isnan(challenger)
    said = {"block": 100, "embargo_until_row": FIRST_ROW, "seed": 0}
    found = paired_evidence(rows_of(3000), champion, challenger, **said)
    assert found.references == both.sum()
    assert found == paired_evidence(rows_of(3000)[both], champion[both], challenger[both], **said)


def test_without_any_answer_nothing_is_said():
    found = compared(np.full(2000, np.nan))
    assert (found.references, found.blocks, found.is_better) == (0, 0, False)


@pytest.mark.parametrize(
    ("champion", "challenger"),
    [
        pytest.param(math.inf, 0.0, id="champion"),
        pytest.param(0.0, math.inf, id="challenger"),
        pytest.param(math.inf, math.inf, id="both"),
        pytest.param(0.0, -math.inf, id="challenger, below"),
    ],
)
def test_an_infinite_loss_promotes_nobody(champion: float, challenger: float):
    """Trap 28."""
    losses = np.ones(2000), np.full(2000, 0.5)
    losses[0][777], losses[1][777] = champion, challenger
    found = paired_evidence(rows_of(2000), *losses, block=100, embargo_until_row=0, seed=0)
    assert (found.references, found.low, found.high, found.is_better) == (2000, -math.inf, math.inf, False)


def test_references_made_before_the_embargo_are_left_out():
    """Trap 26."""
    difference = shared(4000, np.random.default_rng(4))
    until = FIRST_ROW + 1234
    champion = np.random.default_rng(5).exponential(1, 4000)
    whole = paired_evidence(rows_of(4000), champion, champion + difference, block=100, embargo_until_row=until, seed=0)
    assert whole.references == 4000 - 1234
    champion[:1234], difference[:1234] = 1e30, -1e30  # what they held does not matter
    changed = paired_evidence(
        rows_of(4000), champion, champion + difference, block=100, embargo_until_row=until, seed=0
    )
    assert changed == whole
    at_the_end = {"block": 100, "embargo_until_row": FIRST_ROW + 4000, "seed": 0}
    assert paired_evidence(rows_of(4000), champion, champion, **at_the_end).references == 0


@pytest.mark.parametrize("count", [1200, 2345, 3999])
def test_what_was_said_stays_whatever_comes_after(count: int):
    """Trap 1: the first rows of a longer history say what they said when there were no others."""
    history = np.concatenate([shared(count, np.random.default_rng(count)), np.full(4000 - count, 1e30)])
    said = {"block": 100, "embargo_until_row": FIRST_ROW + 50, "seed": 0}
    alone = paired_evidence(rows_of(count), np.zeros(count), history[:count].copy(), **said)
    within = paired_evidence(rows_of(4000)[:count], np.zeros(4000)[:count], history[:count], **said)
    assert alone == within
    assert alone.references == count - 50


def test_blocks_lie_on_the_grid_and_not_on_the_first_reference():
    rows = np.array([FIRST_ROW + 98, FIRST_ROW + 99, FIRST_ROW + 100, FIRST_ROW + 199, FIRST_ROW + 200])
    losses = np.ones(5)
    assert paired_evidence(rows, losses, losses, block=100, embargo_until_row=0, seed=0).blocks == 3


def test_losses_of_any_precision_are_compared_and_not_changed():
    champion = np.random.default_rng(0).exponential(1, 2000).astype(np.float32)
    challenger = champion + np.float32(0.25)
    before = champion.copy(), challenger.copy()
    found = paired_evidence(rows_of(2000), champion, challenger, block=100, embargo_until_row=0, seed=0)
    assert found.difference == pytest.approx(0.25, abs=1e-6)
    assert all(type(each) in (int, float) for each in astuple(found))
    np.testing.assert_array_equal(np.stack([champion, challenger]), np.stack(before))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"champion_loss": np.ones(3)}, "as many losses as rows", id="lengths"),
        pytest.param({"rows": np.array([2, 1, 3, 4])}, "ascending", id="rows"),
        pytest.param({"block": 0}, "block", id="block"),
        pytest.param({"resamples": 0}, "resamples", id="resamples"),
        pytest.param({"confidence": 1.0}, "confidence", id="confidence"),
        pytest.param({"confidence": math.nan}, "confidence", id="confidence NaN"),
    ],
)
def test_what_makes_no_interval_is_refused(change: dict, reason: str):
    given = {"rows": np.arange(4), "champion_loss": np.ones(4), "challenger_loss": np.ones(4)}
    given |= {"block": 2, "embargo_until_row": 0, "seed": 0}
    with pytest.raises(ValueError, match=reason):
        paired_evidence(**given | change)
