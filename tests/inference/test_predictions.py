"""Predictions in natural units, and the prequential loss over a window of what was settled."""

from collections.abc import Callable

import numpy as np
import pytest

from hindsight.inference.labels import PENDING, VALIDATED, Labels, TrendRule, label
from hindsight.inference.losses import MINIMUM_PROBABILITY, huber, log_loss, of_what_came, window_loss
from hindsight.inference.predictions import BUY, NEXT_HIGH, TREND, WIDTH, trend_predicted

FIRST_ROW, STEP_MS = 28_000_000, 60_000


def random_predictions(count: int, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    predicted = chance.random((count, WIDTH)).astype(np.float32)
    predicted[:, TREND] /= predicted[:, TREND].sum(axis=1, keepdims=True)
    return predicted


@pytest.fixture(scope="module")
def labels(walk: Callable) -> Labels:
    rows, pivots = walk(600, seed=8, missing=0.005)
    return label(FIRST_ROW, rows, pivots, STEP_MS, TrendRule(trend_ttl=60))


def test_huber_and_log_loss_are_the_textbooks():
    np.testing.assert_allclose(huber(np.array([-2.0, -1, -0.5, 0, 1, 3])), [1.5, 0.5, 0.125, 0, 0.5, 2.5])
    np.testing.assert_allclose(log_loss(np.array([1.0, 0.5])), [0, np.log(2)])
    assert log_loss(np.array([0.0]))[0] == pytest.approx(-np.log(MINIMUM_PROBABILITY))
    np.testing.assert_allclose(of_what_came(np.array([0.7, 0.7]), np.array([True, False])), [0.7, 0.3])


def test_the_window_loss_is_that_of_ten_plain_lines(labels: Labels):
    predicted, made = random_predictions(600), np.random.default_rng(1).random(600) < 0.7
    for event_row in FIRST_ROW + np.array([50, 200, 400, 599]):
        parts: dict[str, list[float]] = {"action": [], "trend": [], "side": []}
        for at in np.flatnonzero(made):
            candle, pivot, trend = labels.candle, labels.pivot, labels.trend
            if candle.usable[at] and event_row - 100 < candle.settled[at] <= event_row:
                rose = candle.log_returns[at, 3]
                if rose != 0:
                    parts["action"].append(-np.log(predicted[at, BUY] if rose > 0 else 1 - predicted[at, BUY]))
            if trend.status[at] == VALIDATED and event_row - 100 < trend.settled[at] <= event_row:
                parts["trend"].append(-np.log(predicted[at, 5 + trend.trend[at]]))
            first = min(pivot.settled[at, :2])
            if pivot.usable[at, :2].any() and event_row - 100 < first <= event_row:
                high = predicted[at, NEXT_HIGH]
                parts["side"].append(-np.log(high if pivot.next_type[at] == 1 else 1 - high))
        chance = {"action": np.log(2), "trend": np.log(3), "side": np.log(2)}
        expected = sum(float(np.mean(part)) if part else chance[name] for name, part in parts.items())
        loss, scored = window_loss(labels, predicted, made, int(event_row), 100)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert scored == len(parts["action"])


def test_the_window_loss_uses_no_answer_known_after_the_event(labels: Labels):
    """Trap 28: a checkpoint is judged by what was known when it was made."""
    predicted, made = random_predictions(600), np.ones(600, np.bool_)
    event_row = FIRST_ROW + 300
    expected = window_loss(labels, predicted, made, event_row, 100)
    unknown = labels.candle.settled > event_row
    labels.candle.log_returns[unknown] *= -1
    flipped = (labels.trend.settled > event_row) & (labels.trend.trend >= 0)
    labels.trend.trend[flipped] = 2 - labels.trend.trend[flipped]
    later = labels.pivot.settled[:, :2].min(axis=1) > event_row
    labels.pivot.next_type[later] = 1 - labels.pivot.next_type[later]
    assert window_loss(labels, predicted, made, event_row, 100) == expected
    labels.candle.log_returns[unknown] *= -1
    labels.trend.trend[flipped] = 2 - labels.trend.trend[flipped]
    labels.pivot.next_type[later] = 1 - labels.pivot.next_type[later]


def test_a_window_without_any_answer_counts_as_chance_and_says_that_it_scored_nothing(labels: Labels):
    loss, scored = window_loss(labels, random_predictions(600), np.zeros(600, np.bool_), FIRST_ROW + 300, 100)
    assert loss == pytest.approx(2 * np.log(2) + np.log(3))
    assert scored == 0


def test_a_prediction_that_was_certain_and_wrong_has_a_finite_loss(labels: Labels):
    predicted = np.zeros((600, WIDTH), np.float32)
    loss, _ = window_loss(labels, predicted, np.ones(600, np.bool_), FIRST_ROW + 599, 600)
    assert np.isfinite(loss)
    assert (labels.trend.settled < PENDING).any()


def test_the_trend_predicted_is_the_likeliest_one():
    predicted = random_predictions(50)
    assert trend_predicted(predicted).tolist() == [int(np.argmax(row[5:8])) for row in predicted]
