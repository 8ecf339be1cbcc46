"""The deep Q-network: the newest rows of each block and what the CNN says of it all, into the worth of each position.

Legend: B references, L rows of a block, C channels, D width. How it learns stands in q_learning.py.

Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", doi:10.1038/nature14236
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from hindsight.inference.blocks import Frame
from hindsight.inference.shape import FrameShape
from hindsight.training.models.fusion import Fusion
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model
from hindsight.training.q_learning import NET_RETURN, Q_LEARNING
from hindsight.training.transitions import EXTRAS
from hindsight.training.views import sizes_of, views

USUAL_SCALE = 1e-3  # of returns: all else that a model reads is relative to it, and costs are not


@dataclass(frozen=True, slots=True, kw_only=True)
class DqnConfig:
    """About 26,000 weights per block of candles, and 28,000 around them."""

    rows: int = 8
    width: int = 64

    def __str__(self) -> str:
        return f"dqn 2 {asdict(self)}"


class Dqn(nn.Module):
    """Frames of one shape in, a ModelOutput out. Its extras [B, 3] are the worths of being short, flat, long."""

    def __init__(self, config: DqnConfig, shape: FrameShape) -> None:
        super().__init__()
        self.shape, self.rows, sizes = shape, config.rows, sizes_of(shape)
        self.newest = nn.ModuleList(
            nn.Linear(min(length, config.rows) * channels, config.width) for length, channels in sizes.sequences
        )
        self.fusion = Fusion(sizes._replace(context=sizes.context + 1), config.width)
        self.heads = Opinion(config.width)
        # A bias would not decay, and tell what a side has earned of late whatever the frame shows.
        self.worth = nn.Linear(config.width, 3, bias=False)
        nn.init.zeros_(self.worth.weight)  # who knows nothing stays flat

    def forward(self, frame: Frame[Tensor]) -> ModelOutput:
        seen = views(frame, self.shape, self.rows)
        states = [newest(x_BLC.flatten(1)) for newest, x_BLC in zip(self.newest, seen.sequences, strict=True)]
        scale_B1 = torch.log(frame.norm[:, 1:2] / USUAL_SCALE)
        hidden_BD = self.fusion(states, torch.cat([seen.context, scale_B1], dim=1))
        return self.heads(hidden_BD)._replace(extras_BE=self.worth(hidden_BD))


MODEL = Model(config=DqnConfig(), build=Dqn, reads=("cnn",), extras=EXTRAS, objective=Q_LEARNING, metric=NET_RETURN)
