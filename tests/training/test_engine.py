"""Who drives a lesson: by itself, or in a thread that nobody waits for beyond its time."""

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from hindsight.errors import ModelTimedOut
from hindsight.training import engine
from hindsight.training.engine import Lesson, Predict, in_time
from hindsight.training.learner import tensors_of


def test_in_time_does_what_alone_does_to_the_bit(stretch, any_learner: Callable, any_model: str):
    (one, memory), (other, other_memory) = ((any_learner(), stretch.new_memory(any_model)) for _ in range(2))
    expected = stretch.run(one, memory, 0, 240)
    found = stretch.run(other, other_memory, 0, 240, by=partial(in_time, seconds=600))
    assert len(found.steps) == len(expected.steps) > 10
    np.testing.assert_array_equal(memory.predictions, other_memory.predictions)
    left = tensors_of(other)
    assert all(tensor.equal(left[name]) for name, tensor in tensors_of(one).items())


def test_what_a_lesson_raises_is_raised_where_it_is_waited_for(fresh_learner: Callable):
    def broken() -> Lesson[None]:
        raise ZeroDivisionError("in the middle")
        yield

    with pytest.raises(ZeroDivisionError, match="in the middle"):
        in_time(fresh_learner(), broken(), 600)


def test_a_thread_that_was_given_up_does_no_more_than_the_piece_of_work_it_is_at(
    fresh_learner: Callable, monkeypatch: pytest.MonkeyPatch
):
    go_on, is_over, done = threading.Event(), threading.Event(), []

    def asks() -> Lesson[None]:
        try:
            while True:
                yield Predict(blocks=None, rows=np.arange(1), norm_params=np.ones((1, 4)))
        finally:
            is_over.set()

    def hang(_learner, work) -> None:
        done.append(work)
        go_on.wait()

    monkeypatch.setattr(engine, "do", hang)
    with pytest.raises(ModelTimedOut, match=r"no prediction and no training step came within 0\.05 s"):
        in_time(fresh_learner(), asks(), 0.05)
    assert len(done) == 1
    go_on.set()
    assert is_over.wait(30)
    assert len(done) == 1
