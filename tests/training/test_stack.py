"""Many learners at once: each comes to the weights, losses and predictions that it comes to by itself."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from hindsight.inference.blocks import Blocks, Frame
from hindsight.inference.frames import Frames, Rows
from hindsight.training.engine import Train, alone
from hindsight.training.graphs import Graphs, tensors_in
from hindsight.training.learner import Learner
from hindsight.training.loop import lesson
from hindsight.training.memory import Memory
from hindsight.training.predict import predict
from hindsight.training.replay import ReplayRule
from hindsight.training.resident import Gathers, on_device
from hindsight.training.stack import Stack, together
from tests.training.conftest import CADENCE, ON_GPU, examples_of, with_idle_weights
from tests.training.stand_in import STAND_IN, Device
from tests.training.test_graphs import is_recorded

STACKED = ("transformer", "cnn", "dqn")
VARIED = [
    {"learning_rate": 1e-3, "seed": 0},
    {"learning_rate": 3e-4, "seed": 1, "weight_decay": 1.0},
    {"learning_rate": 1e-3, "seed": 2, "average_decay": 0.9, "clip_norm": 0.1},
]
EVERY = (30, 30, 20)  # closes per step
CLOSES = 150


def lessons(
    stretch,
    make: Callable[..., Learner],
    model: str,
    device: str | torch.device = "cpu",
    every: tuple[int, ...] = EVERY,
    closes: int = CLOSES,
    seen: Gathers | None = None,
) -> list[tuple[Learner, Memory, object]]:
    found = []
    for varied, train_every in zip(VARIED, every, strict=True):
        learner, memory = make(seed=varied["seed"], device=device), stretch.new_memory(model)
        learner.hyper = replace(learner.hyper, **varied)
        market, first, end = stretch.market, stretch.first, stretch.first + closes
        given = (learner, market.blocks, market.labels, memory, first, end, market.l2_rows)
        rules = {"cadence": replace(CADENCE, train_every=train_every), "replay": ReplayRule(replay_window=1000)}
        found.append((learner, memory, lesson(*given, **rules, snapshot=lambda _: {}, seen=seen)))
    return found


def leave(stack: Stack) -> None:
    """Gives every learner its weights."""
    with torch.no_grad():
        for member, learner in enumerate(stack.learners):
            for module, stacked in ((learner.model, stack.weights), (learner.average, stack.means)):
                for name, weights in module.named_parameters():
                    weights.copy_(stacked[name][member])


def flat(learner: Learner) -> torch.Tensor:
    return torch.cat([weights.detach().flatten() for weights in learner.average.parameters()])


@pytest.mark.parametrize("any_model", STACKED, indirect=True)
def test_learners_taught_together_learn_what_each_learns_by_itself(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    """Other rates, seeds and cadences; sums in another order, so not to the bit."""
    apart = lessons(stretch, any_learner, any_model)
    expected = [alone(learner, each) for learner, _, each in apart]
    side_by_side = lessons(stretch, any_learner, any_model)
    stack = Stack([learner for learner, _, _ in side_by_side])
    found = together(stack, [each for _, _, each in side_by_side])
    leave(stack)
    for one, other, (learner, memory, _), (by_itself, alone_memory, _) in zip(
        found, expected, side_by_side, apart, strict=True
    ):
        assert len(one.steps) == len(other.steps) > 4
        assert [(step.number, step.event_row, step.trigger) for step in one.steps] == [
            (step.number, step.event_row, step.trigger) for step in other.steps
        ]
        assert [step.loss["total"] for step in one.steps] == pytest.approx(
            [step.loss["total"] for step in other.steps], rel=1e-3
        )
        np.testing.assert_array_equal(memory.made, alone_memory.made)
        np.testing.assert_allclose(memory.predictions, alone_memory.predictions, rtol=5e-3, atol=1e-5)
        start, stacked, single = (flat(each) for each in (any_learner(seed=learner.hyper.seed), learner, by_itself))
        assert (stacked - single).norm() < 0.02 * (single - start).norm()
        assert learner.number == by_itself.number


def test_weights_that_are_held_and_those_that_nothing_asks_for_stay_as_they_are_beside_others(
    stretch, fresh_learner: Callable[..., Learner]
):
    side_by_side = lessons(stretch, lambda **given: with_idle_weights(fresh_learner(**given)), "transformer")
    learners = [learner for learner, _, _ in side_by_side]
    before = [{name: each.clone() for name, each in learner.model.named_parameters()} for learner in learners]
    stack = Stack(learners)
    together(stack, [each for _, _, each in side_by_side])
    leave(stack)
    for learner, was in zip(learners, before, strict=True):
        held = next(name for name, weights in learner.model.named_parameters() if not weights.requires_grad)
        for name, weights in learner.model.named_parameters():
            assert torch.equal(weights, was[name]) == (name in (held, "unused")), name


def taught(
    stretch, make: Callable[..., Learner], model: str, device: str | torch.device, graphs: Graphs | None
) -> tuple[list, list]:
    """The losses and the predictions of each learner; all train at the same closes."""
    seen = on_device(stretch.market.blocks, torch.device(device))
    each = lessons(stretch, make, model, device, every=(20, 20, 20), closes=300, seen=seen)
    stack = Stack([learner for learner, _, _ in each])
    stack.graphs = graphs
    places = places_of(stack)
    found = together(stack, [one for _, _, one in each])
    assert places_of(stack) == places
    return [[step.loss["total"] for step in one.steps] for one in found], [memory.predictions for _, memory, _ in each]


def places_of(stack: Stack) -> list[int]:
    moments = [moment for each in stack.moments.values() for moment in each]
    return [each.data_ptr() for each in (*stack.weights.values(), *stack.means.values(), *moments, stack.taken)]


class Counted:
    """What frames are gathered from, and how often they were."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.times = blocks, 0

    def gather(self, rows: Rows, norm_B4: Frames) -> Frame[Frames]:
        self.times += 1
        return self.blocks.gather(rows, norm_B4)


