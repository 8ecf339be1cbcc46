"""The patch transformer: 300 visible candles become 30 tokens, so that attention costs tokens, not candles.

Legend: B batch, L lookback, F tape columns, C channels, N patches, D width, H heads.

Source: Nie et al., "A Time Series is Worth 64 Words", https://arxiv.org/abs/2211.14730 (patching);
Xiong et al., "On Layer Normalization in the Transformer Architecture", https://arxiv.org/abs/2002.04745 (pre-norm).
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from hindsight.training.channels import CHANNELS, channels
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The default has about 85,000 weights."""

    lookback: int = 300
    patch: int = 10
    width: int = 64
    heads: int = 2
    layers: int = 2
    feed_forward: int = 96

    def __post_init__(self) -> None:
        if self.lookback % self.patch:
            raise ValueError(f"lookback {self.lookback} cannot be cut into patches of {self.patch} candles")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads")

    def __str__(self) -> str:
        return f"transformer {asdict(self)}"


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each behind its norm, each added to what it read."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_feed = nn.LayerNorm(config.width)
        self.feed = nn.Linear(config.width, config.feed_forward)
        self.back = nn.Linear(config.feed_forward, config.width)

    def forward(self, x_BND: Tensor) -> Tensor:
        batch, patches, width = x_BND.shape
        qkv = self.qkv(self.norm_attention(x_BND)).view(batch, patches, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = fn.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, patches, width)
        x_BND = x_BND + self.out(mixed)
        return x_BND + self.back(fn.relu(self.feed(self.norm_feed(x_BND))))


class PatchTransformer(nn.Module):
    """Frames and their norm_params in, a ModelOutput out."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.patch * CHANNELS, config.width)
        self.position = nn.Parameter(torch.zeros(config.lookback // config.patch, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.heads = Opinion(config.width)
        nn.init.normal_(self.position, std=0.02)
        self.heads.hold_none()

    def forward(self, frames_BLF: Tensor, norm_B4: Tensor) -> ModelOutput:
        x_BLC = channels(frames_BLF, norm_B4)
        x_BND = self.embed(x_BLC.flatten(1).unflatten(1, (self.position.shape[0], -1))) + self.position
        for block in self.blocks:
            x_BND = block(x_BND)
        return self.heads(self.norm(x_BND[:, -1]))  # the newest patch, which has attended to all the others


MODEL = Model(config=TransformerConfig(), build=PatchTransformer)
