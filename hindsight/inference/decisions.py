"""What to do at a close, out of one probability of a rise: buy, sell or hold, and why.

A confidence is the probability of the likelier side, from 0.5 to 1, as it is stored beside the action of a reference.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import SettingRefused

ACTIONS = ("hold", "buy", "sell")
HOLD, BUY, SELL = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRule:
    """From which probability of a rise on to buy, up to which to sell; and how confident to be for either."""

    buy_threshold: float = 0.55
    sell_threshold: float = 0.45
    minimum_confidence: float = 0.525

    def __post_init__(self) -> None:
        if not 0 < self.sell_threshold <= 0.5 <= self.buy_threshold < 1 or self.sell_threshold == self.buy_threshold:
            raise SettingRefused(
                "expected 0 < sell_threshold <= 0.5 <= buy_threshold < 1, and not both 0.5, found sell_threshold"
                f" {self.sell_threshold} and buy_threshold {self.buy_threshold}"
            )
        if not 0.5 <= self.minimum_confidence < 1:
            raise SettingRefused(
                "minimum_confidence: expected at least 0.5, which is chance, and below 1, found"
                f" {self.minimum_confidence}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What to do at each of N closes."""

    rule: DecisionRule
    probability: NDArray[np.float64]  # [N] of a rise; NaN where no model predicted
    confidence: NDArray[np.float64]  # [N] NaN likewise
    action: NDArray[np.int8]  # [N] codes of ACTIONS

    def names(self) -> list[str]:
        """The actions in words."""
        return [ACTIONS[code] for code in self.action.tolist()]

    def reasons(self) -> list[str]:
        """Why each was decided so, in words and numbers."""
        return [reason(probability, self.rule) for probability in self.probability.tolist()]


def decide(probability: NDArray[np.floating], rule: DecisionRule) -> Decisions:
    """What to do at each close where a rise has `probability` [N]; NaN, where no model predicted, is a hold.

    Raises ValueError for what is no probability.
    """
    p = probability.astype(np.float64)
    wrong = ~np.isnan(p) & ~((p >= 0) & (p <= 1))
    if wrong.any():
        raise ValueError(f"expected probabilities, or NaN where no model predicted, found {p[wrong][0]}")
    confidence = np.maximum(p, 1 - p)
    is_confident = confidence >= rule.minimum_confidence
    action = np.full(len(p), HOLD, np.int8)
    action[is_confident & (p >= rule.buy_threshold)] = BUY
    action[is_confident & (p <= rule.sell_threshold)] = SELL
    return Decisions(rule=rule, probability=p, confidence=confidence, action=action)


def reason(probability: float, rule: DecisionRule) -> str:
    """Why to do what `decide` says where a rise has `probability`.

    >>> reason(0.513, DecisionRule())
    '0.513 is below the buy threshold 0.55 and above the sell threshold 0.45'
    >>> reason(0.561, DecisionRule(minimum_confidence=0.6))
    '0.561 is at or above the buy threshold 0.55, but its confidence 0.561 is below 0.6'
    """
    buy, sell = rule.buy_threshold, rule.sell_threshold
    if np.isnan(probability):
        return "no model predicted"
    said = _apart(probability, buy, sell)
    if probability >= buy:
        found = f"{said} is at or above the buy threshold {buy:g}"
    elif probability <= sell:
        found = f"{said} is at or below the sell threshold {sell:g}"
    else:
        return f"{said} is below the buy threshold {buy:g} and above the sell threshold {sell:g}"
    confidence = max(probability, 1 - probability)
    if confidence >= rule.minimum_confidence:
        return found
    least = rule.minimum_confidence
    return f"{found}, but its confidence {_apart(confidence, least)} is below {least:g}"


def _apart(value: float, *bounds: float) -> str:
    """`value` with three digits, or as many as show on which side of each bound it lies."""
    sides = [np.sign(value - bound) for bound in bounds]
    for digits in range(3, 17):
        text = f"{value:.{digits}f}"
        if [np.sign(float(text) - bound) for bound in bounds] == sides:
            return text
    return repr(value)
