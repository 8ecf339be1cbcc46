"""A GPU that fails in the middle of a lesson: played by a training step that says so, for there need be none here."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hindsight.errors import DeviceFailed
from hindsight.learn import learn, learn_live
from hindsight.settings import Settings
from hindsight.training import engine
from tests.conftest import VENUE_DAYS

TABLES = {"inference_references": "made_at", "outcomes": "settled_at, kind, made_at", "training_steps": "step"}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twentieth training step finds the memory of the GPU full."""
    taken, usual = [], engine.train_step

    def step(*given: Any) -> object:
        taken.append(given)
        if len(taken) == 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nGPU 0 has …")
        return usual(*given)

    monkeypatch.setattr(engine, "train_step", step)


@pytest.mark.usefixtures("failing")
def test_where_the_device_is_chosen_by_itself_the_processor_goes_on_and_nothing_is_lost(
    venue_home: Settings,
    learned_home: Settings,
    copy_home: Callable[..., Settings],
    table: Callable,
    caplog: pytest.LogCaptureFixture,
):
    home = copy_home(venue_home, device="auto")
    with caplog.at_level(logging.WARNING):
        report = learn(home, home.streams[0], "transformer", VENUE_DAYS.end)
    assert "the GPU failed, and it goes on on the processor: CUDA out of memory. Tried to allocate" in caplog.text
    for name, order in TABLES.items():
        found, expected = (table(each, name, order).drop("device", strict=False) for each in (home, learned_home))
        assert found.equals(expected), name
    assert report.steps == len(table(home, "training_steps", "step"))


@pytest.mark.usefixtures("failing")
def test_live_the_close_is_done_on_the_processor(
    venue_home: Settings, learned_home: Settings, copy_home: Callable[..., Settings], table: Callable
):
    home, now = copy_home(venue_home, device="auto"), VENUE_DAYS.end
    while list(learn_live(home, home.streams[0], "transformer", lambda: now, leave_pivots=False)):
        pass
    assert len(table(home, "training_steps", "step")) == len(table(learned_home, "training_steps", "step"))


@pytest.mark.usefixtures("failing")
def test_a_gpu_that_is_asked_for_by_name_is_said_to_have_failed(
    venue_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
):
    from hindsight import recall

    monkeypatch.setattr(recall, "device_of", lambda settings: torch.device("cpu"))  # stands in for the GPU
    home = copy_home(venue_home, device="cuda")
    with pytest.raises(DeviceFailed, match="the GPU failed: CUDA out of memory") as failed:
        learn(home, home.streams[0], "transformer", VENUE_DAYS.end)
    assert "device = 'auto'" in str(failed.value)
    assert "\n" not in str(failed.value)
