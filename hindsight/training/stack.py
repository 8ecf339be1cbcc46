"""Many learners at once: their weights lie side by side, and what their lessons ask for is one computation.

Legend: S learners, B references, D width of a hidden state, E extras. Learners may differ in their rates and seeds, and
in how often and on what they train; of one kind and shape they are all.

Sources: torch.func, https://docs.pytorch.org/docs/stable/func.html (model ensembling); the step is that of AdamW,
Loshchilov & Hutter, https://arxiv.org/abs/1711.05101
"""

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from hindsight.inference.blocks import Frame
from hindsight.training.engine import Lesson, Predict, Taught, Train, Work, frame_of, said_by
from hindsight.training.graphs import Given, graphs_for, played, tensors_in, with_tensors
from hindsight.training.learner import Learner
from hindsight.training.models.opinion import ModelOutput
from hindsight.training.step import LOSS_PARTS, Examples, opinion, pull_of

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW, as torch has them by default
Weights = dict[str, Tensor]  # [S, …] by name


def together(stack: "Stack", lessons: Sequence[Lesson[Taught]]) -> list[Taught]:
    """Takes every lesson to its end: one of each learner of the stack, which keeps their weights.

    Those that ask for the same kind and size of work at the same time, have it done at once. To many that begin
    together and train at the same closes that happens all the time; others wait for each other less and less.
    """
    ended: dict[int, Taught] = {}
    asked: dict[int, Work] = {}

    def hear(member: int, answer: Tensor | None) -> None:
        try:
            asked[member] = lessons[member].send(answer) if answer is not None else next(lessons[member])
        except StopIteration as end:
            ended[member] = end.value

    for member in range(len(lessons)):
        hear(member, None)
    while asked:
        alike: dict[object, list[int]] = defaultdict(list)
        for member, work in asked.items():
            alike[_kind(work)].append(member)
        members = max(alike.values(), key=len)
        for member, answer in zip(members, stack.do(members, [asked.pop(member) for member in members]), strict=True):
            hear(member, answer)
    return [ended[member] for member in range(len(lessons))]


def can_be_stacked(learner: Learner) -> bool:
    """Whether many of its kind can be one computation: torch knows no batch of recurrent layers."""
    return not any(isinstance(module, nn.RNNBase) for module in learner.model.modules())


def _kind(work: Work) -> object:
    """Works of one kind lead to tensors of the same shapes."""
    if isinstance(work, Predict):
        return len(work.rows), id(work.blocks)
    return len(work.examples.rows)


