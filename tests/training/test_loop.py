"""The loop: events in order, predictions that depend on nothing but their frame, and steps that can be resumed."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from hindsight.errors import FrameRefused
from hindsight.inference.frames import COLUMNS, Superseded, Tape
from hindsight.inference.labels import VALIDATED
from hindsight.training.learner import Learner, restore, tensors_of
from hindsight.training.loop import Cadence, events, newly_settled
from hindsight.training.objective import SUPERVISED, Supervised
from hindsight.training.predict import _to_host, forward, predict
from hindsight.training.step import loss_of, train_step
from tests.training.conftest import ON_GPU, SHAPE, examples_of
from tests.training.stand_in import STAND_IN, Device

# fmt: off
GOLDEN = [
    0.803377, 4.900201, 3.794861, 2.968702, 3.88966, 2.490291, 3.285721, 2.512205, 2.912861, 2.681769,
    2.034367, 4.056177, 2.43681, 3.385365, 3.42647, 2.628368, 2.470055, 3.676704, 2.698873, 4.235856,
]
# fmt: on


def bytes_of(learner: Learner) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in tensors_of(learner).items()}


def test_the_losses_of_the_first_twenty_steps_are_the_golden_ones(stretch, fresh_learner: Callable):
    """Simulated data, fixed seed. Another number here means that the model, a channel, a label or a loss is another."""
    steps = stretch.run(fresh_learner(), stretch.new_memory(), 0, 420).steps[:20]
    found = [step.loss["total"] for step in steps]
    assert found == pytest.approx(GOLDEN, rel=1e-4), str([round(loss, 6) for loss in found])


def test_ten_steps_are_five_and_five_more_from_what_was_saved(stretch, any_learner: Callable, any_model: str):
    """Resume, to the bit: weights, running mean, optimizer, draws, losses and predictions."""
    at_once, memory = any_learner(), stretch.new_memory(any_model)
    whole = stretch.run(at_once, memory, 0, 420)
    rows = [step.event_row - stretch.first for step in whole.steps]
    assert len(rows) > 20
    middle, end = rows[5], rows[10]

    first, resumed_memory = any_learner(), stretch.new_memory(any_model)
    before = stretch.run(first, resumed_memory, 0, middle)
    saved = tensors_of(first)
    second = any_learner(seed=99)
    second.hyper = first.hyper  # other initial weights, and the same draws
    restore(second, saved, first.number)
    after = stretch.run(second, resumed_memory, middle, end)
    assert len(before.steps) == 5
    assert len(after.steps) == 5
    for step, expected in zip([*before.steps, *after.steps], whole.steps, strict=False):
        assert (step.number, step.trigger, step.event_row, step.seed) == (
            expected.number,
            expected.trigger,
            expected.event_row,
            expected.seed,
        )
        assert step.settled.tolist() == expected.settled.tolist()
        assert step.replay.rows.tolist() == expected.replay.rows.tolist()
        assert step.loss == expected.loss
    made = slice(600, 600 + end)
    np.testing.assert_array_equal(resumed_memory.predictions[made], memory.predictions[made])
    np.testing.assert_array_equal(resumed_memory.checkpoint[made], memory.checkpoint[made])

    alone, memory = any_learner(), stretch.new_memory(any_model)
    stretch.run(alone, memory, 0, end)
    assert bytes_of(alone) == bytes_of(second)


def test_a_prediction_is_the_same_whatever_is_predicted_with_it(stretch, any_learner: Callable, any_model: str):
    """To the bit, for one number of threads: a live prediction is made alone, in a backfill among many."""
    learner, memory, count = any_learner(), stretch.new_memory(any_model), 96
    rows = stretch.first + np.arange(count)
    norm = memory.norm_params[600 : 600 + count]

    def said(at: object) -> np.ndarray:
        return forward(learner, stretch.market.blocks.gather(rows[at], norm[at])).predictions

    together = said(slice(None))
    for size in (1, 2, 3, 4, 5, 7, 15, 16, 31, 32, 60):
        apart = [said(slice(at, at + size)) for at in range(0, count, size)]
        np.testing.assert_array_equal(np.concatenate(apart), together, err_msg=f"{size} at a time")
    mixed = np.random.default_rng(0).permutation(count)
    np.testing.assert_array_equal(said(mixed), together[mixed])


def test_the_loop_refuses_frames_of_another_shape_before_any_weight_sees_them(
    stretch, any_learner: Callable, any_model: str
):
    """Also those that the weights would take: a recurrence runs over any number of rows."""
    shape = replace(SHAPE, candles=(replace(SHAPE.candles[0], length=299),))
    blocks = replace(stretch.market.blocks, shape=shape)
    short = replace(stretch, market=replace(stretch.market, blocks=blocks))
    memory = stretch.new_memory(any_model)
    with pytest.raises(FrameRefused, match=r"block ETH/USDT 1m: expected float32 \[\d+, 300, 43\], found .* 299, 43\]"):
        short.run(any_learner(), memory, 0, 5)
    assert np.isnan(memory.predictions).all()


def test_absurd_values_after_the_close_change_no_prediction(stretch, any_learner: Callable, any_model: str):
    """Trap 3, through the model."""
    learner, memory = any_learner(), stretch.new_memory(any_model)
    blocks, row = stretch.market.blocks, stretch.first + 50
    tape = blocks.own
    rows = tape.rows.copy()
    rows[row + 1 - tape.first_row :] = 1e9
    planted = Tape(step_ms=tape.step_ms, first_row=tape.first_row, rows=rows, superseded=tape.superseded)
    norm = memory.norm_params[650:651]
    seen = [
        forward(learner, each.gather(np.array([row]), norm)).predictions
        for each in (blocks, replace(blocks, tapes=[planted]))
    ]
    np.testing.assert_array_equal(*seen)


def test_probabilities_are_probabilities_and_the_predicted_candle_is_one(
    stretch, any_learner: Callable, any_model: str
):
    learner, memory = any_learner(), stretch.new_memory(any_model)
    frame = stretch.market.blocks.gather(stretch.first + np.arange(50), memory.norm_params[600:650])
    said = forward(learner, frame).predictions
    assert np.isfinite(said).all()
    assert ((said[:, [0, 5, 6, 7, 8]] > 0) & (said[:, [0, 5, 6, 7, 8]] < 1)).all()
    np.testing.assert_allclose(said[:, 5:8].sum(axis=1), 1, rtol=1e-5)
    open_, high, low, close = said[:, 1:5].T
    assert (high >= np.maximum(open_, close)).all()
    assert (low <= np.minimum(open_, close)).all()
    assert (said[:, 13:] > 0).all()
    stored = 1 - said[:, 0]  # as the confidence of a sale
    np.testing.assert_array_equal(1 - stored, said[:, 0])


QUARTERLY = Cadence(train_every=15)

# Events --------------------------------------------------------------------------------------------------------------


def tape_of(present: list[bool], first_row: int = 1000, late: tuple[int, int] | None = None) -> Tape:
    rows = np.ones((len(present), len(COLUMNS)), np.float32)
    rows[~np.array(present)] = np.nan
    missing = np.full((1, len(COLUMNS)), np.nan, np.float32)
    superseded = () if late is None else (Superseded(first_row=late[0], rows=missing, until_ms=late[1]),)
    return Tape(step_ms=60_000, first_row=first_row, rows=rows, superseded=superseded)


def test_at_one_close_the_candle_comes_before_the_pivot_and_time_before_both():
    tape = tape_of([True] * 30)
    found = events(tape, 1000, 1030, np.array([1014, 1009, 1014, 999, 1030]), QUARTERLY)
    assert found == [(1004, "candle"), (1009, "pivot"), (1014, "pivot"), (1019, "candle")]
    found = events(tape, 1000, 1030, np.array([1004]), QUARTERLY)
    assert found[:2] == [(1004, "candle"), (1004, "pivot")]


def test_the_cadence_is_counted_on_the_time_grid_wherever_a_piece_begins():
    tape = tape_of([True] * 100)
    whole = events(tape, 1000, 1100, np.array([1033, 1050, 1077]), QUARTERLY)
    for cut in range(1000, 1101):
        parts = [*events(tape, 1000, cut, np.array([1033, 1050, 1077]), QUARTERLY)]
        parts += events(tape, cut, 1100, np.array([1033, 1050, 1077]), QUARTERLY)
        assert parts == whole


def test_a_missing_candle_is_no_event_and_neither_is_one_that_came_after_its_close():
    present = [row != 4 for row in range(30)]
    assert events(tape_of(present), 1000, 1030, np.array([], np.int64), QUARTERLY) == [(1019, "candle")]
    late = tape_of([True] * 30, late=(1019, 1025 * 60_000))
    assert events(late, 1000, 1030, np.array([], np.int64), QUARTERLY) == [(1004, "candle")]


def test_a_candle_step_takes_every_answer_since_the_last_one_and_none_twice(stretch):
    memory, labels = stretch.new_memory(), stretch.market.labels
    memory.made[:] = memory.predictable
    taken = [newly_settled(labels, memory, stretch.first + row, "candle") for row in (10, 11, 11, 60, 59, 419)]
    assert len(np.unique(np.concatenate(taken))) == sum(map(len, taken))
    assert [len(each) for each in taken[:5]] == [11, 1, 0, 49, 0]
    assert (labels.candle.settled[np.concatenate(taken)] <= stretch.first + 419).all()


def test_what_a_pivot_settles_and_what_was_wrong_is_what_a_look_at_all_of_them_finds(stretch, fresh_learner: Callable):
    learner, memory, labels = fresh_learner(), stretch.new_memory(), stretch.market.labels
    predict(learner, stretch.market.blocks, memory, memory.predictable, stretch.first, stretch.first + 420)
    memory.trusted[::7] = False
    validated, found = memory.made & (labels.trend.status == VALIDATED), 0
    for row in range(stretch.first - 5, stretch.first + 420):
        settled = newly_settled(labels, memory, row, "pivot")
        expected = validated & memory.trusted & (labels.trend.settled == row)
        np.testing.assert_array_equal(settled, np.flatnonzero(expected))
        found += len(settled)
        for since in (0, row - 100, row + 1):
            wrong = validated & (labels.trend.settled <= row) & (memory.trend != labels.trend.trend)
            wrong[: max(since - memory.first_row, 0)] = False
            np.testing.assert_array_equal(SUPERVISED.corrective(learner, labels, memory, since, row), wrong)
    assert found > 100


# What a step may know ------------------------------------------------------------------------------------------------


@pytest.fixture
def example(stretch) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows made, their norm_params, and an event at which some of their answers are known and some are not."""
    memory = stretch.new_memory()
    rows = stretch.first + np.arange(0, 80, 2)
    return rows, memory.norm_params[rows - memory.first_row], stretch.first + 60


