"""The convolutional network: candles through layers that each see further and keep fewer places.

Legend: B references, L candles, C channels, D width.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from hindsight.training.channels import CHANNELS, channels
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model

KERNELS = ((6, 3), (5, 5), (4, 2))  # candles that a place sees, and how far apart places are, layer by layer


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnConfig:
    """The default has about 63,000 weights."""

    lookback: int = 300
    width: int = 64

    def __str__(self) -> str:
        return f"cnn {asdict(self)} {KERNELS}"


class Branch(nn.Module):
    """The candles of one timeframe into D numbers: what the newest place says, and the mean of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (CHANNELS, *(width for _ in KERNELS))
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride)
            for before, after, (kernel, stride) in zip(sizes, sizes[1:], KERNELS, strict=False)
        )
        self.out = nn.Linear(2 * width, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        x_BCL = x_BLC.transpose(1, 2)
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            # Padded at the old end: the newest candle is the last one that the newest place sees.
            lacking = (layer.kernel_size[0] - x_BCL.shape[2]) % layer.stride[0]
            x_BCL = fn.relu(layer(fn.pad(x_BCL, (lacking, 0))))
        return self.out(torch.cat([x_BCL[..., -1], x_BCL.mean(2)], dim=1))


class Cnn(nn.Module):
    """Frames and their norm_params in, a ModelOutput out."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.branch = Branch(config.width)
        self.norm = nn.LayerNorm(config.width)
        self.heads = Opinion(config.width)
        self.heads.hold_none()

    def forward(self, frames_BLF: Tensor, norm_B4: Tensor) -> ModelOutput:
        return self.heads(self.norm(self.branch(channels(frames_BLF, norm_B4))))


MODEL = Model(config=CnnConfig(), build=Cnn)
