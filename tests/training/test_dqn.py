"""The DQN: positions that any cut leaves the same, targets against ten plain lines, and what it makes of a market."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hindsight.exchange.sources import open_source
from hindsight.inference.blocks import Blocks, Peer
from hindsight.inference.labels import Labels, candle_labels
from hindsight.inference.normalisation import norm_params
from hindsight.inference.positions import FLAT, LONG, POSITION, SHORT
from hindsight.inference.shape import CandleBlock, FrameShape
from hindsight.inference.trading import TradingCost, rewards_of
from hindsight.learn import learn
from hindsight.market.streams import Window, to_ms
from hindsight.remake import remake
from hindsight.settings import Settings, load
from hindsight.store.trading import trading_scores
from hindsight.store.warehouse import Warehouse
from hindsight.training.engine import _step
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, new_learner, restore, tensors_of
from hindsight.training.memory import Memory
from hindsight.training.predict import forward, predict
from hindsight.training.q_learning import Q_LEARNING, ValueBatch, targets, worth
from hindsight.training.step import LOSS_PARTS
from hindsight.training.transitions import ACTION, EXTRAS, PREVIOUS, Q, settle, take_positions, transitions
from tests.training.conftest import examples_of

CPU = torch.device("cpu")
SHAPE = FrameShape(candles=(CandleBlock(symbol="ETH/USDT", timeframe="1m", length=300),))
# Costs of a tenth of what a candle usually moves, so that positions change often.
HYPER = Hyperparameters(learning_rate=1e-3, weight_decay=0.01, average_decay=0.99, fee=0.00005, half_spread=0.0)


def dqn(hyper: Hyperparameters = HYPER, shape: FrameShape = SHAPE) -> Learner:
    return new_learner("dqn", hyper, CPU, shape)


@pytest.fixture(scope="session")
def traders(stretch: Any) -> Any:
    """The stretch of the loop's tests, with memories that have room for positions."""
    return replace(stretch, new_memory=lambda: stretch.new_memory("dqn"))


# Made-up references --------------------------------------------------------------------------------------------------

FIRST, COUNT = 1000, 60


@dataclass(frozen=True)
class MadeUp:
    """COUNT closes from row FIRST on: a market of which some candles are missing, and references at some closes."""

    labels: Any
    memory: Any


def made_up_past(seed: int, every: int = 1) -> MadeUp:
    chance = np.random.default_rng(seed)
    close = 100 * np.exp(0.001 * chance.normal(size=COUNT).cumsum())
    candles = np.tile(close[:, None], (1, 40)).astype(np.float32)
    candles[chance.random(COUNT) < 0.05] = np.nan
    made = (np.arange(FIRST + 1, FIRST + COUNT + 1) % every == 0) & (chance.random(COUNT) < 0.9)
    extras = chance.normal(size=(COUNT, len(EXTRAS))).astype(np.float32)
    extras[:, PREVIOUS] = chance.integers(0, 3, COUNT)
    extras[:, ACTION] = extras[:, Q].argmax(axis=1)
    extras[~made] = np.nan
    norm = chance.uniform(0.0005, 0.002, (COUNT, 4)).astype(np.float32)
    labels = SimpleNamespace(first_row=FIRST, candle=candle_labels(FIRST, candles))
    return MadeUp(labels, SimpleNamespace(first_row=FIRST, made=made, extras=extras, norm_params=norm))


