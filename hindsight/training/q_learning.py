"""Q-learning: a model says what it is worth to be short, flat or long, and learns it from what each would have earned.

Legend: B references of the batch. Worths are in units of the frame's return scale; transitions.py says what they are.

Nothing is explored: the market shows what every position would have earned, taken or not. The action at the other end
is chosen by the model that learns and valued by the running mean of its weights, which follows slowly: two opinions, so
that neither is flattered by its own errors.
Sources: van Hasselt et al. 2015, "Deep Reinforcement Learning with Double Q-learning", https://arxiv.org/abs/1509.06461;
of a target that follows slowly: Lillicrap et al. 2015, "Continuous control with deep reinforcement learning",
https://arxiv.org/abs/1509.02971, §3
"""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
import torch.nn.functional as fn
from numpy.typing import NDArray
from torch import Tensor

from hindsight.inference.blocks import Frame
from hindsight.inference.frames import Frames, Rows
from hindsight.inference.labels import Labels
from hindsight.inference.references import inference_ids
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.training.constants import constant
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.memory import Memory
from hindsight.training.metrics import Measured, Metric
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.resident import Gathers
from hindsight.training.step import (
    Batch,
    Examples,
    Loss,
    Says,
    loss_of,
    make_batch,
    packed,
    to_tensors,
    weighted_mean,
)
from hindsight.training.transitions import (
    ACTION,
    PREVIOUS,
    TURNOVER,
    Floats,
    settle,
    take_positions,
    traded,
    transitions,
)

if TYPE_CHECKING:
    from hindsight.training.learner import Learner

