"""One training step: forward, loss, backward, clip, step. The same function learns, and re-lives a recorded step.

Legend: B references of the batch, K pivot targets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as fn
from numpy.typing import NDArray
from torch import Tensor, nn

from hindsight.inference.blocks import Frame
from hindsight.inference.frames import Frames, Rows
from hindsight.inference.labels import VALIDATED, Labels
from hindsight.inference.predictions import TARGET_AGES
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.models.opinion import ModelOutput

RULES = "step 2"  # another number where the same records of steps would lead to other weights
Says = Callable[[Frame[Tensor]], ModelOutput]  # what some weights say of B frames
LOSS_PARTS = ("total", "action", "candle", "trend", "pivot", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """The references that a step is taken on, by row, and how much each counts. Put one after the other, those of many
    learners that see the same market make one batch.

    Not all are asked for their trend: all references between two pivots share one, and so few different answers are
    soon known by heart where they are asked again.
    """

    rows: Rows  # [B]
    norm_params: Frames  # [B, 4] of their frames
    weights: Frames  # [B]
    event_rows: Rows  # [B] answers are known up to the close of this row
    is_graded: NDArray[np.bool_]  # [B] asked for its trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Frames and the answers that were known at the event; an answer still pending has mask 0."""

    frame: Frame[Tensor]
    weight_B: Tensor  # importance
    up_B: Tensor  # 1 the next close lay above the last, 0 below
    up_mask_B: Tensor
    candle_B4: Tensor
    candle_mask_B: Tensor
    trend_B: Tensor  # class
    trend_mask_B: Tensor
    high_B: Tensor
    high_mask_B: Tensor
    pivot_return_BK: Tensor
    pivot_candles_BK: Tensor
    pivot_mask_BK: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The parts, before their weights, and the weighted total. Means over the examples that have an answer.

    `value` is 0 for a model that values nothing.
    """

    total: Tensor
    action: Tensor
    candle: Tensor
    trend: Tensor
    pivot: Tensor
    value: Tensor


# By what the weights that learn say, what their running mean says, and a batch. Nothing in it may wait for the device.
LossBy = Callable[[Says, Says, Any, Hyperparameters], Loss]


def make_optimizer(model: nn.Module, hyper: Hyperparameters) -> torch.optim.AdamW:
    """AdamW, fused. Matrices decay; biases and the gains of norms do not: they hold no pattern to forget, and a decay
    this strong would keep them near zero. Source: Loshchilov & Hutter, https://arxiv.org/abs/1711.05101
    """
    matrices = [weights for weights in model.parameters() if weights.ndim > 1]
    others = [weights for weights in model.parameters() if weights.ndim <= 1]
    on_gpu = any(weights.is_cuda for weights in model.parameters())
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": others}], fused=True, capturable=on_gpu)
    # Steps are taken launch by launch before they are recorded; torch would warn of the first of them.
    optimizer._warned_capturable_if_run_uncaptured = True  # pyright: ignore[reportAttributeAccessIssue]
    set_rates(optimizer, hyper)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, hyper: Hyperparameters) -> None:
    """The rates of an optimizer of `make_optimizer`, which a restart may have changed."""
    for group, decay in zip(optimizer.param_groups, (hyper.weight_decay, 0.0), strict=True):
        group["lr"], group["weight_decay"] = hyper.learning_rate, decay


def opinion(model: Callable[[Frame[Tensor]], ModelOutput], frame: Frame[Tensor], hyper: Hyperparameters) -> ModelOutput:
    """What a model says of B frames, in float32. Of the precision `bfloat16` its products of matrices are in that;
    weights, scales, norms and losses stay float32.
    """
    half = hyper.precision == "bfloat16"
    with torch.autocast(frame.norm.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
        output = model(frame)
    return output._replace(**{name: each.float() for name, each in output._asdict().items() if each is not None})


def to_tensors(frame: Frame[Any], device: torch.device) -> Frame[Tensor]:
    """The frame, of arrays or of tensors, on `device`."""
    return frame.map(lambda block: torch.as_tensor(block).to(device, non_blocking=True))


def make_batch(frame: Frame[Tensor], labels: Labels, examples: Examples, device: torch.device) -> Batch:
    """The `frame` of the examples with every answer known at the close of their event, and none that came later."""
    at, event_rows = examples.rows - labels.first_row, examples.event_rows
    candle, pivot, trend = labels.candle, labels.pivot, labels.trend
    scale = examples.norm_params[:, 1]
    returns = candle.log_returns[at]
    candle_known = candle.usable[at] & (candle.settled[at] <= event_rows)
    pivot_known = pivot.usable[at] & (pivot.settled[at] <= event_rows[:, None])
    trend_known = (trend.status[at] == VALIDATED) & (trend.settled[at] <= event_rows) & examples.is_graded
    price = np.where(pivot_known, pivot.log_return[at] / (scale[:, None] * np.sqrt(TARGET_AGES)), 0)
    candles = np.where(pivot_known, np.log(np.maximum(pivot.candles[at], 1) / TARGET_AGES), 0)
    answers = packed(
        {
            "weight_B": examples.weights,
            "up_B": returns[:, 3] > 0,
            "up_mask_B": candle_known & (returns[:, 3] != 0),
            "candle_B4": np.where(candle_known[:, None], returns / scale[:, None], 0),
            "candle_mask_B": candle_known,
            "trend_B": np.where(trend_known, trend.trend[at], 0),
            "trend_mask_B": trend_known,
            "high_B": pivot.next_type[at] == 1,
            "high_mask_B": pivot_known[:, :2].any(axis=1),
            "pivot_return_BK": price,
            "pivot_candles_BK": candles,
            "pivot_mask_BK": pivot_known,
        },
        device,
    )
    answers["trend_B"] = answers["trend_B"].long()
    return Batch(frame=frame, **answers)


def packed(columns: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Arrays [B] or [B, K] as float32 on `device`, taken there at once."""
    ends = np.cumsum([1 if values.ndim == 1 else values.shape[1] for values in columns.values()]).tolist()
    found = np.empty((len(next(iter(columns.values()))), ends[-1]), np.float32)
    for values, start, end in zip(columns.values(), [0, *ends], ends, strict=False):
        found[:, start:end] = values.reshape(-1, end - start)
    there = torch.from_numpy(found).to(device, non_blocking=True)
    return {
        name: there[:, start] if values.ndim == 1 else there[:, start:end]
        for (name, values), start, end in zip(columns.items(), [0, *ends], ends, strict=False)
    }