def test_a_batch_knows_an_answer_only_from_the_close_at_which_it_settled(stretch, example):
    """The masks, by ten plain lines."""
    rows, norm, event_row = example
    labels = stretch.market.labels
    asked = 4
    examples = examples_of(rows, norm, event_row, graded=asked)
    batch = SUPERVISED.batch(stretch.market.blocks, labels, examples, torch.device("cpu"))
    at = rows - labels.first_row
    for index, place in enumerate(at.tolist()):
        known = labels.candle.usable[place] and labels.candle.settled[place] <= event_row
        assert batch.candle_mask_B[index] == known
        graded = labels.trend.status[place] == 0 and labels.trend.settled[place] <= event_row
        assert batch.trend_mask_B[index] == (graded and index < asked)
        turned = [labels.pivot.usable[place, k] and labels.pivot.settled[place, k] <= event_row for k in range(4)]
        assert batch.pivot_mask_BK[index].tolist() == turned
        assert batch.high_mask_B[index] == (turned[0] or turned[1])
    assert ((labels.trend.status[at[asked:]] == 0) & (labels.trend.settled[at[asked:]] <= event_row)).any()
    for mask in (batch.candle_mask_B, batch.trend_mask_B, batch.pivot_mask_BK, batch.high_mask_B):
        assert 0 < mask.sum() < mask.numel()


