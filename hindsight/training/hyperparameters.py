"""Hyperparameters: what a training step depends on beside candles and weights."""

from dataclasses import asdict, dataclass

from hindsight.inference.labels import TrendRule
from hindsight.inference.trading import TradingCost


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """Everything but candles and weights that a step depends on; stored with each step as JSON.

    The rule by which trends are told apart makes the answers, and the seed the initial weights of a lineage. What
    trading costs, how often a position may change and how far ahead its value looks matter to models that trade alone:
    by default about as far as a level-2 pivot usually lies away, 1 / (1 − discount) ≈ 16 decisions.
    """

    learning_rate: float = 2e-4
    weight_decay: float = 1.5  # strong: neighbouring references share most of an answer, which is soon overfitted
    clip_norm: float = 1.0
    average_decay: float = 0.9998
    weight_action: float = 1.0
    weight_candle: float = 0.5
    weight_trend: float = 1.0
    weight_pivot: float = 1.0
    weight_value: float = 1.0
    flat_fraction: float = 1.0
    trend_ttl: int = 200
    predict_every: int = 1
    fee: float = 0.001
    half_spread: float = 0.00005
    discount: float = 0.94
    return_steps: int = 3
    precision: str = "float32"
    seed: int = 0

    @property
    def trend_rule(self) -> TrendRule:
        """How a trend is told from flat, and when it expires."""
        return TrendRule(flat_fraction=self.flat_fraction, trend_ttl=self.trend_ttl)

    @property
    def trading_cost(self) -> TradingCost:
        """What a change of position costs."""
        return TradingCost(fee=self.fee, half_spread=self.half_spread)

    def as_dict(self) -> dict[str, float | str]:
        return asdict(self)
