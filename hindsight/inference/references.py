"""References: one prediction and the address of what it saw.

| field | invariant |
|---|---|
| inference_id | deterministic from (model, stream, made_at), and invertible |
| made_at | close_time of the last candle seen; nothing known later was seen |
| target_time | open time of the first candle that opens at or after made_at: the grid makes it equal to made_at |
| input_start, input_end | half-open range of the own candles and of those that warm them; the end is made_at |
| schema_hash | names the shape of the frame: with made_at, all that its other blocks are found by |
| digest | xxh3 of every block of the frame, as-of made_at |
"""

import hashlib

import numpy as np
import xxhash
from numpy.typing import NDArray

from hindsight.inference.blocks import OUTPUT_COLUMNS
from hindsight.inference.book_tape import BOOK_COLUMNS
from hindsight.inference.frames import COLUMNS
from hindsight.inference.pivot_history import PIVOT_COLUMNS
from hindsight.inference.shape import FrameShape
from hindsight.market.streams import Stream

_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def inference_ids(model: str, stream: Stream, made_at_ms: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The id of each reference: made_at mixed by splitmix64 and salted, so that ids of one stream never collide.

    Source: https://prng.di.unimi.it/splitmix64.c (its finaliser, a bijection of 64 bits)
    """
    value = made_at_ms.astype(np.uint64) ^ np.uint64(_salt(model, stream))
    for shift, factor in _MIX:
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))


def target_times_ms(made_ms: NDArray[np.int64], step_ms: int) -> NDArray[np.int64]:
    """The open time of the first candle that opens at or after each made_at: never one that was already forming."""
    return -(-made_ms // step_ms) * step_ms


def made_at_ms(model: str, stream: Stream, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The inverse of `inference_ids`: when each reference was made."""
    value = _unshift(ids, 31)
    for shift, factor in reversed(_MIX):
        value = _unshift(value * np.uint64(pow(factor, -1, 1 << 64)), shift)
    return (value ^ np.uint64(_salt(model, stream))).astype(np.int64)


def _salt(model: str, stream: Stream) -> int:
    return xxhash.xxh3_64_intdigest(f"{model}|{stream}".encode())


def _unshift(value: NDArray[np.uint64], shift: int) -> NDArray[np.uint64]:
    result = value
    for _ in range(64 // shift):
        result = value ^ (result >> np.uint64(shift))
    return result


def schema_hash(model_config: str, shape: FrameShape) -> str:
    """Twelve hex digits that name what goes in and through a model: columns, blocks, normalisation, architecture."""
    text = "|".join(
        (*COLUMNS, *BOOK_COLUMNS, *PIVOT_COLUMNS, *OUTPUT_COLUMNS, str(shape), "normalisation 2", model_config)
    )
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
