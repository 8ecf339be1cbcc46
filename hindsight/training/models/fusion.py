"""What the models share around their own part: candles into windows, and the states of all blocks into one.

Legend: B references, L rows, C channels, N windows, D width.
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


def windows(x_BLC: Tensor, size: int, apart: int) -> Tensor:
    """[B, N, size · C]: so many rows at once, every so many rows, the newest ones whole; the oldest may begin with
    zeros. A linear layer on them is a convolution, and on a CPU the quicker one for as few examples as a step has."""
    beyond = size - x_BLC.shape[1]
    lacking = max(beyond, beyond % apart)
    x_BLC = fn.pad(x_BLC, (0, 0, lacking, 0))
    return x_BLC.unfold(1, size, apart).transpose(2, 3).flatten(2)
