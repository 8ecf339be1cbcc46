"""A learner from nothing, to tensors and back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from hindsight.errors import CheckpointUnreadable, SettingRefused
from hindsight.inference.shape import CandleBlock, FrameShape
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, new_learner, restore, tensors_of
from hindsight.training.models.registry import OURS, model_of
from hindsight.training.models.transformer import TransformerConfig
from tests.training.conftest import with_idle_weights

OWN = FrameShape(candles=(CandleBlock(symbol="ETH/USDT", timeframe="1m", length=300),))


def trained(learner: Learner, stretch) -> Learner:
    stretch.run(learner, stretch.new_memory(), 0, 40)
    assert learner.number > 0
    return learner


def test_initial_weights_follow_from_the_seed_and_leave_other_chance_alone(fresh_learner: Callable):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = tensors_of(fresh_learner(seed=1))
    assert torch.equal(torch.rand(3), expected)
    torch.rand(10)
    again, other = tensors_of(fresh_learner(seed=1)), tensors_of(fresh_learner(seed=2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.tokens.0.embed.weight"], other["model.tokens.0.embed.weight"])
    assert torch.equal(first["model.tokens.0.embed.weight"], first["average.tokens.0.embed.weight"])


def test_learners_made_in_many_threads_at_once_have_the_weights_of_those_made_alone():
    """Lessons run side by side, and torch has one generator of chance for the whole process."""
    wanted = [(model, seed) for model in OURS for seed in range(3)]

    def make(chosen: tuple[str, int]) -> dict[str, torch.Tensor]:
        model, seed = chosen
        return tensors_of(new_learner(model, Hyperparameters(seed=seed), torch.device("cpu"), OWN))

    alone = [make(each) for each in wanted]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(make, wanted * 12))
    assert torch.equal(torch.rand(3), expected)
    for chosen, found, weights in zip(wanted * 12, together, alone * 12, strict=True):
        assert all(torch.equal(found[name], weights[name]) for name in weights), chosen


def test_weights_that_never_had_a_gradient_come_back_as_they_were(stretch, fresh_learner: Callable):
    learner = trained(with_idle_weights(fresh_learner()), stretch)
    again = with_idle_weights(fresh_learner(seed=1))
    restore(again, tensors_of(learner), learner.number)
    found, expected = tensors_of(again), tensors_of(learner)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(name.startswith("optimizer.unused") for name in found)


def test_tensors_are_copies_that_training_on_does_not_change(stretch, fresh_learner: Callable):
    learner = trained(fresh_learner(), stretch)
    saved = tensors_of(learner)
    before = {name: tensor.clone() for name, tensor in saved.items()}
    stretch.run(learner, stretch.new_memory(), 0, 40)
    assert all(torch.equal(saved[name], before[name]) for name in saved)


def test_a_restored_learner_has_every_tensor_and_the_number(stretch, fresh_learner: Callable):
    learner = trained(fresh_learner(), stretch)
    other = fresh_learner(seed=9)
    restore(other, tensors_of(learner), learner.number)
    found, expected = tensors_of(other), tensors_of(learner)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert other.number == learner.number


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda tensors: tensors.pop("model.tokens.0.embed.weight"), id="a weight missing"),
        pytest.param(lambda tensors: tensors.pop("average.tokens.0.embed.bias"), id="a mean missing"),
        pytest.param(lambda tensors: tensors.pop("optimizer.tokens.0.embed.weight.exp_avg"), id="a moment missing"),
        pytest.param(lambda tensors: tensors.update({"model.tokens.0.embed.bias": torch.zeros(3)}), id="another shape"),
        pytest.param(
            lambda tensors: tensors.update({"optimizer.tokens.0.embed.bias.exp_avg": torch.zeros(3)}),
            id="a moment of another shape",
        ),
        pytest.param(lambda tensors: tensors.clear(), id="nothing"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_the_number_of_their_checkpoint(
    stretch, fresh_learner: Callable, spoil: Callable
):
    tensors = tensors_of(trained(fresh_learner(), stretch))
    spoil(tensors)
    with pytest.raises(CheckpointUnreadable, match="checkpoint 17 does not fit"):
        restore(fresh_learner(), tensors, 17)


def test_an_unknown_model_is_refused_with_the_models_there_are():
    with pytest.raises(SettingRefused, match="model 'gpt' is unknown; the models are transformer, cnn, lstm, dqn"):
        model_of("gpt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param({"width": 65}, "cannot be shared by 2 heads", id="heads"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**wrong)


@pytest.mark.parametrize(
    ("name", "per_block", "around"), [("transformer", 34, 78), ("cnn", 87, 23), ("lstm", 51, 23), ("dqn", 26, 24)]
)
def test_a_model_has_the_size_that_is_stated_in_thousands_of_weights(name: str, per_block: int, around: int):
    hour = CandleBlock(symbol="ETH/USDT", timeframe="1h", length=300)
    one, two = (
        sum(
            parameter.numel()
            for parameter in new_learner(name, Hyperparameters(), torch.device("cpu"), shape).model.parameters()
        )
        for shape in (OWN, replace(OWN, candles=(*OWN.candles, hour)))
    )
    assert two - one == pytest.approx(1000 * per_block, rel=0.03)
    assert one - (two - one) == pytest.approx(1000 * around, rel=0.03)
