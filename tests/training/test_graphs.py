"""Recorded work: what it reads is found wherever it stands; on a GPU it leads to what it led to launch by launch."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hindsight.training.graphs import Graphs, tensors_in, with_tensors
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.predict import predict
from hindsight.training.step import Examples
from tests.training.conftest import ON_GPU


class PlayedAgain:
    """Stands where `Graphs` stands on a GPU: what was asked first is done each time, on tensors that keep their places
    and are given the values of now."""

    def __init__(self) -> None:
        self.kept: dict[Hashable, tuple[Callable[[Any], Tensor], Any]] = {}
        self.played = 0

    def run(self, name: Hashable, work: Callable[[Any], Tensor], given: Any) -> Tensor:
        key = (name, tuple(each.shape for each in tensors_in(given)))
        if key not in self.kept:
            self.kept[key] = work, with_tensors(given, Tensor.clone)
            return work(given)
        self.played += 1
        first_work, kept = self.kept[key]
        for place, tensor in zip(tensors_in(kept), tensors_in(given), strict=True):
            place.copy_(tensor)
        return first_work(kept).clone()


def batch_of(stretch, learner: Learner, model: str) -> object:
    memory = stretch.new_memory(model)
    predict(learner, stretch.market.blocks, memory, memory.predictable, stretch.first, stretch.first + 100)
    rows, weights = stretch.first + np.arange(0, 80, 2), np.ones(40, np.float32)
    examples = Examples(rows=rows, weights=weights, graded=4, event_row=stretch.first + 60)
    return learner.objective.batch(learner, stretch.market.blocks, stretch.market.labels, memory, examples)


def test_every_tensor_of_a_batch_is_found_once_and_can_be_put_elsewhere(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    batch = batch_of(stretch, any_learner(), any_model)
    found = tensors_in(batch)
    assert len({id(tensor) for tensor in found}) == len(found) > 15
    again = with_tensors(batch, torch.Tensor.clone)
    assert type(again) is type(batch)
    for tensor, other in zip(found, tensors_in(again), strict=True):
        assert tensor is not other
        assert torch.equal(tensor.nan_to_num(), other.nan_to_num())


def test_a_step_on_the_tensors_put_elsewhere_is_the_same_step(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    """All that a step reads of its batch are those tensors: nothing of it would be left behind in a recording."""
    weights = []
    for put in (lambda tensor: tensor, torch.Tensor.clone):
        learner = any_learner()
        learner.pull.fill_(1.0)
        learner.objective.step(learner, with_tensors(batch_of(stretch, learner, any_model), put))
        weights.append({name: tensor.numpy().tobytes() for name, tensor in tensors_of(learner).items()})
    assert weights[0] == weights[1]


def test_what_is_asked_first_can_be_done_for_all_that_are_asked_later(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    """So nothing but the tensors given, and what stays at its place, makes a difference: a recording may be played."""
    losses, said = [], []
    for graphs in (PlayedAgain(), None):
        learner, memory = any_learner(), stretch.new_memory(any_model)
        learner.graphs = graphs
        losses.append([step.loss for step in stretch.run(learner, memory, 0, 420).steps])
        said.append(memory.predictions)
        assert graphs is None or graphs.played > len(losses[0])
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(*said)


@pytest.mark.gpu
@ON_GPU
def test_recorded_steps_lead_to_the_weights_of_steps_launch_by_launch(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    losses = []
    for recorded in (True, False):
        learner = any_learner(device="cuda")
        learner.graphs = Graphs() if recorded else None
        steps = stretch.run(learner, stretch.new_memory(any_model), 0, 420).steps
        losses.append([step.loss["total"] for step in steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.gpu
@ON_GPU
def test_work_that_waits_for_the_device_is_done_without_a_recording():
    graphs, given = Graphs(), torch.ones(3, device="cuda")
    for value in range(6):
        found = graphs.run("waits", lambda tensor: tensor * tensor.sum().item(), given + value)
        assert found.tolist() == [3 * (1 + value) ** 2] * 3