def plain_transition(past: MadeUp, at: int, first: int, row: int, hyper: Hyperparameters) -> tuple[Any, ...] | None:
    """Rewards, position reached, where, and discount, from position `first` on; None where nothing is known."""
    candle, memory, every = past.labels.candle, past.memory, hyper.predict_every
    rewards, held, steps = 0.0, first, 0
    while steps < hyper.return_steps:
        here = at + steps * every
        there = here + every
        if FIRST + there > row or not memory.made[there] or not candle.usable[here:there].all():
            break
        action = held
        if steps:
            previous, said = int(memory.extras[here, PREVIOUS]), memory.extras[here, Q].astype(float)
            cost = (hyper.fee + hyper.half_spread) / float(memory.norm_params[here, 1])
            worths = [q + cost * abs(to - previous) for to, q in enumerate(said)]
            values = [each - cost * abs(to - held) for to, each in enumerate(worths)]
            action = held if values[held] > max(values) - 1e-9 else int(np.argmax(values))
        moved = np.expm1(candle.log_returns[here:there, 3].astype(float).sum())
        earned = POSITION[action] * moved - (hyper.fee + hyper.half_spread) * abs(action - held)
        rewards, held, steps = rewards + hyper.discount**steps * earned, action, steps + 1
    return (rewards, held, at + steps * every, hyper.discount**steps) if steps else None


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("return_steps", [1, 3, 5])
def test_transitions_are_those_of_plain_lines(every: int, return_steps: int):
    hyper = replace(HYPER, predict_every=every, return_steps=return_steps, fee=0.0005)
    lengths = set()
    for seed in range(6):
        past, row = made_up_past(seed, every), FIRST + COUNT - 1 - 7 * (seed % 2)
        at = np.flatnonzero(past.memory.made[: row - FIRST])
        found = transitions(past.labels, past.memory, at, row, hyper)
        for index, place in enumerate(at.tolist()):
            for first in (SHORT, FLAT, LONG):
                expected = plain_transition(past, place, first, row, hyper)
                assert found.known_B[index] == (expected is not None)
                if expected is None:
                    continue
                rewards, reached, next_at, discount = expected
                scale, next_scale = past.memory.norm_params[[place, next_at], 1].astype(float)
                assert found.rewards_B3[index, first] == pytest.approx(rewards / scale)
                assert found.reached_B3[index, first] == reached
                assert found.next_at[index] == next_at
                assert found.discount_B[index] == pytest.approx(discount * next_scale / scale)
                assert found.cost_B[index] == pytest.approx(0.0005 / next_scale)
                lengths.add((next_at - place) // every)
    assert lengths == set(range(1, return_steps + 1))


def test_from_the_position_that_was_held_it_is_what_was_done_that_is_followed():
    """The rewards of a transition are those on record, wherever it starts."""
    past = made_up_past(1)
    hyper, row = replace(HYPER, return_steps=3), FIRST + COUNT - 1
    positions = past.memory.extras[:, ACTION]
    past.memory.extras[1:, PREVIOUS] = np.where(past.memory.made[:-1], positions[:-1], FLAT)[: COUNT - 1]
    at = np.flatnonzero(past.memory.made[:-1])
    found = transitions(past.labels, past.memory, at, row, hyper)
    for index, place in enumerate(at.tolist()):
        if found.next_at[index] == place + 3:
            rewards = settle(past.labels, past.memory, place + np.arange(3), row, hyper).reward
            taken = int(positions[place])
            way = hyper.trading_cost.per_turnover * abs(taken - past.memory.extras[place, PREVIOUS])
            total = rewards[0] + way + hyper.discount * rewards[1] + hyper.discount**2 * rewards[2]
            assert found.rewards_B3[index, taken] == pytest.approx(total / past.memory.norm_params[place, 1], abs=1e-6)
            assert found.reached_B3[index, taken] == positions[place + 2]


# Positions -----------------------------------------------------------------------------------------------------------


def positions_of(worths: np.ndarray, due: np.ndarray, cuts: list[int], hyper: Hyperparameters) -> np.ndarray:
    """EXTRAS of the closes that are due, decided piece by piece."""
    count = len(worths)
    memory: Any = SimpleNamespace(
        first_row=FIRST,
        made=np.ones(count, np.bool_),
        extras=np.full((count, len(EXTRAS)), np.nan, np.float32),
        norm_params=np.full((count, 4), 0.001, np.float32),
    )
    for start, end in pairwise([0, *sorted(cuts), count]):
        at = np.flatnonzero(due[start:end]) + start
        memory.extras[at] = take_positions(memory, at, worths[at], hyper)
    return memory.extras


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 40), max_size=6), every=st.integers(1, 3))
def test_positions_are_the_same_however_closes_are_cut(seed: int, cuts: list[int], every: int):
    chance = np.random.default_rng(seed)
    worths = chance.normal(size=(40, 3)).astype(np.float32)
    due = (np.arange(40) % every == 0) & (chance.random(40) < 0.8)
    hyper = replace(HYPER, fee=0.0005, predict_every=every)
    found = positions_of(worths, due, cuts, hyper)
    np.testing.assert_array_equal(found, positions_of(worths, due, [], hyper))
    for at in np.flatnonzero(due).tolist():
        is_held = at >= every and due[at - every]
        assert found[at, PREVIOUS] == (found[at - every, ACTION] if is_held else FLAT)
        assert found[at, Q.start + int(found[at, ACTION])] == found[at, Q].max()


