"""Trading: what positions earned, net of costs, and the figures by which a trader is judged (see positions.py).

Legend: N closes, one per tape row. `previous` and `actions` [N] are codes: what was held before a close, and from it.

What is decided at the close of row r is entered at the close price of row r and held over the next candle. It earns
position × (exp(log return of close r to close r + 1) − 1), a share of the equity, less `per_turnover` for each unit by
which the position changes: 1 to enter or leave, 2 to turn around. That is known at the close of r + 1. Exposure is one
equity, short or long, restored at each close at no cost; nothing is paid for holding overnight or for what is borrowed,
nor for leaving at the end. A small trader does not move the market: what any other position would have earned is known.

Where the next candle is missing there is no reward, and neither gain, loss nor cost is counted.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.errors import SettingRefused
from hindsight.inference.positions import POSITION, Actions, Floats

YEAR_MS = 365 * 86_400_000  # these markets never close
NEGLIGIBLE = 1e-12  # of the mean square: no variance at all, but the rounding of one


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingCost:
    """What one unit of turnover costs, in shares of what is traded."""

    fee: float
    half_spread: float  # (ask − bid) / 2 / mid

    def __post_init__(self) -> None:
        for name in ("fee", "half_spread"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingRefused(f"{name}: expected at least 0 and below 1, found {getattr(self, name)}")

    @property
    def per_turnover(self) -> float:
        """Both together."""
        return self.fee + self.half_spread


def rewards_of_all(log_return: Floats, cost: TradingCost) -> NDArray[np.float64]:
    """[N, 3, 3] the reward of every (position held before, action), from the log returns [N] to the next close.

    NaN where the return is none: the next candle is missing, or has not closed.
    """
    turnover = np.abs(POSITION[:, None] - POSITION)
    return (POSITION * _simple(log_return)[:, None])[:, None, :] - cost.per_turnover * turnover


def rewards_of(log_return: Floats, previous: Actions, actions: Actions, cost: TradingCost) -> NDArray[np.float64]:
    """[N] the rewards of the positions taken."""
    turnover = np.abs(POSITION[actions] - POSITION[previous])
    return POSITION[actions] * _simple(log_return) - cost.per_turnover * turnover


def _simple(log_return: Floats) -> NDArray[np.float64]:
    return np.expm1(np.where(np.isfinite(log_return), log_return, np.nan).astype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingSums:
    """What is added up over closes with a reward, in order: of any two neighbours, `combine` gives those of both.

    | field | meaning |
    |---|---|
    | candles, held, hits | with a reward; of those in a position; of those with a gain before costs |
    | turnover | units by which the position changed |
    | reward_sum, reward_square_sum, cost_sum | shares of the equity of the moment |
    | log_growth | of the equity from start to end; −∞: nothing is left |
    | log_peak, log_low | highest and lowest the equity stood over its start, which is among them |
    | log_drawdown | the deepest fall from any peak to any later close; ∞: nothing is left |
    """

    candles: int = 0
    held: int = 0
    hits: int = 0
    turnover: int = 0
    reward_sum: float = 0.0
    reward_square_sum: float = 0.0
    cost_sum: float = 0.0
    log_growth: float = 0.0
    log_peak: float = 0.0
    log_low: float = 0.0
    log_drawdown: float = 0.0

    @property
    def net_return(self) -> float:
        """What the equity grew by, rewards compounded: the return that is reported."""
        return math.expm1(self.log_growth)

    @property
    def max_drawdown(self) -> float:
        """The largest share of the equity that was lost from a peak, 0 to 1, as seen at closes."""
        return -math.expm1(-self.log_drawdown)

    @property
    def hit_rate(self) -> float:
        """The share of candles in a position that gained before costs; NaN without any."""
        return self.hits / self.held if self.held else math.nan

    @property
    def time_in_market(self) -> float:
        """The share of candles in a position; NaN without any candle."""
        return self.held / self.candles if self.candles else math.nan

    def sharpe(self, step_ms: int) -> float:
        """Mean reward over its standard deviation, per year of candles of `step_ms`; NaN where rewards do not vary.

        Rewards are taken for independent, and a riskless one for 0. Source: Sharpe 1994, "The Sharpe Ratio",
        doi:10.3905/jpm.1994.409501
        """
        if self.candles < 2:
            return math.nan
        mean, mean_square = self.reward_sum / self.candles, self.reward_square_sum / self.candles
        variance = mean_square - mean**2
        if variance <= NEGLIGIBLE * mean_square:
            return math.nan
        return mean / math.sqrt(variance * self.candles / (self.candles - 1)) * math.sqrt(YEAR_MS / step_ms)


def combine(parts: Iterable[TradingSums]) -> TradingSums:
    """The sums of all `parts`, each following on the one before."""
    total = TradingSums()
    for part in parts:
        total = _join(total, part)
    return total


def _join(a: TradingSums, b: TradingSums) -> TradingSums:
    # A fall may begin before the seam and end after it, which is why the lowest point is kept beside the peak.
    return TradingSums(
        candles=a.candles + b.candles,
        held=a.held + b.held,
        hits=a.hits + b.hits,
        turnover=a.turnover + b.turnover,
        reward_sum=a.reward_sum + b.reward_sum,
        reward_square_sum=a.reward_square_sum + b.reward_square_sum,
        cost_sum=a.cost_sum + b.cost_sum,
        log_growth=a.log_growth + b.log_growth,
        log_peak=max(a.log_peak, a.log_growth + b.log_peak),
        log_low=min(a.log_low, a.log_growth + b.log_low),
        log_drawdown=max(a.log_drawdown, b.log_drawdown, a.log_peak - (a.log_growth + b.log_low)),
    )
