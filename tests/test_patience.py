"""Work that may hang is waited for as long as it goes on, and no longer."""

import gc
import threading
import weakref

import pytest

from hindsight.errors import ModelTimedOut
from hindsight.patience import Beat, in_time


class Held:
    """Something that work has in hand."""


def test_what_comes_of_it_comes_back_from_another_thread():
    assert in_time(lambda _: threading.current_thread().name, 600, "a model") == "a model"
    assert threading.current_thread() is threading.main_thread()


def test_work_may_last_for_many_times_as_long_as_it_may_be_silent():
    gap, beats = threading.Event(), 14

    def slow(beat: Beat) -> int:
        for _ in range(beats):
            gap.wait(0.25)
            beat()
        return beats

    assert in_time(slow, 3, "a model") == beats  # three seconds and a half


def test_what_it_raises_is_raised_where_it_is_waited_for_and_holds_on_to_nothing():
    """A learner on a full GPU has to be gone before the processor takes over."""
    known = []

    def broken(beat: Beat) -> None:
        held = Held()
        known.append(weakref.ref(held))
        beat()
        raise ZeroDivisionError("in the middle")

    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError, match="in the middle") as raised:
            in_time(broken, 600, "a model")
        del raised
        for thread in threading.enumerate():
            if thread.name == "a model":
                thread.join(30)
        assert known[0]() is None
    finally:
        gc.enable()


def test_work_that_was_given_up_ends_with_its_next_beat():
    go_on, is_over, beats = threading.Event(), threading.Event(), []

    def stuck(beat: Beat) -> None:
        try:
            while True:
                go_on.wait()
                beats.append(1)
                beat()
        finally:
            is_over.set()

    with pytest.raises(ModelTimedOut, match=r"a model: expected a .* at least every 0\.05 s, found none") as raised:
        in_time(stuck, 0.05, "a model")
    assert "Raise model_timeout_seconds" in str(raised.value)
    assert not is_over.is_set()
    go_on.set()
    assert is_over.wait(30)
    assert len(beats) == 1
