"""The blocks of a stream on the device that learns from them: frames are gathered there, by index.

Legend: T rows of a tape, F columns, B references, L rows of a block, N own rows, K pivots of a type, D width of a
hidden state.

What depends on the close alone (pivots, what other models said and knew) becomes a table of one row per close, so that
a frame is a few look-ups. `Blocks` gathers the same on the host, to the bit; that is the way on a CPU.
"""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hindsight.inference.blocks import Blocks, Frame
from hindsight.inference.book_tape import BOOK_COLUMNS, PRICE, BookTape
from hindsight.inference.frames import Frames, Rows, Superseded, Tape


class Gathers(Protocol):
    """What frames are gathered from."""

    def gather(self, rows: Rows, norm_B4: Frames) -> Frame[Any]:
        """The frames of the references made at the closes of own `rows`."""
        ...


def on_device(blocks: Blocks, device: torch.device) -> Gathers:
    """What gathers the frames of `blocks` for `device`: on a CPU they lie in its memory already."""
    return blocks if device.type == "cpu" else Resident(blocks, device)


class Resident:
    """A copy of `blocks` on a device."""

    def __init__(self, blocks: Blocks, device: torch.device) -> None:
        self.own, self.device = blocks.own, device
        self.tapes = [
            ResidentTape(tape, block.length, device)
            for tape, block in zip(blocks.tapes, blocks.shape.candles, strict=True)
        ]
        self.book = ResidentBook(blocks.book, blocks.shape.book, device)
        pivots, outputs, hidden = blocks.at_close(np.arange(self.own.first_row, self.own.end_row))
        self.pivots, self.outputs, *self.hidden = (_there(table, device) for table in (pivots, outputs, *hidden))

    def gather(self, rows: Rows, norm_B4: Frames) -> Frame[Tensor]:
        """The frames of the references made at the closes of own `rows`. Raises ValueError as `Blocks.gather` does."""
        made_ms, at = (rows + 1) * self.own.step_ms, _there(rows - self.own.first_row, self.device)
        return Frame(
            norm=_there(norm_B4, self.device),
            candles=tuple(tape.gather(made_ms) for tape in self.tapes),
            book=self.book.gather(made_ms),
            pivots=self.pivots[at],
            outputs=self.outputs[at],
            hidden=tuple(table[at] for table in self.hidden),
        )


class ResidentTape:
    """The candles of one stream; what was superseded is laid over the few frames that saw it."""

    def __init__(self, tape: Tape, length: int, device: torch.device) -> None:
        self.tape, self.length, self.device = tape, length, device
        rows, width = _there(np.ascontiguousarray(tape.rows), device), tape.rows.shape[1]
        # Every frame as a view without a copy: they begin one row apart, and each lies in one piece.
        count = max(len(rows) - length + 1, 0)
        self.views = (
            rows.as_strided((count, length * width), (width, 1)) if count else rows.new_empty(0, length * width)
        )
        self.superseded: dict[int, Tensor] = {}  # by identity, as they come to be needed

    def gather(self, made_ms: Rows) -> Tensor:
        """Frames [B, L, F] as-of `made_ms`."""
        last_rows = made_ms // self.tape.step_ms - 1
        self.tape.check_reach(last_rows, self.length)
        starts = last_rows - self.tape.first_row - self.length + 1
        frames = self.views.index_select(0, _there(starts, self.device)).unflatten(1, (self.length, -1))
        for lay in self.tape.overlays(last_rows, self.length, made_ms):
            frames[lay.reference, lay.into] = self._rows_of(lay.block)[lay.source]
        return frames

    def _rows_of(self, block: Superseded) -> Tensor:
        if id(block) not in self.superseded:
            self.superseded[id(block)] = _there(block.rows, self.device)
        return self.superseded[id(block)]


class ResidentBook:
    """The seconds of one market's book, and one row of NaN that stands for every second without one."""

    def __init__(self, book: BookTape | None, length: int, device: torch.device) -> None:
        rows = book.rows if book else np.empty((0, len(BOOK_COLUMNS)), np.float32)
        absent = np.full((1, rows.shape[1]), np.nan, np.float32)
        self.rows = _there(np.concatenate([np.where(rows[:, PRICE:] == 0, absent, rows), absent]), device)
        self.first_row, self.length, self.device = book.first_row if book else 0, length, device

    def gather(self, made_ms: Rows) -> Tensor:
        """Stretches [B, L, C]: the seconds that had ended by `made_ms`."""
        count = len(self.rows) - 1
        at = (made_ms // 1000 - self.length - self.first_row)[:, None] + np.arange(self.length)
        return self.rows[_there(np.where((at >= 0) & (at < count), at, count), self.device)]


def _there(values: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)
