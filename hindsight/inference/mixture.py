"""One probability out of several models' at each close: a gate that learns whom to trust, from settled outcomes alone.

Legend: N closes in the order of their rows, M models, C features of the market.

Order of events at the close of row r, as DESIGN §3 has it for a model: the gate decides with what it learned from
answers known at closes **before** r. What is known at r itself is learned later, so no decision waits for training.

The gate starts as the equal average. The mixture, the equal average and every model are compared on the same settled
closes, with a discount. Where the mixture has lost more than the best model, or than the equal average, by more than
`band` standard errors, the best of those stands in for it, until it is within `release` of them again. The gate goes on
learning and is compared all the while.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import ModelBroken, SettingRefused
from hindsight.inference.gate import EQUAL, MIXTURE, NOBODY, walk
from hindsight.inference.gate_state import GateState, columns
from hindsight.inference.losses import MINIMUM_PROBABILITY

CONTEXT_LIMIT = 3.0  # scales from the centre, beyond which a feature counts as so far
# Below this many closes the gate runs as plain Python, because importing numba costs more than it saves.
COMPILED_FROM = 2000

Rows = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A feature of the market: the gate reads (value − centre) / scale, both stated and never fitted."""

    name: str
    centre: float
    scale: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.scale) and self.scale > 0):
            raise SettingRefused(
                f"feature {self.name}: expected a finite centre and a scale above 0, found {self.centre} and"
                f" {self.scale}"
            )


