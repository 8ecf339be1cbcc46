"""Metrics: what the positions of a window earned, by plain lines and by nothing that came later; what is refused."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hindsight.inference.labels import candle_labels
from hindsight.inference.losses import window_loss
from hindsight.inference.positions import POSITION
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.metrics import LOG_LOSS, Measured, Metric
from hindsight.training.models.registry import OURS, model_of
from hindsight.training.q_learning import NET_RETURN
from hindsight.training.transitions import ACTION, EXTRAS, PREVIOUS

FIRST, COUNT = 1000, 200
HYPER = Hyperparameters(fee=0.0004, half_spread=0.0001)


def past(seed: int, every: int) -> tuple[Any, Any]:
    """Labels and memory of COUNT closes, of which some candles are missing and some references were not made."""
    chance = np.random.default_rng(seed)
    candles = np.tile(100 * np.exp(0.001 * chance.normal(size=COUNT).cumsum())[:, None], (1, 40)).astype(np.float32)
    candles[chance.random(COUNT) < 0.05] = np.nan
    made = (np.arange(FIRST + 1, FIRST + COUNT + 1) % every == 0) & (chance.random(COUNT) < 0.9)
    extras = chance.integers(0, 3, (COUNT, len(EXTRAS))).astype(np.float32)
    extras[~made] = np.nan
    norm_params = chance.uniform(0.0005, 0.002, (COUNT, 4)).astype(np.float32)
    memory = SimpleNamespace(first_row=FIRST, made=made, extras=extras, norm_params=norm_params)
    return SimpleNamespace(first_row=FIRST, candle=candle_labels(FIRST, candles)), memory


def plain_net_return(labels: Any, memory: Any, every: int, row: int, window: int) -> tuple[float, int]:
    rewards = []
    for at in range(COUNT - every):
        settled, candles = FIRST + at + every, slice(at, at + every)
        if not memory.made[at] or not row - window < settled <= row or not labels.candle.usable[candles].all():
            continue
        previous, action = memory.extras[at, [PREVIOUS, ACTION]].astype(int)
        moved = np.expm1(labels.candle.log_returns[candles, 3].astype(float).sum())
        rewards.append(POSITION[action] * moved - 0.0005 * abs(action - previous))
    return 10_000 * float(np.mean(rewards)), len(rewards)


@pytest.mark.parametrize("every", [1, 3])
def test_the_net_return_is_that_of_plain_lines_and_of_nothing_that_came_later(every: int):
    hyper = replace(HYPER, predict_every=every)
    for seed in range(4):
        labels, memory = past(seed, every)
        row = FIRST + 150 - seed
        found = NET_RETURN.measure(labels, memory, hyper, row, 90)
        value, scored = plain_net_return(labels, memory, every, row, 90)
        assert found == (pytest.approx(value), scored)
        assert scored > 10
        later = np.arange(COUNT) + FIRST > row
        memory.extras[later] = 2
        labels.candle.log_returns[np.arange(COUNT) + FIRST >= row] = 5.0
        assert NET_RETURN.measure(labels, memory, hyper, row, 90) == found


def test_where_nothing_settled_there_is_no_net_return():
    labels, memory = past(1, 1)
    memory.made[:] = False
    value, scored = NET_RETURN.measure(labels, memory, HYPER, FIRST + 150, 90)
    assert np.isnan(value)
    assert scored == 0


def test_the_log_loss_is_that_of_the_window(stretch: Any, fresh_learner: Callable):
    memory = stretch.new_memory()
    stretch.run(fresh_learner(), memory, 0, 200)
    row, labels = stretch.first + 199, stretch.market.labels
    found = LOG_LOSS.measure(labels, memory, HYPER, row, 120)
    assert found == Measured(*window_loss(labels, memory.predictions, memory.made, row, 120))
    assert found.scored > 100


def test_of_our_models_the_dqn_is_ranked_by_what_it_earns_and_the_others_by_what_they_foresee():
    ranked_by = {name: model_of(name).metric for name in OURS}
    assert ranked_by == {name: NET_RETURN if name == "dqn" else LOG_LOSS for name in OURS}
    assert (LOG_LOSS.direction, NET_RETURN.direction) == ("lower", "higher")


@pytest.mark.parametrize(("name", "direction"), [("loss", "down"), (" ", "lower"), ("profit", "")])
def test_a_metric_without_a_name_or_a_direction_is_refused(name: str, direction: Any):
    with pytest.raises(ValueError, match='expected a name and a direction of "lower" or "higher"'):
        Metric(name=name, direction=direction, measure=LOG_LOSS.measure)