def test_a_position_changes_only_for_more_than_that_costs():
    worths = np.array([[0, 0, 0.4], [0, 0, 0.6], [0, 0, 0.0], [0, 0.4, 0], [0.6, 0, 0], [1.1, 0, 0], [0, 0, 0]])
    found = positions_of(worths.astype(np.float32), np.ones(7, np.bool_), [], replace(HYPER, fee=0.0005))
    assert found[:, ACTION].tolist() == [FLAT, LONG, LONG, LONG, LONG, SHORT, SHORT]
    free = positions_of(worths.astype(np.float32), np.ones(7, np.bool_), [], replace(HYPER, fee=0.0))
    assert free[:, ACTION].tolist() == [LONG, LONG, LONG, FLAT, SHORT, SHORT, SHORT]


def test_who_knows_nothing_stays_flat(traders: Any):
    learner, memory = dqn(), traders.new_memory()
    predict(learner, traders.market.blocks, memory, memory.predictable, traders.first, traders.first + 200)
    assert (memory.extras[600:800, ACTION] == FLAT).all()
    assert (memory.extras[600:800, Q][:, 1] == 0).all()


# The loop ------------------------------------------------------------------------------------------------------------


def test_ten_steps_are_five_and_five_more_from_what_was_saved(traders: Any):
    """Resume, to the bit: weights, optimizer, draws, losses, predictions, positions and experience."""
    at_once, memory = dqn(), traders.new_memory()
    whole = traders.run(at_once, memory, 0, 420)
    rows = [step.event_row - traders.first for step in whole.steps]
    middle, end = rows[5], rows[10]
    first, resumed = dqn(), traders.new_memory()
    before = traders.run(first, resumed, 0, middle)
    second = dqn(replace(HYPER, seed=99))
    second.hyper = first.hyper
    restore(second, tensors_of(first), first.number)
    after = traders.run(second, resumed, middle, end)
    assert (len(before.steps), len(after.steps)) == (5, 5)
    for step, expected in zip([*before.steps, *after.steps], whole.steps, strict=False):
        assert step.settled.tolist() == expected.settled.tolist()
        assert step.replay.rows.tolist() == expected.replay.rows.tolist()
        assert step.loss == expected.loss
    assert all(0 < step.loss["value"] < step.loss["total"] for step in whole.steps)
    span = slice(600, 600 + end)
    for name in ("predictions", "hidden", "extras"):
        np.testing.assert_array_equal(getattr(resumed, name)[span], getattr(memory, name)[span])
    assert len(np.unique(memory.extras[600:1020, ACTION])) > 1
    alone, fresh = dqn(), traders.new_memory()
    traders.run(alone, fresh, 0, end)
    assert {name: each.numpy().tobytes() for name, each in tensors_of(alone).items()} == {
        name: each.numpy().tobytes() for name, each in tensors_of(second).items()
    }


def test_closes_one_by_one_leave_what_all_at_once_leave(traders: Any):
    at_once, memory = dqn(), traders.new_memory()
    traders.run(at_once, memory, 0, 150)
    one_by_one, live = dqn(), traders.new_memory()
    for close in range(150):
        traders.run(one_by_one, live, close, close + 1)
    assert one_by_one.number == at_once.number > 5
    np.testing.assert_array_equal(live.extras, memory.extras)
    np.testing.assert_array_equal(live.predictions, memory.predictions)


@pytest.fixture
def learned(traders: Any) -> tuple[Learner, Memory]:
    """A trader of 420 closes."""
    learner, memory = dqn(), traders.new_memory()
    traders.run(learner, memory, 0, 420)
    return learner, memory


