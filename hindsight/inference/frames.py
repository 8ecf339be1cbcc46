"""The tape in memory, and the frames that references address in it.

Legend: T candles on the tape, F columns, B references, L candles of a frame.

Row i of a tape is the i-th candle since 1970 on the stream's time grid, with everything known at its close: the candle,
its indicators, and per level and side the last *confirmed* pivot. A missing candle is a row of NaN, so that addressing
stays arithmetic. Corrections by the venue overwrite rows; what they overwrote is kept in `superseded`, and a frame is
always gathered as-of the close of its last candle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hindsight.market import indicators

PIVOT_TYPES = tuple(f"L{level}{side}" for level in range(1, 6) for side in "LH")
# Columns of one kind stand side by side, so that a model scales each kind as one slice, without copying.
KINDS: dict[str, tuple[str, ...]] = {
    "candle": ("open", "high", "low", "close"),
    "average": ("sma_10", "sma_20", "sma_50", "ema_12", "ema_26", "bb_upper", "bb_middle", "bb_lower"),  # prices
    "pivot_price": tuple(f"{pivot_type}_price" for pivot_type in PIVOT_TYPES),
    "volume": ("volume", "volume_sma_20"),
    "difference": ("macd", "macd_signal", "macd_hist"),  # of prices
    "range": ("atr_14",),
    "percent": ("rsi_14", "stoch_k", "stoch_d"),  # 0 .. 100, around 50
    "strength": ("adx_14",),  # 0 .. 100, around 25
    "flow": ("obv_change",),  # signed volume
    "pivot_age": tuple(f"{pivot_type}_age" for pivot_type in PIVOT_TYPES),
}
COLUMNS = tuple(name for names in KINDS.values() for name in names)
COLUMN = {name: index for index, name in enumerate(COLUMNS)}
KIND = {kind: slice(COLUMN[names[0]], COLUMN[names[-1]] + 1) for kind, names in KINDS.items()}
CANDLE_COLUMNS = ("open", "high", "low", "close", "volume")
WARM = tuple(COLUMN[name] for name in CANDLE_COLUMNS + indicators.NAMES)

Rows = NDArray[np.int64]
Frames = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """Rows as they stood before the venue corrected something at `until_ms`."""

    first_row: int
    rows: Frames
    until_ms: int


class Overlay(NamedTuple):
    """Rows of a superseded block that belong over those of one reference's frame."""

    reference: int
    into: slice
    block: Superseded
    source: slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """The column block of one stream in memory: `rows` [T, F] from `first_row` on.

    A row's number is its `open_time` in candles since 1970, whatever part of the tape is in memory.
    """

    step_ms: int
    first_row: int
    rows: Frames
    superseded: Sequence[Superseded] = ()

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != len(COLUMNS) or self.rows.dtype != np.float32:
            raise ValueError(
                f"tape rows: expected float32 [T, {len(COLUMNS)}], found {self.rows.dtype} {self.rows.shape}"
            )

    @property
    def end_row(self) -> int:
        """The row after the last one in memory."""
        return self.first_row + len(self.rows)

    def gather(self, last_rows: Rows, length: int, made_ms: Rows | None = None) -> Frames:
        """Frames [B, L, F]: for each reference the `length` rows up to and with `last_rows`, as-of `made_ms`.

        `made_ms` is the close of the last row where it is not given: later in a stream of longer candles, whose last
        one may have closed long before. Raises ValueError when a frame reaches beyond the rows in memory.
        """
        self.check_reach(last_rows, length)
        if not len(last_rows):
            return np.empty((0, length, self.rows.shape[1]), np.float32)
        # Every frame of the tape as a view without a copy [T − L + 1, L, F], and of those the ones asked for, copied.
        views_NLF = np.lib.stride_tricks.sliding_window_view(self.rows, length, axis=0).swapaxes(1, 2)
        frames = views_NLF[last_rows - self.first_row - length + 1]
        for lay in self.overlays(last_rows, length, (last_rows + 1) * self.step_ms if made_ms is None else made_ms):
            frames[lay.reference, lay.into] = lay.block.rows[lay.source]
        return frames

    def check_reach(self, last_rows: Rows, length: int) -> None:
        """Raises ValueError when a frame of `length` rows reaches beyond the rows in memory."""
        if len(last_rows) and (last_rows.min() - length + 1 < self.first_row or last_rows.max() >= self.end_row):
            raise ValueError(
                f"frames of {length} rows ending at {last_rows.min()}..{last_rows.max()} reach beyond the tape's"
                f" rows [{self.first_row}, {self.end_row})"
            )

    def overlays(self, last_rows: Rows, length: int, made_ms: Rows) -> Iterator[Overlay]:
        """What frames as-of `made_ms` hold of superseded rows, in the order in which it is laid over them."""
        for block in sorted(self.superseded, key=lambda block: -block.until_ms):  # the oldest version is laid last
            block_end = block.first_row + len(block.rows)
            touched = (made_ms < block.until_ms) & (last_rows >= block.first_row) & (last_rows - length + 1 < block_end)
            for reference in np.flatnonzero(touched).tolist():
                start = int(last_rows[reference]) - length + 1
                low, high = max(start, block.first_row), min(int(last_rows[reference]) + 1, block_end)
                source = slice(low - block.first_row, high - block.first_row)
                yield Overlay(reference, slice(low - start, high - start), block, source)

    def first_known(self, first: int, end: int) -> Frames:
        """Rows [first, end) each as it stood at its own close: what settled outcomes, whatever was corrected later."""
        rows = self.rows[first - self.first_row : end - self.first_row].copy()
        for block in sorted(self.superseded, key=lambda block: -block.until_ms):
            low, high = max(first, block.first_row), min(end, block.first_row + len(block.rows))
            if low < high:
                rows[low - first : high - first] = block.rows[low - block.first_row : high - block.first_row]
        return rows


def unbroken(rows: Frames) -> NDArray[np.int64]:
    """For each row the number of candles in an unbroken run that ends with it; 0 where the candle is missing."""
    present = ~np.isnan(rows[:, COLUMN["open"]])
    index = np.arange(len(rows))
    last_missing = np.maximum.accumulate(np.where(present, -1, index))
    return index - last_missing


def warm(rows: Frames) -> NDArray[np.bool_]:
    """Whether candle and indicators of each row are all there."""
    return np.asarray(np.isfinite(rows[:, WARM]).all(axis=1))