def test_each_trend_is_asked_once_when_its_pivot_confirms_it(stretch, fresh_learner: Callable):
    asked: list[int] = []

    class Asking(Supervised):
        def batch(self, blocks, labels, examples, device):
            batch = super().batch(blocks, labels, examples, device)
            is_asked = batch.trend_mask_B.numpy() == 1
            now = examples.rows[is_asked]
            assert (labels.trend.settled[now - labels.first_row] == examples.event_rows[is_asked]).all()
            asked.extend(now.tolist())
            return batch

    learner, memory, trend = fresh_learner(), stretch.new_memory(), stretch.market.labels.trend
    learner.objective = Asking()
    stretch.run(learner, memory, 0, 420)
    answered = memory.made & (trend.status == VALIDATED) & (trend.settled < stretch.first + 420)
    assert sorted(asked) == (np.flatnonzero(answered) + memory.first_row).tolist()
    assert len(asked) > 100


def test_answers_that_are_not_known_yet_change_neither_loss_nor_gradient(stretch, example, fresh_learner: Callable):
    """Trap 26: the labels of the future are replaced by absurd ones."""
    rows, norm, event_row = example
    labels = deepcopy(stretch.market.labels)
    labels.candle.log_returns[labels.candle.settled > event_row] = -123
    unknown = labels.trend.settled > event_row
    labels.trend.trend[unknown] = 2 - np.maximum(labels.trend.trend[unknown], 0)
    later = labels.pivot.settled > event_row
    labels.pivot.log_return[later] = 123
    labels.pivot.candles[later] = 12345
    neither = later[:, :2].all(axis=1)
    labels.pivot.next_type[neither] = 1 - np.maximum(labels.pivot.next_type[neither], 0)
    losses, gradients = [], []
    for known in (stretch.market.labels, labels):
        learner = fresh_learner()
        examples = examples_of(rows, norm, event_row)
        batch = SUPERVISED.batch(stretch.market.blocks, known, examples, torch.device("cpu"))
        loss = loss_of(learner.model(batch.frame), batch, learner.hyper)
        loss.total.backward()
        losses.append(loss.total.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in learner.model.parameters()]))
    assert losses[0] == losses[1]
    assert torch.equal(*gradients)