def test_what_is_not_known_yet_changes_no_target_no_gradient_and_no_priority(
    traders: Any, learned: tuple[Learner, Memory]
):
    """Trap 26: absurd returns and references are planted after the event, and absurd candles too."""
    learner, memory = learned
    row, rows = traders.first + 200, traders.first + np.arange(0, 200, 5)
    labels, planted = deepcopy(traders.market.labels), deepcopy(memory)
    labels.candle.log_returns[labels.candle.settled > row] = -123
    later = np.arange(len(memory.made)) + memory.first_row > row
    planted.extras[later] = [2, 0, 1e9, -1e9, 1e9]
    planted.norm_params[later] = 1e9
    tape = traders.market.blocks.own
    candles = tape.rows.copy()
    candles[row + 1 - tape.first_row :] = 1e9
    blocks = replace(traders.market.blocks, tapes=[replace(tape, rows=candles)])
    losses, gradients = [], []
    for market in ((traders.market.blocks, traders.market.labels, memory), (blocks, labels, planted)):
        batch = batch_of(learner, *market, rows, row)
        again = deepcopy(learner)
        losses.append(_step(again, batch)[LOSS_PARTS.index("value")].item())
        gradients.append(torch.cat([each.grad.flatten() for each in again.model.parameters()]))
    assert losses[0] == losses[1] > 0
    assert torch.equal(*gradients)
    memory, planted = replace(memory), replace(planted)  # nobody has looked at their priorities yet
    asked = (traders.market.labels, memory, row - 150, row), (labels, planted, row - 150, row)
    is_high, same = (Q_LEARNING.corrective(learner, *each) for each in asked)
    np.testing.assert_array_equal(is_high, same)
    assert is_high.sum() > 0


def test_a_quarter_is_of_high_priority_and_it_is_the_one_that_surprised_and_paid_most(
    traders: Any, learned: tuple[Learner, Memory]
):
    learner, memory = learned
    row, labels = traders.first + 300, traders.market.labels
    is_high = Q_LEARNING.corrective(learner, labels, memory, row - 200, row)
    asked = np.arange(600 + 100, 600 + 300)
    assert set(np.flatnonzero(is_high)) <= set(asked)
    assert 0.2 < is_high[asked].mean() <= 0.25
    settled = settle(labels, memory, asked, row, learner.hyper)
    surprise, earned = np.abs(settled.td_error), np.maximum(settled.reward, 0)
    assert surprise[is_high[asked]].mean() > surprise[~is_high[asked]].mean()
    assert earned[is_high[asked]].mean() > earned[~is_high[asked]].mean()
    longer = Q_LEARNING.corrective(learner, labels, memory, row - 300, row)
    assert longer.sum() > is_high.sum()


@pytest.mark.parametrize("every", [1, 3, 13])
def test_priorities_from_look_to_look_are_those_of_one_look(traders: Any, learned: tuple[Learner, Memory], every: int):
    learner, memory = learned
    learner.hyper = replace(learner.hyper, predict_every=every)
    labels, looked, chance = traders.market.labels, replace(memory), np.random.default_rng(4)
    row, places = traders.first, set()
    while row < traders.first + 419:
        row = min(row + int(chance.integers(0, 30)), traders.first + 419)
        since = row - int(chance.integers(100, 300))
        afresh = replace(memory)
        is_high = Q_LEARNING.corrective(learner, labels, afresh, since, row)
        np.testing.assert_array_equal(Q_LEARNING.corrective(learner, labels, looked, since, row), is_high)
        np.testing.assert_array_equal(looked.priorities, afresh.priorities)
        places |= set(np.flatnonzero(is_high).tolist())
    assert len(places) > 50
    before = Q_LEARNING.corrective(learner, labels, looked, traders.first, traders.first + 300)  # back in time
    np.testing.assert_array_equal(
        before, Q_LEARNING.corrective(learner, labels, replace(memory), traders.first, traders.first + 300)
    )


