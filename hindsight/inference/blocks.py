"""Frames block by block, and the resident tapes that references address in them.

Legend: B references, L rows of a block, F tape columns, K pivots of a type, M models read, D width of a hidden state.

A part that is not there is NaN: it is the mask, and the digest proves it like every other value. All of a frame is
as-of `made_at`, the close of its last own candle: of the other streams it holds the candles that had closed by then, of
the book the seconds that had ended, of pivots those that were confirmed, of another model what it had said of the close
before and what it knew at this one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from hindsight.errors import FrameRefused
from hindsight.inference.book_tape import BOOK_COLUMNS, BookTape
from hindsight.inference.frames import COLUMNS, PIVOT_TYPES, Frames, Rows, Tape
from hindsight.inference.pivot_history import PIVOT_COLUMNS, PivotHistory
from hindsight.inference.shape import FrameShape, Read

OUTPUT_COLUMNS = ("buy", "down", "sideways", "up", "next_high", "age")  # probabilities; candles since it was said
OUTPUT_AGE = 5  # candles after which an output is too old to be read
OUTPUT_AGES = np.arange(1, OUTPUT_AGE + 1)
GATHERED = 256  # frames at a time where only something small is kept of each

A = TypeVar("A")
B = TypeVar("B")


class Frame(NamedTuple, Generic[A]):
    """What B references see: numpy arrays as gathered, or tensors on their way through a model."""

    norm: A  # [B, 4] of the predicted market
    candles: tuple[A, ...]  # [B, L, F] each, beside FrameShape.candles
    book: A  # [B, L, 45]
    pivots: A  # [B, 10, K, 5]
    outputs: A  # [B, M, 6]
    hidden: tuple[A, ...]  # [B, D] each, beside FrameShape.reads

    @property
    def seen(self) -> tuple[A, ...]:
        """Every block in the order of the digest."""
        return (*self.candles, self.book, self.pivots, self.outputs, *self.hidden)

    def map(self, change: Callable[[A], B]) -> "Frame[B]":
        """The frame with every block, and its norm_params, changed."""
        return Frame(
            norm=change(self.norm),
            candles=tuple(map(change, self.candles)),
            book=change(self.book),
            pivots=change(self.pivots),
            outputs=change(self.outputs),
            hidden=tuple(map(change, self.hidden)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What another model of the stream said and knew at the closes of rows first_row, first_row + 1, …

    NaN where it said nothing, or said it too late for the models that read it.
    """

    first_row: int
    outputs: Frames  # [N, 5] the columns of OUTPUT_COLUMNS but the age
    hidden: Frames  # [N, D]

    @classmethod
    def absent(cls, read: Read) -> "Peer":
        """A model that has said nothing yet."""
        return cls(
            first_row=0,
            outputs=np.empty((0, len(OUTPUT_COLUMNS) - 1), np.float32),
            hidden=np.empty((0, read.width), np.float32),
        )

    def outputs_before(self, rows: Rows) -> Frames:
        """[B, 6]: the newest output of a close before each row, with its age."""
        places = rows[:, None] - OUTPUT_AGES - self.first_row
        values = _at(self.outputs, places.ravel()).reshape(*places.shape, len(OUTPUT_COLUMNS) - 1)
        said = ~np.isnan(values[..., 0])
        newest = said.argmax(axis=1)
        found = np.empty((len(rows), len(OUTPUT_COLUMNS)), np.float32)
        found[:, :-1], found[:, -1] = values[np.arange(len(rows)), newest], OUTPUT_AGES[newest]
        found[~said.any(axis=1)] = np.nan
        return found

    def hidden_at(self, rows: Rows) -> Frames:
        """[B, D]: the hidden state at the close of each row."""
        return _at(self.hidden, rows - self.first_row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Everything that the frames of one stream are gathered from."""

    shape: FrameShape
    tapes: Sequence[Tape]  # beside shape.candles
    book: BookTape | None = None
    pivots: PivotHistory | None = None
    peers: Sequence[Peer] = ()  # beside shape.reads

    def __post_init__(self) -> None:
        found = (len(self.tapes), len(self.peers))
        if found != (len(self.shape.candles), len(self.shape.reads)):
            raise ValueError(
                f"expected {len(self.shape.candles)} tapes and {len(self.shape.reads)} peers, found {found[0]} and"
                f" {found[1]}"
            )

    @property
    def own(self) -> Tape:
        """The tape of the predicted stream."""
        return self.tapes[0]

    def gather(self, rows: Rows, norm_B4: Frames) -> Frame[Frames]:
        """The frames of the references made at the closes of own `rows`. Raises ValueError as `Tape.gather` does."""
        made_ms = (rows + 1) * self.own.step_ms
        pivots, outputs, hidden = self.at_close(rows)
        return Frame(
            norm=norm_B4,
            candles=tuple(
                tape.gather(made_ms // tape.step_ms - 1, block.length, made_ms)
                for tape, block in zip(self.tapes, self.shape.candles, strict=True)
            ),
            book=(
                self.book.gather(made_ms, self.shape.book)
                if self.book
                else _none(len(rows), self.shape.book, len(BOOK_COLUMNS))
            ),
            pivots=pivots,
            outputs=outputs,
            hidden=hidden,
        )

    def at_close(self, rows: Rows) -> tuple[Frames, Frames, tuple[Frames, ...]]:
        """The blocks that are of the close alone, and of no stretch before it: pivots, outputs, hidden states."""
        outputs = [peer.outputs_before(rows) for peer in self.peers]
        return (
            (
                self.pivots.gather(rows, self.shape.pivots)
                if self.pivots
                else _none(len(rows), len(PIVOT_TYPES), self.shape.pivots, len(PIVOT_COLUMNS))
            ),
            np.stack(outputs, axis=1) if outputs else _none(len(rows), 0, len(OUTPUT_COLUMNS)),
            tuple(peer.hidden_at(rows) for peer in self.peers),
        )

    def digests(self, rows: Rows) -> NDArray[np.uint64]:
        """The digest of the frame of each reference made at the closes of `rows`."""
        parts = np.array_split(rows, max(1, -(-len(rows) // GATHERED)))
        return np.array([each for part in parts for each in self._digests(part)], np.uint64)

    def _digests(self, rows: Rows) -> list[int]:
        frame = self.gather(rows, np.empty((len(rows), 4), np.float32))
        return [digest([block[index] for block in frame.seen]) for index in range(len(rows))]


def digest(blocks: Sequence[Frames]) -> int:
    """The 64-bit xxh3 of the blocks' bytes, one after the other: float32, little endian. Source: https://xxhash.com"""
    hasher = xxhash.xxh3_64()
    for block in blocks:
        hasher.update(np.ascontiguousarray(block, "<f4").data)
    return hasher.intdigest()


def check_frame(frame: Frame[Any], shape: FrameShape) -> None:
    """Raises FrameRefused for a frame, of arrays or of tensors, that is not of `shape`, with what was expected of which
    block, and found."""
    count, found = len(frame.norm), (len(frame.candles), len(frame.hidden))
    if found != (len(shape.candles), len(shape.reads)):
        raise FrameRefused(
            f"expected {len(shape.candles)} blocks of candles and {len(shape.reads)} hidden states, found {found[0]}"
            f" and {found[1]}"
        )
    expected = {
        "norm_params": ((count, 4), frame.norm),
        **{
            str(block): ((count, block.length, len(COLUMNS)), candles)
            for block, candles in zip(shape.candles, frame.candles, strict=True)
        },
        "book": ((count, shape.book, len(BOOK_COLUMNS)), frame.book),
        "pivots": ((count, 10, shape.pivots, len(PIVOT_COLUMNS)), frame.pivots),
        "outputs": ((count, len(shape.reads), len(OUTPUT_COLUMNS)), frame.outputs),
        **{
            f"hidden state of {read.model}": ((count, read.width), hidden)
            for read, hidden in zip(shape.reads, frame.hidden, strict=True)
        },
    }
    for name, (wanted, block) in expected.items():
        kind = str(block.dtype).removeprefix("torch.")
        if block.shape != wanted or kind != "float32":
            raise FrameRefused(f"block {name}: expected float32 {list(wanted)}, found {kind} {list(block.shape)}")


def _at(values: Frames, places: Rows) -> Frames:
    """The rows of `values` at `places`; NaN where a place lies outside."""
    found = np.full((len(places), values.shape[1]), np.nan, np.float32)
    inside = (places >= 0) & (places < len(values))
    found[inside] = values[places[inside]]
    return found


def _none(*shape: int) -> Frames:
    return np.full(shape, np.nan, np.float32)