CONTEXT = (
    Feature(name="volatility", centre=-7.6, scale=1.0),  # log of the standard deviation of recent log returns
    Feature(name="spread", centre=-9.2, scale=1.0),  # log of (ask − bid) / mid
    Feature(name="imbalance", centre=0.0, scale=0.3),  # of the book, −1 to 1
    Feature(name="day_sine", centre=0.0, scale=1.0),  # of the angle of the time of the UTC day
    Feature(name="day_cosine", centre=0.0, scale=1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule:
    """How fast the gate learns and forgets, in settled closes, and when it is not to be trusted."""

    context: tuple[Feature, ...] = CONTEXT
    learning_rate: float = 0.2  # of AdaGrad
    gate_half_life: float = 10_000  # of coefficients and of the memory of their gradients
    skill_half_life: float = 1000  # of a model's advantage over chance
    trailing_half_life: float = 2000  # of the losses that are compared
    band: float = 2.0  # standard errors behind from which the mixture is replaced
    release: float = 1.0  # standard errors behind within which it comes back
    least: float = 100  # discounted closes below which nobody is compared
    patience: int = 1440  # rows after which an answer that has not come is waited for no longer

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.context]
        if len(set(names)) < len(names):
            raise SettingRefused(f"context: expected each feature once, found {', '.join(names)}")
        for name in ("gate_half_life", "skill_half_life", "trailing_half_life"):
            if not 1 <= getattr(self, name) < math.inf:
                raise SettingRefused(f"{name}: expected at least 1 close, found {getattr(self, name)}")
        if not 0 < self.learning_rate <= 1:
            raise SettingRefused(f"learning_rate: expected above 0 and at most 1, found {self.learning_rate}")
        if not 0 <= self.release <= self.band < math.inf:
            raise SettingRefused(f"expected 0 <= release <= band, found {self.release} and {self.band}")
        if not 2 <= self.least <= self.trailing_half_life:
            raise SettingRefused(f"least: expected 2 to trailing_half_life closes, found {self.least}")
        if self.patience < 1:
            raise SettingRefused(f"patience: expected at least 1 row, found {self.patience}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """What the models said at the closes of `rows`, and what came of it, as far as that is known."""

    rows: Rows  # [N] rising
    buy: Numbers  # [N, M] probability that the next candle closes above the last close; NaN: no prediction
    context: Numbers  # [N, C] beside GateRule.context; NaN: unknown
    up: NDArray[np.integer[Any]]  # [N] 1 it did, 0 it closed below, -1 neither, or nobody can tell
    settled: Rows  # [N] the row at whose close that was known; labels.PENDING while it is not

    def __post_init__(self) -> None:
        count = len(self.rows)
        shapes = [each.shape for each in (self.buy, self.context, self.up, self.settled)]
        if [shape[:1] for shape in shapes] != [(count,)] * 4 or [len(shape) for shape in shapes] != [2, 2, 1, 1]:
            raise ValueError(
                f"expected buy [N, M], context [N, C], up [N] and settled [N] of N = {count}, found {shapes}"
            )
        if count and (self.rows[0] < 0 or (np.diff(self.rows) <= 0).any()):
            raise ValueError("expected rows from 0 on, rising, each once")
        if (self.settled <= self.rows).any():
            at = int(np.flatnonzero(self.settled <= self.rows)[0])
            raise ValueError(
                f"expected an answer after its close, found row {self.rows[at]} settled {self.settled[at]}"
            )
        if not np.isin(self.up, (-1, 0, 1)).all():
            raise ValueError(f"up: expected -1, 0 and 1, found {np.unique(self.up).tolist()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """What was decided at each of the n closes that were new."""

    rows: Rows  # [n]
    probability: NDArray[np.float64]  # [n] of a rise; NaN where no model predicted
    used: NDArray[np.int16]  # [n] MIXTURE, EQUAL, NOBODY or the number of a model
    weights: NDArray[np.float64]  # [n, M] each model's share in `probability`; 0 where it made no prediction
    mixture: NDArray[np.float64]  # [n] the mixture's own probability, used or not

    def used_names(self, models: Sequence[str]) -> list[str]:
        """What was used, in words: mixture, equal, none or the name of a model."""
        words = {MIXTURE: "mixture", EQUAL: "equal", NOBODY: "none", **dict(enumerate(models))}
        return [words[code] for code in self.used.tolist()]


def mix(state: GateState, closes: Closes, rule: GateRule) -> tuple[GateState, Mixed]:
    """The state after `closes`, and what was decided at those later than `state.last_row`. `state` is left as it was.

    The closes start at `state.needs_from` or earlier: those decided before bring answers, and are not decided again. An
    answer is used at the first close after the one at which it was known, whatever `closes` say of it before that.

    Raises ValueError where a close is missing whose answer the state waits for, or the arrays are of other models or
    features than the state; ModelBroken where a probability is none.
    """
    _check(state, closes, rule)
    record, pending = state.as_arrays()
    new = np.flatnonzero(closes.rows > record["last_row"])
    count, models = len(new), len(state.models)
    first = len(pending)
    if not count:
        return state, _mixed(closes.rows[new], *_outputs(0, models), 0)
    at = np.concatenate([np.searchsorted(closes.rows, pending["row"]), new])
    rows, settled = closes.rows[at].astype(np.int64), closes.settled[at].astype(np.int64)
    buy = np.concatenate([pending["buy"], _bounded(closes.buy[new])])
    context = np.concatenate([pending["context"], _standardised(closes.context[new], rule)])
    weights = np.concatenate([pending["weights"], np.zeros((count, models))])
    skill = np.concatenate([pending["skill"], np.zeros((count, models))])
    mixture, used, probability, contributions = _outputs(first + count, models)
    mixture[:first] = pending["mixture"]
    spoke = ~np.isnan(buy).all(axis=1)
    order = np.lexsort((rows, settled))
    order = order[(spoke & (settled - rows <= rule.patience))[order]]
    gate: Any = _compiled() if count >= COMPILED_FROM else walk
    learned = gate(
        first,
        rows,
        buy,
        context,
        closes.up[at].astype(np.int64),
        settled,
        order,
        weights,
        skill,
        mixture,
        used,
        probability,
        contributions,
        *(record[name] for name in ("fallen", "shared", "own", "advantage", "trail")),
        float(rule.learning_rate),
        *(0.5 ** (1 / each) for each in (rule.gate_half_life, rule.skill_half_life, rule.trailing_half_life)),
        float(rule.band),
        float(rule.release),
        float(rule.least),
    )
    record["last_row"] = rows[-1]
    waits = spoke & (rows[-1] - rows <= rule.patience)
    waits[order[:learned]] = False
    waiting: Any = np.empty(int(waits.sum()), pending.dtype)
    fields = {"row": rows, "buy": buy, "context": context, "weights": weights, "skill": skill, "mixture": mixture}
    for name, values in fields.items():
        waiting[name] = values[waits]
    return state.with_arrays(record, waiting), _mixed(rows[first:], mixture, used, probability, contributions, first)


@cache
def _compiled() -> Any:
    from numba import njit  # 0.4 s to import: only where it pays

    return njit(cache=True)(walk)


def _check(state: GateState, closes: Closes, rule: GateRule) -> None:
    names = tuple(feature.name for feature in rule.context)
    found = (closes.buy.shape[1], closes.context.shape[1])
    if state.context != names or found != (len(state.models), len(names)):
        raise ValueError(
            f"expected {len(state.models)} models and the context {state.context}, found {found[0]} models and"
            f" {found[1]} features, called {names}; GateState.for_models makes a state for others"
        )
    waited_for = np.setdiff1d(state.as_arrays()[1]["row"], closes.rows)
    if len(waited_for) and len(closes.rows) and closes.rows[-1] > state.last_row:
        raise ValueError(
            f"expected the closes from row {state.needs_from} on, whose answers are waited for; missing are"
            f" {waited_for.tolist()}"
        )
    wrong = ~np.isnan(closes.buy) & ~((closes.buy >= 0) & (closes.buy <= 1))
    if wrong.any():
        at, model = (int(each) for each in np.argwhere(wrong)[0])
        raise ModelBroken(
            f"model {state.models[model]}: expected a probability, or NaN where there is none, found"
            f" {closes.buy[at, model]} at row {closes.rows[at]}"
        )


def _bounded(buy: Numbers) -> NDArray[np.float64]:
    return np.clip(buy.astype(np.float64), MINIMUM_PROBABILITY, 1 - MINIMUM_PROBABILITY)


def _standardised(context: Numbers, rule: GateRule) -> NDArray[np.float64]:
    """[N, K]: 1, each feature in scales from its centre, 0 where it is unknown, and for each 1 where it is unknown."""
    count = len(rule.context)
    found = np.zeros((len(context), columns(count)))
    found[:, 0] = 1.0
    known = np.isfinite(context)
    centre = np.array([feature.centre for feature in rule.context])
    scale = np.array([feature.scale for feature in rule.context])
    values = (np.where(known, context, 0.0).astype(np.float64) - centre) / scale
    found[:, 1 : 1 + count] = np.where(known, np.clip(values, -CONTEXT_LIMIT, CONTEXT_LIMIT), 0.0)
    found[:, 1 + count :] = ~known
    return found


def _outputs(count: int, models: int) -> tuple[Any, Any, Any, Any]:
    nothing = np.full(count, np.nan)
    return nothing, np.full(count, NOBODY, np.int64), nothing.copy(), np.zeros((count, models))


def _mixed(rows: Rows, mixture: Any, used: Any, probability: Any, contributions: Any, first: int) -> Mixed:
    return Mixed(
        rows=rows,
        probability=probability[first:],
        used=used[first:].astype(np.int16),
        weights=contributions[first:],
        mixture=mixture[first:],
    )