@pytest.mark.parametrize("any_model", STACKED, indirect=True)
def test_what_many_train_on_is_made_at_once_and_is_what_each_would_make_by_itself(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    """To the bit. Two of four see the same market, at events between which answers come; the others one of their own,
    one of these with other candles and one with other answers."""
    market, learners = stretch.market, [any_learner(seed=seed) for seed in range(4)]
    tape, candle = market.blocks.own, market.labels.candle
    others = replace(market.blocks, tapes=[replace(tape, rows=tape.rows * np.float32(1.5))])
    told = replace(market.labels, candle=replace(candle, log_returns=-candle.log_returns))
    seen = [Counted(market.blocks), Counted(others)]
    markets = [(seen[0], told), (seen[0], market.labels), (seen[0], market.labels), (seen[1], market.labels)]
    works, expected = [], []
    for nth, (learner, (blocks, labels)) in enumerate(zip(learners, markets, strict=True)):
        rows, memory = stretch.first + np.arange(0, 80, 2) + nth, stretch.new_memory(any_model)
        predict(learner, market.blocks, memory, memory.predictable, stretch.first, stretch.first + 100)
        norm, event_row = memory.norm_params[rows - memory.first_row], stretch.first + 40 + 20 * nth
        weights = np.linspace(1 + nth, 2 + nth, 40).astype(np.float32)
        asked = examples_of(rows, norm, event_row, weights=weights, graded=10 * nth)
        examples = learner.objective.remembered(learner, labels, memory, asked)
        works.append(Train(blocks=blocks, labels=labels, examples=examples))
        expected.append(tensors_in(learner.objective.batch(blocks.blocks, labels, examples, learner.device)))
    found = tensors_in(Stack(learners)._batch_of(works))
    assert [each.times for each in seen] == [2, 1]
    assert len(found) == len(expected[0]) > 15
    for of_all, *each in zip(found, *expected, strict=True):
        torch.testing.assert_close(of_all, torch.stack(each), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("any_model", STACKED, indirect=True)
def test_learners_that_see_the_same_market_gather_as_often_as_one(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    times = []
    for many in (1, 3):
        seen = Counted(stretch.market.blocks)
        each = lessons(stretch, any_learner, any_model, every=(20, 20, 20), seen=seen)[:many]
        together(Stack([learner for learner, _, _ in each]), [one for _, _, one in each])
        times.append(seen.times)
    assert times[0] == times[1] > 10


@pytest.mark.parametrize("any_model", STACKED, indirect=True)
def test_a_recorded_stack_learns_to_the_bit_what_it_learns_launch_by_launch(
    stretch, any_learner: Callable[..., Learner], any_model: str, stand_in: Device
):
    graphs, given = Graphs(), (stretch, any_learner, any_model, STAND_IN)
    (losses, said), (expected_losses, expected) = taught(*given, graphs), taught(*given, None)
    assert is_recorded(graphs, "steps", "say")
    assert losses == expected_losses
    np.testing.assert_array_equal(said, expected)


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize("any_model", STACKED, indirect=True)
def test_a_gpu_that_plays_recordings_teaches_a_stack_what_it_teaches_launch_by_launch(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    graphs, given = Graphs(), (stretch, any_learner, any_model, "cuda")
    (losses, said), (expected_losses, expected) = taught(*given, graphs), taught(*given, None)
    assert is_recorded(graphs, "steps", "say")
    assert losses == [pytest.approx(each, rel=1e-2) for each in expected_losses]
    np.testing.assert_allclose(said, expected, rtol=1e-2, atol=1e-4)


def test_a_gradient_that_is_not_finite_changes_no_weight_of_its_learner_and_the_others_go_on(
    any_learner: Callable[..., Learner], any_model: str
):
    stack = Stack([any_learner(seed=seed) for seed in range(3)])
    before = {name: weights.clone() for name, weights in stack.weights.items()}
    gradients = {name: torch.ones_like(weights) for name, weights in stack.weights.items()}
    next(iter(gradients.values()))[1].fill_(torch.nan)
    stack._step(torch.arange(3), gradients, torch.ones(3))
    for name, weights in stack.weights.items():
        assert torch.equal(weights[1], before[name][1])
        assert not torch.equal(weights[0], before[name][0])
        assert not torch.equal(weights[2], before[name][2])
    assert stack.taken.tolist() == [1, 0, 1]