def test_the_error_of_a_value_is_that_of_what_was_said_at_both_ends(traders: Any, learned: tuple[Learner, Memory]):
    learner, memory = learned
    row, at = traders.first + 419, np.arange(600, 1019)
    found = settle(traders.market.labels, memory, at, row, learner.hyper)
    for index, place in enumerate(at.tolist()):
        previous, action = memory.extras[place, [PREVIOUS, ACTION]].astype(int)
        moved = np.expm1(float(traders.market.labels.candle.log_returns[place, 3]))
        reward = POSITION[action] * moved - learner.hyper.fee * abs(action - previous)
        here, there = memory.norm_params[[place, place + 1], 1].astype(float)
        expected = (reward + learner.hyper.discount * memory.extras[place + 1, Q].max() * there) / here
        assert found.reward[index] == pytest.approx(reward, abs=1e-12)
        assert found.td_error[index] == pytest.approx(expected - memory.extras[place, Q][action], abs=1e-5)
    earlier = settle(traders.market.labels, memory, at, row - 100, learner.hyper)
    for known, whole in zip(earlier, found, strict=True):
        np.testing.assert_array_equal(known[:-100], whole[:-100])
        assert np.isnan(known[-100:]).all()


# Targets -------------------------------------------------------------------------------------------------------------


def test_the_model_that_learns_chooses_and_the_mean_of_its_weights_values(
    traders: Any, learned: tuple[Learner, Memory]
):
    """Double Q-learning, by plain lines; the mean alone is the target network."""
    learner, memory = learned
    rows = traders.first + np.arange(100, 140)
    market = traders.market
    batch = batch_of(learner, market.blocks, market.labels, memory, rows, traders.first + 300)
    raise_worth(learner.model, torch.tensor([0.3, -0.2, 0.1]))  # so that the two differ
    with torch.no_grad():
        chooses, values = worth(learner.model(batch.next_frame)), worth(learner.average(batch.next_frame))
    found = targets(learner.model, learner.average, batch)
    differ = 0
    for index in range(40):
        for first in (SHORT, FLAT, LONG):
            cost = batch.cost_B[index] * torch.tensor(
                [abs(to - int(batch.reached_B3[index, first])) for to in range(3)]
            )
            best = int((chooses[index] - cost).argmax())
            differ += best != int((values[index] - cost).argmax())
            value = (values[index] - cost)[best]
            expected = batch.rewards_B3[index, first] + batch.discount_B[index] * value
            assert found[index, first].item() == pytest.approx(expected.item(), rel=1e-5)
    assert differ > 0
    raise_worth(learner.model, torch.tensor(5.0))  # all alike: it chooses the same
    assert torch.allclose(targets(learner.model, learner.average, batch), found)
    raise_worth(learner.average, torch.tensor(5.0))
    assert torch.allclose(
        targets(learner.model, learner.average, batch), found + 5 * batch.discount_B[:, None], rtol=1e-4
    )


def batch_of(
    learner: Learner, blocks: Blocks, labels: Labels, memory: Memory, rows: np.ndarray, event_row: int
) -> ValueBatch:
    examples = examples_of(rows, memory.norm_params[rows - memory.first_row], event_row)
    return Q_LEARNING.batch(blocks, labels, Q_LEARNING.remembered(learner, labels, memory, examples), learner.device)


def raise_worth(model: Any, by_3: torch.Tensor) -> None:
    """From now on it says so much more of short, flat and long, whatever the frame."""
    model.worth.register_forward_hook(lambda module, given, worth_B3: worth_B3 + by_3)


def test_a_gradient_that_is_not_finite_changes_no_weight(traders: Any, learned: tuple[Learner, Memory]):
    learner, memory = learned
    rows = traders.first + np.arange(100, 140)
    market = traders.market
    batch = batch_of(learner, market.blocks, market.labels, memory, rows, traders.first + 300)
    before = {name: each.numpy().tobytes() for name, each in tensors_of(learner).items()}
    for hurt in (
        replace(batch, rewards_B3=batch.rewards_B3 * float("nan")),
        replace(batch, answers=replace(batch.answers, weight_B=batch.answers.weight_B * float("inf"))),
    ):
        assert not torch.isfinite(_step(learner, hurt)[LOSS_PARTS.index("total")])
        assert {name: each.numpy().tobytes() for name, each in tensors_of(learner).items()} == before
    assert torch.isfinite(_step(learner, batch)).all()
    assert {name: each.numpy().tobytes() for name, each in tensors_of(learner).items()} != before