def test_a_gradient_that_is_not_finite_changes_no_weight(stretch, example, fresh_learner: Callable):
    rows, norm, event_row = example
    learner = fresh_learner()
    examples = examples_of(rows, norm, event_row)
    batch = SUPERVISED.batch(stretch.market.blocks, stretch.market.labels, examples, learner.device)
    good = train_step(
        learner.model, learner.average, learner.optimizer, batch, learner.hyper, torch.tensor(1.0), SUPERVISED.loss
    )
    before = bytes_of(learner)
    for broken in (float("nan"), float("inf")):
        candles = batch.frame.candles[0].clone()
        candles[3, 100, 0] = broken
        hurt = (
            replace(batch, frame=batch.frame._replace(candles=(candles,)))
            if np.isnan(broken)
            else replace(batch, weight_B=batch.weight_B * broken)
        )
        loss = train_step(
            learner.model, learner.average, learner.optimizer, hurt, learner.hyper, torch.tensor(0.8), SUPERVISED.loss
        )
        assert not torch.isfinite(loss.total)
        assert bytes_of(learner) == before
    train_step(
        learner.model, learner.average, learner.optimizer, batch, learner.hyper, torch.tensor(0.8), SUPERVISED.loss
    )
    assert torch.isfinite(good.total)
    assert bytes_of(learner) != before


def test_on_a_device_beside_the_host_the_loop_learns_the_same_and_waits_for_nothing_but_predictions_that_land(
    stretch, any_learner: Callable[..., Learner], any_model: str, stand_in: Device, monkeypatch: pytest.MonkeyPatch
):
    """Nothing mixes numbers of the two: the stand-in would refuse it. Sums of an LSTM and of attention are made in
    another order there."""
    waits_of_landing = 0

    def to_host(said: torch.Tensor) -> object:
        nonlocal waits_of_landing
        before = stand_in.waits
        try:
            return _to_host(said)
        finally:
            waits_of_landing += stand_in.waits - before

    monkeypatch.setattr("hindsight.training.predict._to_host", to_host)
    losses, said = [], []
    for device in (torch.device("cpu"), STAND_IN):
        learner, memory = any_learner(device=device), stretch.new_memory(any_model)
        steps = stretch.run(learner, memory, 0, 60).steps
        stand_in.waits = waits_of_landing = 0  # constants are there now
        steps += stretch.run(learner, memory, 60, 420).steps
        waits = stand_in.waits
        losses.append([step.loss["total"] for step in steps])
        said.append(memory.predictions)
    assert len(losses[0]) > 40
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    np.testing.assert_allclose(said[1], said[0], rtol=1e-4, atol=1e-7)
    assert waits == waits_of_landing > 20


@pytest.mark.gpu
@ON_GPU
def test_the_gpu_learns_and_predicts_what_the_cpu_does_within_tolerance(stretch, fresh_learner: Callable):
    """Trap 37."""
    memories = {device: stretch.new_memory() for device in ("cpu", "cuda")}
    learned = {device: stretch.run(fresh_learner(device=device), memory, 0, 120) for device, memory in memories.items()}
    losses = {device: [step.loss["total"] for step in each.steps] for device, each in learned.items()}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)
    assert losses["cuda"][0] == pytest.approx(losses["cpu"][0], rel=1e-4)
    first = slice(600, 620)  # before any step
    np.testing.assert_allclose(
        memories["cuda"].predictions[first], memories["cpu"].predictions[first], rtol=1e-3, atol=1e-6
    )


def test_in_bfloat16_the_losses_are_those_of_float32_within_a_percent(
    stretch, any_learner: Callable[..., Learner], any_model: str
):
    """The same draws, and weights that stay float32: only the products of matrices are coarser."""
    losses, said = [], []
    for precision in ("float32", "bfloat16"):
        learner, memory = any_learner(), stretch.new_memory(any_model)
        learner.hyper = replace(learner.hyper, precision=precision)
        steps = stretch.run(learner, memory, 0, 150).steps
        losses.append([step.loss["total"] for step in steps])
        said.append(memory.predictions[600:750])
        assert {tensor.dtype for tensor in tensors_of(learner).values()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]
    np.testing.assert_allclose(said[1][:, [0, 5, 6, 7, 8]], said[0][:, [0, 5, 6, 7, 8]], atol=0.02)
