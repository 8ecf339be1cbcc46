"""The blocks on a device, here the CPU: the frames that `Blocks` gathers, to the bit, and a loop that learns
the same."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from hindsight.inference.blocks import Blocks
from hindsight.inference.frames import Superseded
from hindsight.training import loop
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.resident import Resident

CPU = torch.device("cpu")
NOON = int(datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp()) // 60  # the own row that opens then


def assert_same_frames(blocks: Blocks, rows: np.ndarray) -> None:
    norm = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    expected, found = blocks.gather(rows, norm), Resident(blocks, CPU).gather(rows, norm)
    assert found.norm.numpy().tobytes() == norm.tobytes()
    for wanted, block in zip(expected.seen, found.seen, strict=True):
        assert block.dtype == torch.float32
        np.testing.assert_array_equal(block.numpy(), wanted)


def test_frames_on_the_device_are_those_of_the_host(made_up: Callable):
    rows = NOON + np.array([3, 0, 60, 3, 17])
    assert_same_frames(made_up(), rows)
    assert_same_frames(made_up(), np.empty(0, np.int64))
    bare = made_up()
    assert_same_frames(replace(bare, book=None, pivots=None), rows)


def test_what_was_superseded_is_seen_by_those_who_could_not_know_better(made_up: Callable):
    blocks = made_up()
    tapes = []
    for place, tape in enumerate(blocks.tapes):
        at = len(tape.rows) // 2 if place else NOON - tape.first_row
        older = [
            Superseded(
                first_row=tape.first_row + at - 2,
                rows=tape.rows[at - 2 : at + 3] + value,
                until_ms=(NOON + value) * 60_000,
            )
            for value in (9, 4, 20)
        ]
        tapes.append(replace(tape, superseded=older))
    corrected, rows = replace(blocks, tapes=tapes), NOON + np.arange(-5, 30)
    frames = corrected.gather(rows, np.ones((len(rows), 4), np.float32)).candles[0]
    assert (frames != blocks.gather(rows, np.ones((len(rows), 4), np.float32)).candles[0]).any()
    assert_same_frames(corrected, rows)


def test_a_frame_that_reaches_beyond_the_tape_is_refused_on_the_device_too(made_up: Callable):
    blocks = made_up()
    for row in (blocks.own.first_row + 3, blocks.own.end_row):
        with pytest.raises(ValueError, match="reach beyond the tape"):
            Resident(blocks, CPU).gather(np.array([row]), np.ones((1, 4), np.float32))


def test_a_book_of_which_only_a_part_is_recorded(made_up: Callable):
    blocks = made_up()
    assert blocks.book
    for first, end in ((0, 1000), (500, 900), (0, 3), (0, 0)):
        part = replace(blocks.book, first_row=blocks.book.first_row + first, rows=blocks.book.rows[first:end].copy())
        part.rows[::7] = 0  # seconds without a book
        assert_same_frames(replace(blocks, book=part), NOON + np.arange(-3, 40))


def test_the_loop_learns_the_same_from_what_lies_on_the_device(
    stretch, any_learner: Callable[..., Learner], any_model: str, monkeypatch: pytest.MonkeyPatch
):
    """The way of a GPU, on the CPU: resident frames, to the bit the same steps and predictions."""
    runs = []
    for gathers in (lambda blocks, _: blocks, Resident):
        monkeypatch.setattr(loop, "on_device", gathers)
        learner, memory = any_learner(), stretch.new_memory(any_model)
        steps = stretch.run(learner, memory, 0, 200).steps
        weights = {name: tensor.numpy().tobytes() for name, tensor in tensors_of(learner).items()}
        runs.append((weights, memory.predictions.tobytes(), [step.loss for step in steps]))
    assert runs[0] == runs[1]
    assert len(runs[0][2]) > 5