# Frames --------------------------------------------------------------------------------------------------------------


def test_the_cnn_is_read_where_it_has_spoken_and_done_without_where_it_has_not(made_up: Callable[..., Blocks]):
    blocks = made_up()
    rows = to_ms(datetime(2024, 3, 1, 13, tzinfo=UTC)) // 60_000 + np.arange(20)
    norm = norm_params(blocks.own.gather(rows, blocks.shape.own.length))
    learner = dqn(shape=blocks.shape)
    torch.nn.init.normal_(learner.average.worth.weight)
    absent = replace(blocks, peers=[Peer.absent(read) for read in blocks.shape.reads])
    alone, together = (forward(learner, each.gather(rows, norm)) for each in (absent, blocks))
    for said in (alone, together):
        assert np.isfinite(said.predictions).all()
        assert said.extras.shape == (20, 3)
    assert (alone.extras != together.extras).any(axis=1).all()


def test_of_each_block_only_the_newest_rows_matter_beside_its_scales(traders: Any, learned: tuple[Learner, Memory]):
    learner, memory = learned
    frame = traders.market.blocks.gather(traders.first + np.arange(10), memory.norm_params[600:610])
    (candles,) = frame.candles
    older, newer = candles.copy(), candles.copy()
    older[:, :-16] *= 1.01
    newer[:, -16:] *= 1.01
    said = [forward(learner, frame._replace(candles=(each,))).extras for each in (candles, older, newer)]
    np.testing.assert_array_equal(said[0], said[1])
    assert (said[0] != said[2]).any(axis=1).all()


# Through the tables --------------------------------------------------------------------------------------------------

ORDER = {"inference_references": "model, made_at", "training_steps": "model, step", "experiences": "made_at"}