HIGH_SHARE = 0.25  # of what replay may draw that is of high priority
LEAST_PRIORITY = 0.05
PROFIT_SHARE = 0.3  # of a priority; the rest is surprise
BASIS_POINTS = 10_000  # in one
PACKED = ("rewards_B3", "reached_B3", "discount_B", "cost_B", "known_B")  # of a transition, on the device
_TURNOVER = tuple(TURNOVER.ravel().tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiences(Examples):
    """Examples, and the transitions from each: see `Transitions`."""

    next_rows: Rows  # [B]
    next_norm_params: Frames  # [B, 4]
    rewards_B3: Floats
    reached_B3: Rows
    discount_B: Floats
    cost_B: Floats
    known_B: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueBatch:
    """The answers of a supervised batch, and the transitions beside them: see `Transitions`."""

    answers: Batch
    next_frame: Frame[Tensor]
    rewards_B3: Tensor
    reached_B3: Tensor
    discount_B: Tensor
    cost_B: Tensor
    known_B: Tensor


class QLearning:
    """The supervised targets, and the worth of each position. High is the priority of what surprised or paid most."""

    def act(self, learner: "Learner", memory: Memory, at: Rows, extras: Frames) -> Frames:
        return take_positions(memory, at, extras, learner.hyper)

    def corrective(self, learner: "Learner", labels: Labels, memory: Memory, since: int, row: int) -> NDArray[np.bool_]:
        """The quarter of highest priority among what settled of the references made at rows [since, row)."""
        stop = prioritise(memory, labels, row, learner.hyper)
        span = slice(max(since - memory.first_row, 0), stop)
        priorities, is_high = memory.priorities[span], np.zeros(len(memory.made), np.bool_)
        count = int(np.count_nonzero(~np.isnan(priorities)))
        if count:
            others = count - int(count * HIGH_SHARE)
            is_high[span] = priorities > np.partition(priorities, others - 1)[others - 1]  # NaN comes last
        return is_high

    def remembered(self, learner: "Learner", labels: Labels, memory: Memory, examples: Examples) -> Experiences:
        at, event_row = examples.rows - memory.first_row, int(examples.event_rows[0])
        found = transitions(labels, memory, at, event_row, learner.hyper)
        return Experiences(
            **{each.name: getattr(examples, each.name) for each in fields(examples)},
            next_rows=found.next_at + memory.first_row,
            next_norm_params=memory.norm_params[found.next_at],
            **{name: getattr(found, name) for name in PACKED},
        )

    def batch(self, blocks: Gathers, labels: Labels, examples: Experiences, device: torch.device) -> ValueBatch:
        count = len(examples.rows)
        ends = np.concatenate([examples.rows, examples.next_rows])  # the frames at both are gathered at once
        norm = np.concatenate([examples.norm_params, examples.next_norm_params])
        both = to_tensors(blocks.gather(ends, norm), device)
        return ValueBatch(
            answers=make_batch(both.map(lambda block: block[:count]), labels, examples, device),
            next_frame=both.map(lambda block: block[count:]),
            **packed({name: getattr(examples, name) for name in PACKED}, device),
        )

    def loss(self, says: Says, mean_says: Says, batch: ValueBatch, hyper: Hyperparameters) -> Loss:
        target_B3, answers = targets(says, mean_says, batch), batch.answers
        output = says(answers.frame)
        loss, weight_B = loss_of(output, answers, hyper), answers.weight_B * batch.known_B
        value = weighted_mean(fn.huber_loss(worth(output), target_B3, reduction="none").mean(1), weight_B)
        return replace(loss, total=loss.total + hyper.weight_value * value, value=value)

    def records(
        self, learner: "Learner", model: str, stream: Stream, labels: Labels, memory: Memory, first: int, end: int
    ) -> dict[str, pl.DataFrame]:
        """Rows of `experiences`: one per usable reference that settled at the closes of rows [first, end)."""
        hyper = learner.hyper
        due = np.arange(
            max(first - hyper.predict_every - memory.first_row, 0), end - hyper.predict_every - memory.first_row
        )
        at = due[traded(memory, due)]
        settled = settle(labels, memory, at, end - 1, hyper)
        usable = np.isfinite(settled.reward)
        at, log_return, reward, td_error = at[usable], *(each[usable] for each in settled)
        made_ms = (at + memory.first_row + 1) * stream.step_ms
        settled_ms = made_ms + hyper.predict_every * stream.step_ms
        said, goes_on = memory.extras[at], np.isfinite(td_error)
        return {
            "experiences": pl.DataFrame(
                {
                    "model": pl.repeat(model, len(at), eager=True, dtype=pl.String),
                    "made_at": pl.Series(made_ms * 1000).cast(TIME),
                    "inference_id": inference_ids(model, stream, made_ms),
                    "next_id": pl.Series(inference_ids(model, stream, settled_ms)).set(pl.Series(~goes_on), None),
                    "previous": said[:, PREVIOUS].astype(np.int8),
                    "action": said[:, ACTION].astype(np.int8),
                    "log_return": log_return.astype(np.float32),
                    "reward": reward.astype(np.float32),
                    "td_error": pl.Series(td_error.astype(np.float32)).fill_nan(None),
                    "settled_at": pl.Series(settled_ms * 1000).cast(TIME),
                }
            )
        }


def prioritise(memory: Memory, labels: Labels, row: int, hyper: Hyperparameters) -> int:
    """The position up to which experiences can have settled at the close of `row`. All before it have their priority
    from now on: what a position came to never changes once both its ends are known, so none is looked at twice.
    """
    stop = max(row + 1 - hyper.predict_every - memory.first_row, 0)
    at = np.arange(memory.prioritised, stop)
    if len(at):
        at = at[traded(memory, at)]
        settled = settle(labels, memory, at, row, hyper)
        known = np.isfinite(settled.td_error)
        at, earned = at[known], settled.reward[known] / memory.norm_params[at[known], 1]
        memory.priorities[at] = priority(settled.td_error[known], earned)
        memory.prioritised = stop
    return stop


def priority(td_error: Floats, reward: Floats) -> NDArray[np.float64]:
    """LEAST_PRIORITY to 1 for each experience: how far its value was off, and what it earned, if it earned.

    Both are in units of what a candle usually moves, the scale of the frame; one such unit counts as half of the most.
    An error that is not finite, or not known yet, is as large as can be. Raises ValueError for such a reward.
    Source of the priority by |TD error|: Schaul et al., "Prioritized Experience Replay",
    https://arxiv.org/abs/1511.05952, §3.3
    """
    if not np.isfinite(reward).all():
        raise ValueError("expected finite rewards: what has no usable outcome is no experience")
    # 1 − 1 / (1 + x) has a value at infinity, which x / (1 + x) has not.
    surprise = 1 - 1 / (1 + np.abs(np.where(np.isnan(td_error), np.inf, td_error.astype(np.float64))))
    profit = 1 - 1 / (1 + np.maximum(reward.astype(np.float64), 0))
    mixed = (1 - PROFIT_SHARE) * surprise + PROFIT_SHARE * profit
    return LEAST_PRIORITY + (1 - LEAST_PRIORITY) * mixed


@torch.no_grad()
def targets(says: Says, mean_says: Says, batch: ValueBatch) -> Tensor:
    """[B, 3] what each position turned out to be worth: rewards, and the value of what follows."""
    turnover_B33 = constant(_TURNOVER, batch.cost_B.device).view(3, 3)[batch.reached_B3.long()]
    way_B33 = batch.cost_B[:, None, None] * turnover_B33
    chosen_B31 = (worth(says(batch.next_frame))[:, None, :] - way_B33).argmax(2, keepdim=True)
    value_B33 = worth(mean_says(batch.next_frame))[:, None, :] - way_B33
    return batch.rewards_B3 + batch.discount_B[:, None] * value_B33.gather(2, chosen_B31).squeeze(2)


def worth(output: ModelOutput) -> Tensor:
    """[B, 3] what it is worth to be short, flat or long."""
    assert output.extras_BE is not None
    return output.extras_BE


def net_return(labels: Labels, memory: Memory, hyper: Hyperparameters, row: int, window: int) -> Measured:
    """What the positions of references whose next close came at the last `window` closes earned on average, in basis
    points of the equity, net of costs."""
    stop = max(row + 1 - hyper.predict_every - memory.first_row, 0)
    at = np.arange(max(stop - window, 0), stop)
    reward = settle(labels, memory, at[traded(memory, at)], row, hyper).reward
    reward = reward[np.isfinite(reward)]
    return Measured(BASIS_POINTS * float(reward.mean()) if len(reward) else np.nan, len(reward))


Q_LEARNING = QLearning()
NET_RETURN = Metric(name="net bp per decision", direction="higher", measure=net_return)
