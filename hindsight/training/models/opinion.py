"""What every model says about a reference, and the last layer that says it.

Legend: B references, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from hindsight.training.constants import constant

PARTS = (1, 4, 3, 1, 8)  # action, candle, trend, side of the next pivot, four pivots: 17 in all


class ModelOutput(NamedTuple):
    """What a model says about B references, in normalised units."""

    buy_logit_B: Tensor  # the next close lies above the last
    candle_B4: Tensor  # log return of open, high, low, close over the return scale; high and low contain the others
    trend_logits_B3: Tensor  # down, sideways, up
    high_logit_B: Tensor  # the next confirmed L2 pivot is a high
    pivot_return_B4: Tensor  # L2L, L2H, L3L, L3H: log return over (return scale · √usual age)
    pivot_candles_B4: Tensor  # log(candles to it / usual age)
    hidden_BD: Tensor  # pooled state
    extras_BE: Tensor | None = None  # more that this model says, as named in Model.extras; raw


class Opinion(nn.Module):
    """A linear map from a hidden state [B, D] to a ModelOutput. It starts near "no opinion", so that early losses are
    those of chance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        linear = nn.Linear(width, sum(PARTS))
        self.weight, self.bias = linear.weight, linear.bias
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, hidden_BD: Tensor) -> ModelOutput:
        buy, candle, trend, high, pivots = fn.linear(hidden_BD, self.weight, self.bias).split(PARTS, dim=-1)
        open_close = candle.index_select(1, constant((0, 3), candle.device, torch.int64))
        reach = 0.5 * fn.softplus(candle[:, 1:3])
        top, bottom = open_close.amax(1) + reach[:, 0], open_close.amin(1) - reach[:, 1]
        return ModelOutput(
            buy_logit_B=buy[:, 0],
            candle_B4=torch.stack([open_close[:, 0], top, bottom, open_close[:, 1]], dim=1),
            trend_logits_B3=trend,
            high_logit_B=high[:, 0],
            pivot_return_B4=pivots[:, :4],
            pivot_candles_B4=pivots[:, 4:],
            hidden_BD=hidden_BD,
        )
