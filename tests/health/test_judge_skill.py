"""Whether a model's skill is judged by its figures: regression, stagnation, and neither."""

from datetime import date, timedelta

import numpy as np
import pytest

from hindsight.health.judge_skill import judge_skill
from hindsight.market.streams import Stream
from hindsight.store.skills import SkillStanding

ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")


def of(gains: list[float]) -> SkillStanding:
    days = [date(2024, 1, 1) + timedelta(days=day) for day in range(len(gains))]
    return SkillStanding(stream=ETH, model="cnn", days=days, gains=gains)


def noisy(mean: float, count: int, seed: int = 0, spread: float = 0.004) -> list[float]:
    return (mean + np.random.default_rng(seed).normal(0, spread, count)).tolist()


@pytest.mark.parametrize("days", [0, 1, 13])
def test_a_fortnight_is_needed_before_anything_is_said(days: int):
    found = judge_skill(of(noisy(0.01, days)))
    assert (found.verdict, found.needs_a_person) == ("off", False)
    assert found.figures["skill"] == "too early"


def test_a_steady_gain_is_well():
    found = judge_skill(of(noisy(0.01, 28)))
    assert (found.verdict, found.needs_a_person) == ("ok", False)
    assert found.figures["gain"] == pytest.approx(0.01, abs=0.003)
    assert found.figures["skill"] == "there"


def test_a_gain_that_falls_calls_a_person_with_both_figures():
    found = judge_skill(of([*noisy(0.02, 21), *noisy(0.005, 7, seed=1)]))
    assert (found.verdict, found.needs_a_person) == ("late", True)
    assert "fell from 0.0" in found.sentence
    assert found.figures["skill"] == "fallen"


def test_it_says_whose_skill_was_measured_and_advises_nothing_about_other_weights():
    found = judge_skill(of([*noisy(0.02, 21), *noisy(0.005, 7, seed=1)]))
    assert "of the weights that learn, not of the checkpoint that serves" in found.sentence
    assert "hindsight models list" in found.sentence
    assert "rollback" not in found.sentence


def test_a_gain_that_rises_calls_nobody():
    assert judge_skill(of([*noisy(0.005, 21), *noisy(0.02, 7, seed=1)])).verdict == "ok"


def test_no_gain_all_along_calls_a_person_whether_it_is_zero_or_below():
    for mean in (0.0, -0.01):
        found = judge_skill(of(noisy(mean, 28, seed=3)))
        assert (found.verdict, found.needs_a_person) == ("late", True)
        assert "No skill in 28 days to 2024-01-28" in found.sentence
        assert found.figures["skill"] == "none"


def test_noise_alone_rarely_looks_like_a_fall():
    called = sum("fell" in judge_skill(of(noisy(0.02, 28, seed=seed))).sentence for seed in range(400))
    assert called / 400 < 0.08
