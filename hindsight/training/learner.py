"""A learner from nothing, to tensors, and back from them: everything that continues a model bit for bit."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import nn

from hindsight.errors import CheckpointUnreadable
from hindsight.inference.shape import FrameShape
from hindsight.training.checkpoints import Tensors
from hindsight.training.graphs import Given, Graphs, graphs_for, played
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.metrics import Metric
from hindsight.training.models.registry import model_of
from hindsight.training.objective import Objective
from hindsight.training.step import make_optimizer

_ONE_AT_A_TIME = Lock()
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW


@dataclass(slots=True, kw_only=True)
class Learner:
    """One model of one stream: weights, optimizer and the number of steps behind them."""

    model: nn.Module
    average: nn.Module  # of the model's weights; the one that predicts
    optimizer: torch.optim.Optimizer
    number: int
    shape: FrameShape
    width: int  # of a hidden state
    device: torch.device
    hyper: Hyperparameters
    objective: Objective
    metric: Metric
    pull: torch.Tensor  # of the running mean by the step at hand, on the device
    graphs: Graphs | None  # on a GPU
    serving: nn.Module | None = None  # the champion: predicts beside the average, and does not learn
    serving_id: int = -1
    seconds_inside: float = 0.0  # forward, backward, optimizer
    trained_row: int | None = None  # at whose close the last step was, once there was one
    born_at: int = 0  # the steps behind an older lineage of another schema, if there was one

    def run(self, name: tuple[Any, ...], work: Callable[[Given], torch.Tensor], given: Given) -> torch.Tensor:
        """`work(given)`, on a GPU as a graph that is recorded once; see `Graphs.run`."""
        return played(self.graphs, name, work, given)


def new_learner(model: str, hyper: Hyperparameters, device: torch.device, shape: FrameShape) -> Learner:
    """A learner for frames of `shape` with initial weights, which follow from the seed among `hyper` alone."""
    kind = model_of(model)
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):  # the generator belongs to the whole process
        torch.manual_seed(hyper.seed)
        module = kind.build(kind.config, shape).to(device)
    return Learner(
        model=module,
        average=copy_of(module),
        optimizer=make_optimizer(module, hyper),
        number=0,
        shape=shape,
        width=kind.config.width,
        device=device,
        hyper=hyper,
        objective=kind.objective,
        metric=kind.metric,
        pull=torch.zeros((), device=device),
        graphs=graphs_for(device),
    )


def copy_of(module: nn.Module) -> nn.Module:
    """A copy that predicts and does not learn."""
    copy = deepcopy(module).requires_grad_(False)
    for each in copy.modules():
        if isinstance(each, nn.RNNBase):
            each.flatten_parameters()  # cuDNN wants them in one piece, and says so at every call where they are not
    return copy


def tensors_of(learner: Learner) -> Tensors:
    """Copies of weights, running mean and optimizer state on the CPU, by flat names."""
    named = {f"model.{name}": value for name, value in learner.model.state_dict().items()}
    named |= {f"average.{name}": value for name, value in learner.average.state_dict().items()}
    for name, parameter in learner.model.named_parameters():
        if state := learner.optimizer.state.get(parameter):
            named |= {f"optimizer.{name}.{moment}": state[moment] for moment in _MOMENTS}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in named.items()}


def restore(learner: Learner, tensors: Tensors, number: int) -> None:
    """Puts the state of checkpoint `number` into `learner`. Raises CheckpointUnreadable when tensors do not fit."""
    try:
        learner.model.load_state_dict(_below(tensors, "model."))
        learner.average.load_state_dict(_below(tensors, "average."))
        for name, parameter in learner.model.named_parameters():
            own = _below(tensors, f"optimizer.{name}.")
            if not own:
                continue  # it has never had a gradient
            state = {moment: own[moment].to(learner.device, copy=True) for moment in _MOMENTS}
            if state["exp_avg"].shape != parameter.shape:
                raise KeyError(f"optimizer.{name}: expected {list(parameter.shape)}")
            learner.optimizer.state[parameter] = state
    except (RuntimeError, KeyError) as error:
        raise CheckpointUnreadable(f"checkpoint {number} does not fit the model it is for: {error}") from error
    learner.number = number
    learner.graphs = graphs_for(learner.device)  # what was recorded speaks of the moments that were there before


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
