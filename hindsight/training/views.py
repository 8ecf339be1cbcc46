"""From a frame to what a model reads of it: a sequence of channels per block of candles or book, and one flat context.

Legend: B references, L rows of a block, C channels, K pivots of a type, X context.

Everything is scaled by numbers of the frame itself. A symbol has one price scale for all its timeframes: its last
close, and the spread of its returns, which grows with the square root of a candle's length. What is not there becomes 0
with a mask of 0 beside it; how much of the book is there stands in the context.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hindsight.inference.blocks import OUTPUT_AGE, OUTPUT_COLUMNS, Frame
from hindsight.inference.book_tape import BOOK_COLUMNS
from hindsight.inference.frames import COLUMN, PIVOT_TYPES
from hindsight.inference.normalisation import MINIMUM_RETURN_SCALE, MINIMUM_VOLUME_SCALE
from hindsight.inference.shape import FrameShape
from hindsight.training.channels import CHANNELS, LEAST, LIMIT, PIVOT_AGES, channels
from hindsight.training.constants import constant

BUCKETS = BOOK_COLUMNS.index("imbalance")  # 40 amounts come first, then the imbalance and its means, then the price
LOG_2 = 0.6931  # of what is usual: 0
BOOK_CHANNELS = len(BOOK_COLUMNS) + 1
PIVOT_CHANNELS = 7


class Sizes(NamedTuple):
    """Length and channels of each sequence, and the width of the context."""

    sequences: tuple[tuple[int, int], ...]
    context: int


class Views(NamedTuple):
    """What a model reads of B frames."""

    sequences: tuple[Tensor, ...]  # [B, L, C] each: the predicted stream's candles, the other candles, the book
    context: Tensor  # [B, X]


def sizes_of(shape: FrameShape) -> Sizes:
    """The sizes of the views of frames of this shape."""
    sequences = [(block.length, CHANNELS) for block in shape.candles]
    if shape.book:
        sequences.append((shape.book, BOOK_CHANNELS))
    of_reads = sum(len(OUTPUT_COLUMNS) + 1 + read.width + 1 for read in shape.reads)
    return Sizes(tuple(sequences), len(PIVOT_TYPES) * shape.pivots * PIVOT_CHANNELS + 1 + of_reads)


def views(frame: Frame[Tensor], shape: FrameShape, newest: int | None = None) -> Views:
    """The views of B frames of `shape`; finite whatever an optional block holds.

    With `newest`, only so many rows of a sequence; their scales are those of all.
    """
    norms = _norms(frame, shape)
    span = slice(None if newest is None else -newest, None)
    sequences = [channels(block[:, span], norm) for block, norm in zip(frame.candles, norms, strict=True)]
    if shape.book:
        sequences.append(_book(frame.book, norms[0], shape.own.step_ms, span))
    context = [
        _pivots(frame.pivots, frame.norm).flatten(1),
        # of no book at all the share that is there is none
        torch.isfinite(frame.book[..., BUCKETS]).float().sum(1, keepdim=True) / max(shape.book, 1),
        *(_outputs(frame.outputs[:, index]) for index in range(len(shape.reads))),
        *(_masked(hidden) for hidden in frame.hidden),
    ]
    return Views(tuple(sequences), torch.cat(context, dim=1))


def _norms(frame: Frame[Tensor], shape: FrameShape) -> list[Tensor]:
    """norm_params [B, 4] for each block of candles, in units of its own step."""
    base: dict[str, tuple[Tensor, Tensor, int]] = {}
    found = []
    for index, (block, candles_BLF) in enumerate(zip(shape.candles, frame.candles, strict=True)):
        if index == 0:
            last, scale, mean, spread = frame.norm.unbind(1)
        else:
            log_volume = torch.log1p(candles_BLF[..., COLUMN["volume"]])
            mean, spread = log_volume.mean(1), log_volume.std(1, correction=0).clamp_min(MINIMUM_VOLUME_SCALE)
            close = candles_BLF[..., COLUMN["close"]]
            last, scale = close[:, -1], torch.log(close[:, 1:] / close[:, :-1]).std(1, correction=0)
        last, scale, step_ms = base.setdefault(
            block.symbol, (last, scale.clamp_min(MINIMUM_RETURN_SCALE), block.step_ms)
        )
        found.append(torch.stack([last, scale * (block.step_ms / step_ms) ** 0.5, mean, spread], dim=1))
    return found


def _book(book_BLC: Tensor, norm_B4: Tensor, step_ms: int, span: slice) -> Tensor:
    """[B, L, 46]: amounts over their mean in the frame, imbalance and its means, the mid's distance, the mask."""
    last_B1, scale_B1 = norm_B4[:, 0:1], norm_B4[:, 1:2]
    usual = book_BLC[..., :BUCKETS].nanmean(dim=(1, 2), keepdim=True).nan_to_num(nan=1.0).clamp_min(LEAST)
    book_BLC = book_BLC[:, span]
    amounts = book_BLC[..., :BUCKETS]
    seconds = torch.arange(book_BLC.shape[1], 0, -1, device=book_BLC.device)
    spread = scale_B1 * (seconds * 1000 / step_ms).sqrt()
    distance = torch.log(book_BLC[..., -1] / last_B1) / spread
    known = torch.isfinite(book_BLC[..., BUCKETS])
    values = [torch.log1p(amounts / usual) - LOG_2, book_BLC[..., BUCKETS:-1], distance[..., None]]
    return torch.cat([_finite(torch.cat(values, dim=-1)), known[..., None].float()], dim=-1)


def _pivots(pivots_BTKP: Tensor, norm_B4: Tensor) -> Tensor:
    """[B, 10, K, 7]: age, distance, strength, book at the pivot and at its confirmation; is it there, was the book."""
    usual_T1 = constant(PIVOT_AGES, pivots_BTKP.device)[:, None]
    last, scale = norm_B4[:, 0, None, None], norm_B4[:, 1, None, None]
    age, price, strength, at_pivot, at_confirmation = pivots_BTKP.unbind(-1)
    values = [
        age / (age + usual_T1),
        torch.log(price / last) / (scale * usual_T1.sqrt()),
        strength / (strength + 1),
        at_pivot,
        at_confirmation,
    ]
    masks = [torch.isfinite(age).float(), torch.isfinite(at_confirmation).float()]
    return torch.cat([_finite(torch.stack(values, dim=-1)), torch.stack(masks, dim=-1)], dim=-1)


def _outputs(outputs_B6: Tensor) -> Tensor:
    """[B, 7]: probabilities, the age as a share of the oldest that is read, and whether they are there."""
    return _masked(outputs_B6 / constant((1.0,) * (len(OUTPUT_COLUMNS) - 1) + (float(OUTPUT_AGE),), outputs_B6.device))


def _masked(values_BX: Tensor) -> Tensor:
    """[B, X + 1]: the values, or zeros, and whether they are there."""
    return torch.cat([_finite(values_BX), torch.isfinite(values_BX[:, :1]).float()], dim=1)


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0, posinf=LIMIT, neginf=-LIMIT).clamp(-LIMIT, LIMIT)
