"""Whether a frame is whole: how many parts of each required block are there. What is not whole is refused, by name.

A candle counts where it and its indicators are there and as many candles before it as warm them, unbroken. A second of
the book counts where its imbalance is known.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.inference.blocks import GATHERED, Blocks
from hindsight.inference.book_tape import BOOK_COLUMNS
from hindsight.inference.frames import COLUMN, Frames, Rows, Tape, unbroken, warm
from hindsight.inference.shape import CandleBlock
from hindsight.market.candles import TIME

BOOK, OUTPUTS, HIDDEN = "order book", "outputs", "hidden states"
SCALE = "return scale"
OPTIONAL = (BOOK, OUTPUTS, HIDDEN)
IMBALANCE = BOOK_COLUMNS.index("imbalance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """For each close of `rows`, how many parts of each required block are there, of those it needs."""

    rows: Rows
    blocks: tuple[str, ...]
    have: NDArray[np.int64]  # [N, blocks]
    need: NDArray[np.int64]  # [blocks]

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Whether nothing is missing."""
        return np.asarray((self.have >= self.need).all(axis=1))

    def refusals(self, step_ms: int) -> pl.DataFrame:
        """Per UTC day and the first block that is not whole: how many closes are refused, and the least it had."""
        lacks = self.have < self.need
        at = np.flatnonzero(lacks.any(axis=1))
        block = lacks[at].argmax(axis=1)
        made_ms = (self.rows[at] + 1) * step_ms
        return (
            pl.DataFrame(
                {
                    "made_at": pl.Series(made_ms * 1000, dtype=pl.Int64).cast(TIME),
                    "block": pl.Series(self.blocks, dtype=pl.String)[block.astype(np.uint32)],
                    "have": self.have[at, block].astype(np.int32),
                    "need": self.need[block].astype(np.int32),
                }
            )
            .group_by(pl.col("made_at").dt.truncate("1d").dt.date().alias("day"), "block", "need")
            .agg(
                closes=pl.len().cast(pl.Int32),
                fewest=pl.col("have").min(),
                first_at=pl.col("made_at").min(),
                last_at=pl.col("made_at").max(),
            )
            .sort("first_at", "block")
        )


def completeness(blocks: Blocks, rows: Rows, optional: Collection[str]) -> Completeness:
    """What is there for the references that could be made at the closes of `rows`; `optional` blocks are not asked."""
    made_ms, shape = (rows + 1) * blocks.own.step_ms, blocks.shape
    names, have, need = [], [], []
    for block, tape in zip(shape.candles, blocks.tapes, strict=True):
        names.append(f"candles {block}")
        have.append(_candles_there(tape, block, shape.warmup, made_ms))
        need.append(block.length)
    if shape.book and BOOK not in optional:
        names.append(BOOK)
        have.append(_seconds_there(blocks, made_ms))
        need.append(shape.book)
    frame_peers = zip(shape.reads, blocks.peers, strict=True)
    for read, peer in frame_peers:
        if OUTPUTS not in optional:
            names.append(f"outputs of {read.model}")
            have.append((~np.isnan(peer.outputs_before(rows)[:, 0])).astype(np.int64))
            need.append(1)
        if HIDDEN not in optional:
            names.append(f"hidden state of {read.model}")
            have.append((~np.isnan(peer.hidden_at(rows)).any(axis=1)).astype(np.int64))
            need.append(1)
    return Completeness(rows=rows, blocks=tuple(names), have=np.stack(have, axis=1), need=np.array(need))


def _candles_there(tape: Tape, block: CandleBlock, warmup: int, made_ms: Rows) -> NDArray[np.int64]:
    last, length = made_ms // tape.step_ms - 1, block.length + warmup
    tape = _needed(tape, last, length)
    is_warm = warm(tape.rows)
    before = np.concatenate([[0], np.cumsum(is_warm & (unbroken(tape.rows) > warmup))])
    end = np.clip(last + 1 - tape.first_row, 0, len(is_warm))
    found = before[end] - before[np.clip(end - block.length, 0, None)]
    for late in tape.superseded:
        since = max(late.first_row, tape.first_row)
        old = late.rows[since - late.first_row :]
        now = tape.rows[since - tape.first_row :][: len(old)]
        if np.array_equal(warm(old), warm(now)) and np.array_equal(_is_missing(old), _is_missing(now)):
            continue  # other values, and no other candles
        touched = (made_ms < late.until_ms) & (last >= since)
        touched &= (last - length + 1 < late.first_row + len(late.rows)) & (last < tape.end_row)
        for index in np.flatnonzero(touched):  # a candle that came late was not there yet
            reach = min(length, int(last[index]) + 1 - tape.first_row)
            (seen,) = tape.gather(last[index : index + 1], reach, made_ms[index : index + 1])
            found[index] = (warm(seen) & (unbroken(seen) > warmup))[-block.length :].sum()
    return found


def _is_missing(rows: Frames) -> NDArray[np.bool_]:
    return np.isnan(rows[:, COLUMN["open"]])


def _needed(tape: Tape, last: Rows, length: int) -> Tape:
    """The part of a long tape that is looked at: the last `length` candles of every frame."""
    if not len(last):
        return tape
    first = min(max(int(last.min()) - length + 1, tape.first_row), tape.end_row)
    return replace(tape, first_row=first, rows=tape.rows[first - tape.first_row :])


def _seconds_there(blocks: Blocks, made_ms: Rows) -> NDArray[np.int64]:
    if blocks.book is None:
        return np.zeros(len(made_ms), np.int64)
    parts = np.array_split(made_ms, max(1, -(-len(made_ms) // GATHERED)))
    return np.concatenate(
        [np.isfinite(blocks.book.gather(part, blocks.shape.book)[:, :, IMBALANCE]).sum(axis=1) for part in parts]
    )