def test_history_in_pieces_leaves_the_positions_and_the_experience_of_history_in_one(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """With the CNN beside it, a prediction at every second close, and candle by candle for a while."""
    changed = {"models": ("cnn", "dqn"), "fee": 0.00005, "half_spread": 0.0, "learning_rate": 1e-3}
    changed |= {"snapshot_every": 10, "score_window": 60}
    whole, pieces = copy_home(venue_home, **changed), copy_home(venue_home, **changed)
    start, stream = datetime(2024, 3, 1, tzinfo=UTC), venue_home.streams[0]
    cuts = [100, *range(237, 244), 260, 360]
    for settings, minutes in ((whole, [360]), (pieces, cuts)):
        for minute in minutes:
            for model in settings.models:
                learn(settings, stream, model, start + timedelta(minutes=minute))
    for name, order in ORDER.items():
        found, expected = table(pieces, name, order), table(whole, name, order)
        assert [column for column in expected.columns if not found[column].equals(expected[column])] == [], name
        assert len(expected) > 10
    taken = ("checkpoint_id", "event_time", "metric", "direction", "metric_value", "scored", "is_best")
    found, expected = (
        table(home, "checkpoints", "model, checkpoint_id").filter("is_snapshot", model="dqn").select(taken)
        for home in (pieces, whole)
    )
    assert found.equals(expected)
    last = expected.row(-1, named=True)
    assert (last["metric"], last["direction"]) == ("net bp per decision", "higher")
    window = pl.col("settled_at").is_between(
        last["event_time"] - settings.score_window * stream.step, last["event_time"], closed="right"
    )
    rewards = table(whole, "experiences", "made_at").filter(window)["reward"]
    assert (last["metric_value"], last["scored"]) == (pytest.approx(1e4 * rewards.mean(), rel=1e-5), len(rewards))
    references = table(whole, "inference_references", "made_at").filter(pl.col("model") == "dqn")
    experience = table(whole, "experiences", "made_at")
    assert experience["inference_id"].to_list() == references["inference_id"].to_list()[:-1]
    assert experience["next_id"].to_list() == references["inference_id"].to_list()[1:]
    assert (experience["settled_at"] - experience["made_at"] == 2 * stream.step).all()
    assert experience["action"].n_unique() > 1
    assert experience["previous"].to_list() == [FLAT, *experience["action"].to_list()[:-1]]
    earned = rewards_of(
        experience["log_return"].to_numpy(),
        experience["previous"].to_numpy(),
        experience["action"].to_numpy(),
        TradingCost(fee=0.00005, half_spread=0.0),
    )
    np.testing.assert_allclose(experience["reward"].to_numpy(), earned, atol=1e-7)
    between = references.filter(pl.col("checkpoint_id") == references["checkpoint_id"].max() - 1)
    assert between["checkpoint_id"][0] % settings.snapshot_every != 0  # its weights are lived again
    assert remake(whole, between["inference_id"][0]).difference == 0


def test_before_a_missing_candle_nothing_follows_and_after_it_one_starts_flat(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """01:39 to 01:43 were never delivered: what was held there is in no sum, and nor is what came before valued."""
    settings = copy_home(venue_home, models=("dqn",), predict_every=1, train_every=240)
    stream = settings.streams[0]
    learn(settings, stream, "dqn", datetime(2024, 3, 2, 1, 50, tzinfo=UTC))
    made = table(settings, "inference_references", "made_at")["made_at"]
    last = table(settings, "experiences", "made_at").row(-1, named=True)
    assert made.max() == datetime(2024, 3, 2, 1, 39, tzinfo=UTC)
    assert last["made_at"] == made.max() - stream.step
    assert last["next_id"] is not None


def test_a_model_that_values_nothing_leaves_no_experience(learned_home: Settings, table: Callable):
    assert table(learned_home, "experiences", "made_at").is_empty()
    assert table(learned_home, "training_steps", "step")["loss_value"].unique().to_list() == [0.0]


# Markets -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def market_of(tmp_path_factory: pytest.TempPathFactory, record: Callable) -> Callable[..., Settings]:
    """Makes 36 hours of a simulated market, of which the DQN has traded the last 26."""

    def make(**changed: Any) -> Settings:
        settings = load(
            home=tmp_path_factory.mktemp("market"),
            source="simulated",
            symbols=("ETH/USDT",),
            models=("dqn",),
            device="cpu",
            train_every=10,
            retrain_steps=0,
            learning_rate=5e-4,
            lock_timeout_seconds=30.0,
            **changed,
        )
        start = datetime(2024, 2, 29, 14, tzinfo=UTC)
        window = Window(start=start, end=start + timedelta(hours=36))
        record(settings, open_source(settings), [window.start, window.end])
        learn(settings, settings.streams[0], "dqn", window.end)
        return settings

    return make


def test_where_returns_follow_each_other_it_earns_more_than_that_costs(market_of: Callable, table: Callable):
    settings = market_of(simulated_phi=0.8, fee=0.00002, half_spread=0.0)
    experience = table(settings, "experiences", "made_at")
    late = experience.tail(600)
    turnover = (late["action"].cast(pl.Int32) - late["previous"]).abs().sum()
    assert turnover > 20
    assert late["reward"].sum() > 2 * 0.00002 * turnover
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
        (figures,) = trading_scores(con).rows(named=True)
    assert figures["decisions"] == len(experience)
    assert figures["net_return"] > 0
    assert figures["hit_rate"] > 0.5


def test_where_nothing_can_be_known_it_stays_out_and_being_flat_is_worth_nothing(market_of: Callable, table: Callable):
    settings = market_of(simulated_signal="none")
    experience = table(settings, "experiences", "made_at")
    references = table(settings, "inference_references", "made_at").tail(600)
    q = np.array(references["extras"].to_list())[:, Q]
    assert (experience.tail(600)["action"] == FLAT).mean() > 0.95
    assert np.abs(q[:, 1]).mean() < 0.1
    assert (q[:, [0, 2]].max(axis=1) < q[:, 1]).mean() > 0.95
    assert table(settings, "training_steps", "step")["loss_value"].mean() > 0.1  # and not for want of learning