class Stack:
    """S learners: weights, their running means and the moments of their optimizer, each [S, …]. They begin anew: of
    the learners themselves only the weights are taken."""

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = learners
        first = learners[0]
        self.skeleton = deepcopy(first.model).to("meta")
        self.learns = {name: weights.requires_grad for name, weights in first.model.named_parameters()}
        self.weights = _stacked([learner.model for learner in learners])
        self.means = _stacked([learner.average for learner in learners])
        self.moments = {
            name: (torch.zeros_like(weights), torch.zeros_like(weights)) for name, weights in self.weights.items()
        }
        self.taken = torch.zeros(len(learners), device=first.device)
        self.graphs = graphs_for(first.device)
        hypers = [learner.hyper for learner in learners]
        self.rates, self.decays, self.clips = (
            self._there([getattr(hyper, name) for hyper in hypers])
            for name in ("learning_rate", "weight_decay", "clip_norm")
        )

    def do(self, members: Sequence[int], works: Sequence[Work]) -> list[Tensor]:
        """What comes of the work of each of these members, all of one kind. A GPU records only what all members do at
        once: groups that come and go would be recorded over and over."""
        at = self._there(members)
        run = partial(played, self.graphs if len(members) == len(self.learners) else None)
        if isinstance(works[0], Predict):
            frame, is_shared = self._frame_of([work for work in works if isinstance(work, Predict)])
            with torch.inference_mode():
                return list(run(("say", is_shared), lambda given: self._predict(*given, is_shared), (at, frame)))
        batch = self._batch_of([work for work in works if isinstance(work, Train)])
        learners = [self.learners[member] for member in members]
        pulls = self._there([pull_of(each.hyper, each.number + 1 - each.born_at) for each in learners])
        return list(run(("steps",), lambda given: self._train(*given), (at, batch, pulls)))

    def _frame_of(self, works: Sequence[Predict]) -> tuple[Frame[Tensor], bool]:
        """What they are made from, and whether that is one frame for all of them; else they stand side by side."""
        first = works[0]
        if all(np.array_equal(work.rows, first.rows) for work in works):
            return frame_of(self.learners[0], first), True
        rows, norm = (np.concatenate([getattr(work, name) for work in works]) for name in ("rows", "norm_params"))
        frame = frame_of(self.learners[0], Predict(blocks=first.blocks, rows=rows, norm_params=norm))
        return _apart(frame, len(works)), False

    def _batch_of(self, works: Sequence[Train]) -> Any:
        """[S, B, …]: what each takes its step on, made at once for those in a row that see the same market."""
        objective, device = self.learners[0].objective, self.taken.device
        made = []
        for _, group in groupby(works, key=lambda work: (id(work.blocks), id(work.labels))):
            alike = list(group)
            examples = _joined([work.examples for work in alike])
            batch = objective.batch(alike[0].blocks, alike[0].labels, examples, device)
            made.append(_apart(batch, len(alike)))
        return made[0] if len(made) == 1 else _merged(made)

    def _predict(self, at: Tensor, frame: Frame[Tensor], is_shared: bool) -> Tensor:
        """[S, B, 17 + D + E]."""
        means, seen = {name: weights[at] for name, weights in self.means.items()}, tensors_in(frame)

        def say(means: Weights, *seen: Tensor) -> Tensor:
            return said_by(partial(self._opinion, means), _again(frame, seen))

        return vmap(say, in_dims=(0, *(None if is_shared else 0 for _ in seen)))(means, *seen)

    def _train(self, at: Tensor, batch: Any, pull_S: Tensor) -> Tensor:
        """The parts of the loss [S, 6] on a batch each, after which each has taken its step."""
        objective, hyper = self.learners[0].objective, self.learners[0].hyper
        weights = {name: each[at].requires_grad_(self.learns[name]) for name, each in self.weights.items()}
        means = {name: each[at] for name, each in self.means.items()}

        def lose(weights: Weights, means: Weights, *given: Tensor) -> tuple[Tensor, Tensor]:
            says, mean_says = partial(self._opinion, weights), partial(self._opinion, means)
            loss = objective.loss(says, mean_says, _again(batch, given), hyper)
            return loss.total, torch.stack([getattr(loss, name).detach() for name in LOSS_PARTS])

        total_S, parts_S6 = vmap(lose)(weights, means, *tensors_in(batch))
        asked = {name: each for name, each in weights.items() if self.learns[name]}
        found = zip(asked, torch.autograd.grad(total_S.sum(), list(asked.values()), allow_unused=True), strict=True)
        self._step(at, {name: gradient for name, gradient in found if gradient is not None}, pull_S)
        return parts_S6

    @torch.no_grad()
    def _step(self, at: Tensor, gradients: Weights, pull_S: Tensor) -> None:
        """Clips, steps, and pulls the running mean, of the members `at`; not of one whose gradient is not finite."""
        norm_S = torch.stack([each.flatten(1).square().sum(1) for each in gradients.values()]).sum(0).sqrt()
        shrink_S, is_finite_S = (self.clips[at] / (norm_S + 1e-6)).clamp(max=1), torch.isfinite(norm_S)
        self.taken[at] += is_finite_S
        bias_S = [1 - beta ** self.taken[at] for beta in BETAS]
        for name, gradient in gradients.items():

            def of_each(values_S: Tensor, like: Tensor = gradient) -> Tensor:
                return values_S.view(-1, *(1 for _ in like.shape[1:]))

            gradient = gradient * of_each(shrink_S)
            weights, (mean, square) = self.weights[name][at], (moment[at] for moment in self.moments[name])
            decay_S = self.decays[at] if gradient.ndim > 2 else torch.zeros_like(pull_S)  # of matrices alone
            mean = mean.lerp(gradient, 1 - BETAS[0])
            square = square * BETAS[1] + gradient.square() * (1 - BETAS[1])
            newest = weights * of_each(1 - self.rates[at] * decay_S)
            scale = square.sqrt() / of_each(bias_S[1].sqrt()) + EPSILON
            newest = newest - of_each(self.rates[at] / bias_S[0]) * mean / scale
            keeps = of_each(is_finite_S)
            for place, new in zip((self.weights[name], *self.moments[name]), (newest, mean, square), strict=True):
                place[at] = torch.where(keeps, new, place[at])
            average = self.means[name]
            average[at] = average[at].lerp(self.weights[name][at], of_each(pull_S * is_finite_S))

    def _there(self, values: Sequence[int] | Sequence[float]) -> Tensor:
        """The values on the device; nothing waits for it."""
        return torch.tensor(values).to(self.taken.device, non_blocking=True)

    def _opinion(self, weights: Weights, frame: Frame[Tensor]) -> ModelOutput:
        def call(frame: Frame[Tensor]) -> ModelOutput:
            with sdpa_kernel(SDPBackend.MATH):  # the fused ones know no batch of batches on every device
                return functional_call(self.skeleton, weights, (frame,))

        return opinion(call, frame, self.learners[0].hyper)


def _stacked(modules: Sequence[nn.Module]) -> Weights:
    each = [dict(module.named_parameters()) for module in modules]
    return {name: torch.stack([weights[name].detach() for weights in each]) for name in each[0]}


def _joined(each: Sequence[Examples]) -> Examples:
    """The examples of all, one after the other."""
    names = [field.name for field in fields(each[0])]
    return replace(each[0], **{name: np.concatenate([getattr(one, name) for one in each]) for name in names})


def _apart(value: Given, members: int) -> Given:
    """What was made for all members at once, [S · B, …], as [S, B, …]."""
    return with_tensors(value, lambda tensor: tensor.unflatten(0, (members, -1)))


def _merged(values: Sequence[Given]) -> Given:
    """Values [S, …] of some members and of others as one."""
    return _again(values[0], [torch.cat(each) for each in zip(*map(tensors_in, values), strict=True)])


def _again(value: Given, tensors: Sequence[Tensor]) -> Given:
    """The value with other tensors, in their order."""
    rest = iter(tensors)
    return with_tensors(value, lambda _: next(rest))
