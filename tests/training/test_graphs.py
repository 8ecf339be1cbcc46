"""Recorded work: what it reads is found wherever it stands; on a GPU it leads to what it led to launch by launch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hindsight.training.graphs import FIRST_DONE, Graphs, tensors_in, with_tensors
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.predict import predict
from tests.training.conftest import ON_GPU, examples_of
from tests.training.recording import PlayedAgain, is_recorded


def batch_of(stretch, learner: Learner, model: str) -> object:
    memory = stretch.new_memory(model)
    predict(learner, stretch.market.blocks, memory, memory.predictable, stretch.first, stretch.first + 100)
    rows, market = stretch.first + np.arange(0, 80, 2), stretch.market
    examples = examples_of(rows, memory.norm_params[rows - memory.first_row], stretch.first + 60, graded=4)
    examples = learner.objective.remembered(learner, market.labels, memory, examples)
    return learner.objective.batch(market.blocks, market.labels, examples, learner.device)


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


WAITING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a list of places": lambda tensor: tensor[[0, 2]],
    "a mask": lambda tensor: tensor[tensor > 1],
    "a mask that is written to": lambda tensor: tensor.clone().index_put((tensor > 1,), tensor[0]),
    "a number of the host's": lambda tensor: tensor + torch.tensor(2.0),
    "a number for the host": lambda tensor: tensor + tensor[0].item(),
    "places that are not zero": lambda tensor: tensor.nonzero(),
}


@pytest.mark.parametrize("waiting", WAITING.values(), ids=WAITING)
def test_what_a_gpu_could_not_record_is_refused_on_a_processor(waiting: Callable[[torch.Tensor], torch.Tensor]):
    graphs, given = PlayedAgain(), torch.arange(4.0)
    for _ in range(FIRST_DONE):
        graphs.run("waiting", waiting, given)
    with pytest.raises(AssertionError, match=r"waits for the device|brings a number"):
        graphs.run("waiting", waiting, given)


def test_work_may_be_recorded(stretch, any_learner: Callable[..., Learner], any_model: str):
    """What makes a difference from one call to the next is among what is given, or keeps its place."""
    losses, said = [], []
    for graphs in (PlayedAgain(), None):
        learner, memory = any_learner(), stretch.new_memory(any_model)
        places = places_of(learner)
        learner.graphs = graphs
        losses.append([step.loss for step in stretch.run(learner, memory, 0, 420).steps])
        said.append(memory.predictions)
        assert places_of(learner) == places
        if graphs is not None:
            assert {name[0] for name, _ in graphs.kept} == {"step", "say"}
            assert graphs.played > 20
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(*said)


def places_of(learner: Learner) -> list[int]:
    return [each.data_ptr() for module in (learner.model, learner.average) for each in module.parameters()]


@pytest.mark.gpu
@ON_GPU
def test_recorded_steps_lead_to_what_steps_launch_by_launch_lead_to(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    losses, said = [], []
    for graphs in (Graphs(), None):
        learner, memory = any_learner(device="cuda"), stretch.new_memory(any_model)
        learner.graphs = graphs
        losses.append([step.loss["total"] for step in stretch.run(learner, memory, 0, 420).steps])
        said.append(memory.predictions)
        assert graphs is None or is_recorded(graphs, "step", "say")
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    np.testing.assert_allclose(*said, rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
@ON_GPU
def test_work_that_waits_for_the_device_is_done_without_a_recording():
    graphs, given = Graphs(), torch.ones(3, device="cuda")
    for value in range(6):
        found = graphs.run("waits", lambda tensor: tensor * tensor.sum().item(), given + value)
        assert found.tolist() == [3 * (1 + value) ** 2] * 3
