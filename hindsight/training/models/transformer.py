"""The patch transformer: each block of a frame becomes tokens of a few rows, so that attention costs tokens, not rows.

Legend: B references, L rows of a block, C channels, N tokens, D width, H heads.

Source: Nie et al., "A Time Series is Worth 64 Words", https://arxiv.org/abs/2211.14730 (patching);
Xiong et al., "On Layer Normalization in the Transformer Architecture", https://arxiv.org/abs/2002.04745 (pre-norm).
"""

from dataclasses import asdict, dataclass
from itertools import accumulate

import torch
import torch.nn.functional as fn
from torch import Tensor, nn

from hindsight.inference.blocks import Frame
from hindsight.inference.shape import FrameShape
from hindsight.training.constants import constant
from hindsight.training.models.fusion import windows
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model
from hindsight.training.views import sizes_of, views


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """About 34,000 weights per block of candles, and 78,000 around them."""

    patch: int = 10
    width: int = 64
    heads: int = 2
    layers: int = 2
    feed_forward: int = 96

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads")

    def __str__(self) -> str:
        return f"transformer 2 {asdict(self)}"


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

    def forward(self, x_BND: Tensor, chosen_M: Tensor | None = None) -> Tensor:
        """[B, M, D]: what the chosen tokens (or all) become, which attend to all [B, N, D]."""
        width, seen_BND = x_BND.shape[2], self.norm_attention(x_BND)
        kept_BMD, asks_BMD = (
            each if chosen_M is None else each.index_select(1, chosen_M) for each in (x_BND, seen_BND)
        )
        weight, bias = self.qkv.weight, self.qkv.bias
        q_BMD = fn.linear(asks_BMD, weight[:width], bias[:width])
        k_BND, v_BND = fn.linear(seen_BND, weight[width:], bias[width:]).chunk(2, dim=-1)
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q_BMD, k_BND, v_BND))
        kept_BMD = kept_BMD + self.out(fn.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return kept_BMD + self.back(fn.relu(self.feed(self.norm_feed(kept_BMD))))


class Tokens(nn.Module):
    """The rows of one block into tokens [B, N, D] that know which block they are of, and which place in it."""

    def __init__(self, length: int, channels: int, config: TransformerConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.embed = nn.Linear(config.patch * channels, config.width)
        self.position = nn.Parameter(torch.zeros(-(-length // config.patch), config.width))
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x_BLC: Tensor) -> Tensor:
        return self.embed(windows(x_BLC, self.patch, self.patch)) + self.position


class PatchTransformer(nn.Module):
    """Frames of one shape in, a ModelOutput out."""

    def __init__(self, config: TransformerConfig, shape: FrameShape) -> None:
        super().__init__()
        self.shape, sizes = shape, sizes_of(shape)
        self.tokens = nn.ModuleList(Tokens(length, channels, config) for length, channels in sizes.sequences)
        self.context = nn.Linear(sizes.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.mix = nn.Linear(len(sizes.sequences) * config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.heads = Opinion(config.width)

    def forward(self, frame: Frame[Tensor]) -> ModelOutput:
        seen = views(frame, self.shape)
        each_BND = [tokens(x_BLC) for tokens, x_BLC in zip(self.tokens, seen.sequences, strict=True)]
        x_BND = torch.cat([self.context(seen.context)[:, None], *each_BND], dim=1)
        # Read is the newest patch of each sequence, which has attended to all the others: the last block need not say
        # more. Of the predicted stream's alone, what is new elsewhere would be one token among all that it attends to.
        ends = tuple(accumulate(part_BND.shape[1] for part_BND in each_BND))
        newest = constant(ends, x_BND.device, torch.int64)
        for block in self.blocks[:-1]:
            x_BND = block(x_BND)
        return self.heads(self.norm(self.mix(self.blocks[-1](x_BND, newest).flatten(1))))


MODEL = Model(config=TransformerConfig(), build=PatchTransformer)
