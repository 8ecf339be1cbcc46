"""One step: the losses by ten plain lines, and the running mean that predicts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hindsight.inference.predictions import CANDLE, PIVOT_CANDLES, PIVOT_RETURN
from hindsight.training.engine import natural_units
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.objective import SUPERVISED
from hindsight.training.step import Batch, follow, loss_of, pull_of, set_rates
from tests.training.conftest import examples_of


@pytest.fixture(scope="module")
def batch(stretch) -> Batch:
    memory = stretch.new_memory()
    rows = stretch.first + np.arange(0, 80, 2)
    norm, weights = memory.norm_params[rows - memory.first_row], np.linspace(0.5, 2, 40).astype(np.float32)
    event_row = stretch.first + 60
    examples = examples_of(rows, norm, event_row, weights=weights)
    return SUPERVISED.batch(stretch.market.blocks, stretch.market.labels, examples, torch.device("cpu"))


def some_output(count: int) -> ModelOutput:
    generator = torch.Generator().manual_seed(1)
    widths = {"buy_logit_B": (), "candle_B4": (4,), "trend_logits_B3": (3,), "high_logit_B": ()}
    widths |= {"pivot_return_B4": (4,), "pivot_candles_B4": (4,), "hidden_BD": (8,)}
    return ModelOutput(**{name: 2 * torch.randn(count, *width, generator=generator) for name, width in widths.items()})


def test_the_losses_are_those_of_ten_plain_lines(batch: Batch):
    """Weighted means over the examples that have an answer; parts first, then their weighted sum."""
    output, hyper = some_output(40), Hyperparameters()
    sums: dict[str, list[tuple[float, float]]] = {name: [] for name in ("action", "candle", "trend", "side", "vector")}

    def huber(error: float) -> float:
        return 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5

    for i in range(40):
        weight = float(batch.weight_B[i])
        if batch.up_mask_B[i]:
            p = 1 / (1 + np.exp(-float(output.buy_logit_B[i])))
            sums["action"].append((weight, -np.log(p if batch.up_B[i] else 1 - p)))
        if batch.candle_mask_B[i]:
            errors = (output.candle_B4[i] - batch.candle_B4[i]).tolist()
            sums["candle"].append((weight, sum(map(huber, errors)) / 4))
        if batch.trend_mask_B[i]:
            shares = np.exp(output.trend_logits_B3[i].numpy().astype(np.float64))
            sums["trend"].append((weight, -np.log(shares[batch.trend_B[i]] / shares.sum())))
        if batch.high_mask_B[i]:
            p = 1 / (1 + np.exp(-float(output.high_logit_B[i])))
            sums["side"].append((weight, -np.log(p if batch.high_B[i] else 1 - p)))
        for k in range(4):
            if batch.pivot_mask_BK[i, k]:
                price = huber(float(output.pivot_return_B4[i, k] - batch.pivot_return_BK[i, k]))
                candles = huber(float(output.pivot_candles_B4[i, k] - batch.pivot_candles_BK[i, k]))
                sums["vector"].append((weight, price + candles))
    mean = {name: sum(w * v for w, v in each) / sum(w for w, _ in each) for name, each in sums.items()}
    loss = loss_of(output, batch, hyper)
    assert loss.action.item() == pytest.approx(mean["action"], rel=1e-4)
    assert loss.candle.item() == pytest.approx(mean["candle"], rel=1e-4)
    assert loss.trend.item() == pytest.approx(mean["trend"], rel=1e-4)
    assert loss.pivot.item() == pytest.approx(mean["side"] + mean["vector"], rel=1e-4)
    total = loss.action + hyper.weight_candle * loss.candle + loss.trend + loss.pivot
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-5)


def test_a_batch_in_which_nothing_is_answered_has_a_loss_of_zero_not_of_nothing(batch: Batch):
    masks = ("up_mask_B", "candle_mask_B", "trend_mask_B", "high_mask_B", "pivot_mask_BK")
    empty = replace(batch, **{name: torch.zeros_like(getattr(batch, name)) for name in masks})
    assert loss_of(some_output(40), empty, Hyperparameters()).total.item() == 0


def test_targets_are_in_the_units_of_the_reference_that_asked(batch: Batch, stretch):
    """Trap 15: normalised by the parameters stored with the reference, not by anything of the target."""
    labels, rows = stretch.market.labels, stretch.first + np.arange(0, 80, 2)
    at, scale = rows - labels.first_row, batch.frame.norm[:, 1].numpy()
    known = batch.candle_mask_B.numpy() == 1
    np.testing.assert_allclose(
        batch.candle_B4.numpy()[known], labels.candle.log_returns[at][known] / scale[known, None], rtol=1e-5
    )
    closes = batch.frame.candles[0][:, -1, 3].numpy()
    np.testing.assert_array_equal(batch.frame.norm[:, 0].numpy(), closes)


def test_targets_said_in_natural_units_are_what_the_market_answered(batch: Batch, stretch):
    """Trap 15: there by the batch, and back by the predictions, with the same four numbers."""
    labels, at = stretch.market.labels, stretch.first + np.arange(0, 80, 2) - stretch.market.labels.first_row
    output = some_output(40)._replace(
        candle_B4=batch.candle_B4, pivot_return_B4=batch.pivot_return_BK, pivot_candles_B4=batch.pivot_candles_BK
    )
    said = natural_units(output, batch.frame.norm).numpy()
    candle, pivots = batch.candle_mask_B.numpy() == 1, batch.pivot_mask_BK.numpy() == 1
    assert candle.sum() > 20
    assert pivots.sum() > 20
    np.testing.assert_allclose(said[:, CANDLE][candle], labels.candle.log_returns[at][candle], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(said[:, PIVOT_RETURN][pivots], labels.pivot.log_return[at][pivots], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(said[:, PIVOT_CANDLES][pivots], labels.pivot.candles[at][pivots], rtol=1e-5)


def test_the_mean_that_predicts_starts_with_the_weights_and_then_lags_behind_them(fresh_learner: Callable):
    learner = fresh_learner()
    hyper = Hyperparameters(average_decay=0.99)
    before = [parameter.clone() for parameter in learner.average.parameters()]
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter += 1
    shares = []
    for number in (1, 10, 100_000):
        for mean, old in zip(learner.average.parameters(), before, strict=True):
            mean.data.copy_(old)
        follow(learner.average, learner.model, torch.tensor(pull_of(hyper, number)))
        moved = [(mean - old).mean().item() for mean, old in zip(learner.average.parameters(), before, strict=True)]
        assert max(moved) == pytest.approx(min(moved), abs=1e-3)
        shares.append(moved[0])
    assert shares[0] == pytest.approx(1, abs=0.11)
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] == pytest.approx(0.01, abs=1e-3)


def test_only_matrices_decay(any_learner: Callable):
    """A step whose loss asks for nothing leaves biases and gains of norms as they are."""
    learner = any_learner()
    hyper = replace(learner.hyper, learning_rate=0.01, weight_decay=3.0)
    before = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    for weight in learner.model.parameters():
        weight.grad = torch.zeros_like(weight)
    set_rates(learner.optimizer, hyper)
    learner.optimizer.step()
    for name, weight in learner.model.named_parameters():
        expected = before[name] * (1 - 0.01 * 3.0) if weight.ndim > 1 else before[name]
        assert torch.allclose(weight, expected), name