def loss_of(output: ModelOutput, batch: Batch, hyper: Hyperparameters) -> Loss:
    """Huber on the candle and the pivots, cross-entropy on action, trend and side of the next pivot."""
    weight = batch.weight_B
    action = weighted_mean(_binary(output.buy_logit_B, batch.up_B), weight * batch.up_mask_B)
    candle = weighted_mean(
        fn.huber_loss(output.candle_B4, batch.candle_B4, reduction="none").mean(1), weight * batch.candle_mask_B
    )
    trend = weighted_mean(
        fn.cross_entropy(output.trend_logits_B3, batch.trend_B, reduction="none"), weight * batch.trend_mask_B
    )
    side = weighted_mean(_binary(output.high_logit_B, batch.high_B), weight * batch.high_mask_B)
    vector = fn.huber_loss(output.pivot_return_B4, batch.pivot_return_BK, reduction="none") + fn.huber_loss(
        output.pivot_candles_B4, batch.pivot_candles_BK, reduction="none"
    )
    pivot = side + weighted_mean(vector, weight[:, None] * batch.pivot_mask_BK)
    total = (
        hyper.weight_action * action
        + hyper.weight_candle * candle
        + hyper.weight_trend * trend
        + hyper.weight_pivot * pivot
    )
    return Loss(total=total, action=action, candle=candle, trend=trend, pivot=pivot, value=torch.zeros_like(total))


def train_step(
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    hyper: Hyperparameters,
    pull: Tensor,
    loss_by: LossBy,
) -> Loss:
    """A step on `batch`, by the loss that `loss_by` finds, after which the running mean is pulled to the new weights;
    returns its losses, detached.

    A step whose gradient is not finite changes no weight. Whether it is, the device decides for itself: nothing here
    waits for a result of it.
    """
    set_rates(optimizer, hyper)
    optimizer.zero_grad(set_to_none=True)
    loss = loss_by(partial(opinion, model, hyper=hyper), partial(opinion, average, hyper=hyper), batch, hyper)
    loss.total.backward()
    is_finite = torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), hyper.clip_norm))
    # Where this is 1, the fused optimizer leaves weights and moments alone.
    optimizer.found_inf = (~is_finite).float()  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    follow(average, model, pull * is_finite)
    return Loss(**{name: getattr(loss, name).detach() for name in LOSS_PARTS})


def pull_of(hyper: Hyperparameters, number: int) -> float:
    """How far step `number` of a lineage pulls the running mean to the newest weights: over about
    1 / (1 − average_decay) steps, and at first over the newer part of all steps.

    Single steps on a handful of overlapping answers are noisy, and their mean is not: it is what predicts.
    Source: Shamir & Zhang 2013, https://arxiv.org/abs/1212.1824, §4 (polynomial-decay averaging, η = 3)
    """
    return max(1 - hyper.average_decay, 4 / (number + 3))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, pull: Tensor) -> None:
    """Moves `average` towards `model` by the share `pull`."""
    for mean, newest in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(newest, pull)


def _binary(logit: Tensor, truth: Tensor) -> Tensor:
    return fn.binary_cross_entropy_with_logits(logit, truth, reduction="none")


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean, in which each value counts as much as its weight; 0 where none does."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)
