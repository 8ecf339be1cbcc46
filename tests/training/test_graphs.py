"""Recorded work: what it reads is found wherever it stands, and it leads to what it led to launch by launch. Shown on a
stand-in for a GPU, and on one where there is one."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch

from hindsight.training.engine import _step
from hindsight.training.graphs import FIRST_DONE, Graphs, tensors_in, with_tensors
from hindsight.training.learner import Learner, copy_of, restore, tensors_of
from hindsight.training.predict import predict
from tests.training.conftest import ON_GPU, examples_of
from tests.training.stand_in import STAND_IN, Device


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
        _step(learner, with_tensors(batch_of(stretch, learner, any_model), put))
        weights.append({name: tensor.numpy().tobytes() for name, tensor in tensors_of(learner).items()})
    assert weights[0] == weights[1]


WAITING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a list of places": lambda tensor: tensor[[0, 2]],
    "a mask": lambda tensor: tensor[tensor > 1],
    "a mask that is written to": lambda tensor: tensor.clone().index_put((tensor > 1,), tensor[0]),
    "a tensor of Python's": lambda tensor: tensor + torch.tensor([2.0], device=tensor.device),
    "a number for the host": lambda tensor: tensor + tensor[0].item(),
    "places that are not zero": lambda tensor: tensor.nonzero(),
}


def test_the_stand_in_takes_no_numbers_of_the_hosts(stand_in: Device):
    here, there = torch.ones(2), torch.ones(2).to(STAND_IN)
    assert (there * 2 + torch.tensor(1.0)).tolist() == [3, 3]  # one number is a number, to a GPU as well
    for mixed in (lambda: there + here, lambda: here.add_(there), lambda: torch.cat([here, there])):
        with pytest.raises(AssertionError, match="of the host's and of the device's"):
            mixed()


@pytest.mark.parametrize("waiting", WAITING.values(), ids=WAITING)
def test_what_cannot_be_recorded_is_done_without_a_recording(
    waiting: Callable[[torch.Tensor], torch.Tensor], stand_in: Device, caplog: pytest.LogCaptureFixture
):
    graphs, usual = Graphs(), torch.cuda.current_stream()
    for value in range(FIRST_DONE + 3):
        given = torch.arange(4.0) + value
        found = graphs.run(("waiting",), waiting, given.to(STAND_IN))
        assert found.tolist() == waiting(given).tolist()
        assert torch.cuda.current_stream() is usual
    assert list(graphs.recorded.values()) == [None]
    assert "launch by launch" in caplog.text


def test_a_recording_does_what_was_recorded_and_nothing_that_only_python_did(stand_in: Device):
    """Whoever keeps a number on the host gets that of the recording again: the loop must not."""
    graphs, state, added = Graphs(), torch.zeros(2).to(STAND_IN), torch.tensor(0.0)

    def work(given: torch.Tensor) -> torch.Tensor:
        state.add_(given)
        return state * 2 + added

    found = []
    for value in range(FIRST_DONE + 2):
        added.fill_(value)
        found.append(graphs.run(("adds",), work, torch.ones(2).to(STAND_IN)).tolist())
    # The recording was made when the number was 3, and changed no state of its own.
    assert found == [[2 * (value + 1) + min(value, FIRST_DONE)] * 2 for value in range(FIRST_DONE + 2)]


def test_recorded_work_leads_to_what_it_leads_to_launch_by_launch(
    stretch, any_learner: Callable[..., Learner], any_model: str, stand_in: Device
):
    """To the bit. What makes a difference from one call to the next is among what is given, or keeps its place."""
    losses, said = [], []
    for graphs in (Graphs(), None):
        learner, memory = any_learner(device=STAND_IN), stretch.new_memory(any_model)
        places = places_of(learner)
        learner.graphs = graphs
        losses.append([step.loss for step in stretch.run(learner, memory, 0, 420).steps])
        said.append(memory.predictions)
        assert places_of(learner) == places
        assert graphs is None or is_recorded(graphs, "step", "say")
    assert losses[0] == losses[1]
    assert len(losses[0]) > 40
    np.testing.assert_array_equal(*said)


@pytest.mark.usefixtures("stand_in")
def test_learners_in_threads_record_one_at_a_time_and_nobody_waits_for_another(monkeypatch: pytest.MonkeyPatch):
    """What another records may hang. In another mode than this one, what the others ask for meanwhile would fail."""
    modes, is_let_go = list[str](), Event()

    @contextmanager
    def graph(*_: object, capture_error_mode: str, **__: object) -> Iterator[None]:
        modes.append(capture_error_mode)
        if len(modes) == 1:
            is_let_go.wait(60)
        yield

    def learn(graphs: Graphs) -> None:
        for value in range(FIRST_DONE + 1):
            graphs.run(("doubles",), lambda given: given * 2, torch.full((1,), value))

    first, second = Graphs(), Graphs()
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(torch.cuda, "graph", graph)
        hanging = pool.submit(learn, first)
        while not modes:
            time.sleep(0.01)
        learn(second)
        assert modes == ["thread_local"]
        assert second.recorded == {}
        is_let_go.set()
        hanging.result()
        learn(second)
    assert is_recorded(first, "doubles")
    assert is_recorded(second, "doubles")


def test_what_a_learner_recorded_is_not_of_what_it_becomes(
    stretch, any_learner: Callable[..., Learner], any_model: str, stand_in: Device
):
    """Other weights that serve, other hyperparameters, and weights that were brought back."""
    said, losses, by = [], [], set()
    for is_recording in (True, False):
        learner, memory = any_learner(device=STAND_IN), stretch.new_memory(any_model)
        learner.graphs = Graphs() if is_recording else None
        losses.append([])
        for nth in range(4):
            if nth == 1:
                saved, number = tensors_of(learner), learner.number
            if nth in (1, 2):
                learner.serving, learner.serving_id = copy_of(learner.average), learner.number
            if nth == 3:
                restore(learner, saved, number)
                learner.graphs = learner.graphs if is_recording else None
                learner.hyper = replace(learner.hyper, weight_trend=3.0)
            steps = stretch.run(learner, memory, 105 * nth, 105 * (nth + 1)).steps
            losses[-1] += [step.loss for step in steps]
            if learner.graphs:
                assert None not in learner.graphs.recorded.values()
                by |= {name[1] for name, _ in learner.graphs.recorded if name[0] == "say"}
        said.append((memory.predictions, memory.served))
    assert losses[0] == losses[1]
    for recorded, expected in zip(*said, strict=True):
        np.testing.assert_array_equal(recorded, expected)
    assert len(by) == 3, "without any weights that serve, with some, and with others"


def places_of(learner: Learner) -> list[int]:
    return [each.data_ptr() for module in (learner.model, learner.average) for each in module.parameters()]


def is_recorded(graphs: Graphs, *names: str) -> bool:
    """Whether work of these names was recorded, and none was tried in vain."""
    found = {name[0] for (name, _), recorded in graphs.recorded.items() if recorded}
    return found >= set(names) and None not in graphs.recorded.values()


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
        found = graphs.run(("waits",), lambda tensor: tensor * tensor.sum().item(), given + value)
        assert found.tolist() == [3 * (1 + value) ** 2] * 3
