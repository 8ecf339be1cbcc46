"""The convolutional network: a branch per block through layers that each see further and keep fewer places, then fused.

The newest rows of a block also go past the layers, straight into its branch: what the newest second tells would come
through three of them thinned, and be drowned by what is easier to learn.

Legend: B references, L rows of a block, C channels, D width.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from hindsight.inference.blocks import Frame
from hindsight.inference.shape import FrameShape
from hindsight.training.models.fusion import Fusion, windows
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model
from hindsight.training.views import sizes_of, views

KERNELS = ((6, 3), (5, 5), (4, 2))  # rows that a place sees, and how far apart places are, layer by layer


@dataclass(frozen=True, slots=True, kw_only=True)
class CnnConfig:
    """About 87,000 weights per block of candles, and 23,000 around them."""

    width: int = 64

    def __str__(self) -> str:
        return f"cnn 3 {asdict(self)} {KERNELS}"


class Branch(nn.Module):
    """The rows of one block into D numbers: the newest rows, what the newest place says, and the mean of all."""

    def __init__(self, length: int, channels: int, width: int) -> None:
        super().__init__()
        self.rows = min(length, KERNELS[0][0])
        sizes = (channels, *(width for _ in KERNELS))
        self.layers = nn.ModuleList(
            nn.Linear(kernel * before, after)
            for before, after, (kernel, _) in zip(sizes, sizes[1:], KERNELS, strict=False)
        )
        self.newest = nn.Linear(self.rows * channels, width)
        self.out = nn.Linear(3 * width, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        seen_BLC = x_BLC
        for layer, (kernel, apart) in zip(self.layers, KERNELS, strict=True):
            seen_BLC = fn.relu(layer(windows(seen_BLC, kernel, apart)))
        newest_BD = self.newest(x_BLC[:, -self.rows :].flatten(1))
        return self.out(torch.cat([newest_BD, seen_BLC[:, -1], seen_BLC.mean(1)], dim=1))


class Cnn(nn.Module):
    """Frames of one shape in, a ModelOutput out."""

    def __init__(self, config: CnnConfig, shape: FrameShape) -> None:
        super().__init__()
        self.shape, sizes = shape, sizes_of(shape)
        self.branches = nn.ModuleList(Branch(length, channels, config.width) for length, channels in sizes.sequences)
        self.fusion = Fusion(sizes, config.width)
        self.heads = Opinion(config.width)

    def forward(self, frame: Frame[Tensor]) -> ModelOutput:
        seen = views(frame, self.shape)
        states = [branch(x_BLC) for branch, x_BLC in zip(self.branches, seen.sequences, strict=True)]
        return self.heads(self.fusion(states, seen.context))


MODEL = Model(config=CnnConfig(), build=Cnn)
