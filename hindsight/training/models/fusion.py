"""What the models share around their own part: candles into patches, and the states of all blocks into one.

Legend: B references, L rows, C channels, N patches, D width.
"""

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from hindsight.training.views import Sizes


class Fusion(nn.Module):
    """One state per sequence and the context of the frame into the hidden state [B, D]."""

    def __init__(self, sizes: Sizes, width: int) -> None:
        super().__init__()
        self.context = nn.Linear(sizes.context, width)
        self.mix = nn.Linear((len(sizes.sequences) + 1) * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, states_BD: list[Tensor], context_BX: Tensor) -> Tensor:
        """[B, D] from a state [B, D] per sequence and the context [B, X]."""
        return self.norm(self.mix(fn.relu(torch.cat([*states_BD, self.context(context_BX)], dim=1))))


def patches(x_BLC: Tensor, size: int) -> Tensor:
    """[B, N, size · C]: so many rows at once, the newest ones whole; the oldest patch may begin with zeros."""
    lacking = -x_BLC.shape[1] % size
    return fn.pad(x_BLC, (0, 0, lacking, 0)).unflatten(1, (-1, size)).flatten(2)
