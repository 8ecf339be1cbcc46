"""The order book in memory, second by second, and the stretches of it that had been recorded at an instant.

Legend: T seconds on the tape, C columns, B instants, L seconds of a stretch.

Row i is the i-th second since 1970, and known once that second has ended. A book is recorded from some time on, and not
in every second: what is not there is NaN, wherever it is missing, and never an error.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.inference.frames import Frames
from hindsight.market.book_means import MEANS
from hindsight.market.buckets import SIDE

# US dollars in each bucket, lowest price first; the imbalance of the second and its means; the mid, in quote currency.
BOOK_COLUMNS = (*(f"amount_{bucket:02d}" for bucket in range(2 * SIDE)), "imbalance", *MEANS, "price")
BOOK_COLUMN = {name: index for index, name in enumerate(BOOK_COLUMNS)}
PRICE = BOOK_COLUMN["price"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookTape:
    """The column block of one market's book: `rows` [T, C] from the second `first_row` on.

    A second without a row has the price 0, which no book has, or NaN: in a file such rows are holes that take no room.
    A bucket, or a mean, that is unknown is NaN in its place.
    """

    first_row: int
    rows: Frames

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != len(BOOK_COLUMNS) or self.rows.dtype != np.float32:
            raise ValueError(
                f"book rows: expected float32 [T, {len(BOOK_COLUMNS)}], found {self.rows.dtype} {self.rows.shape}"
            )

    @property
    def end_row(self) -> int:
        """The second after the last one in memory."""
        return self.first_row + len(self.rows)

    def gather(self, made_ms: NDArray[np.int64], length: int) -> Frames:
        """Stretches [B, L, C]: for each instant the `length` seconds that had ended by then, the newest last.

        `made_ms` are milliseconds since 1970. A second without a row, before the tape or after it, is a row of NaN.
        """
        starts = made_ms // 1000 - length - self.first_row
        last_start = len(self.rows) - length
        if last_start < 0 or not len(starts):
            stretches = np.empty((len(starts), length, len(BOOK_COLUMNS)), np.float32)
        else:
            # Every stretch as a view without a copy [T − L + 1, L, C], and of those the ones asked for, copied. Which
            # rows are absent is read off the tape: successive stretches share its rows, and the copies lie far apart.
            at = np.clip(starts, 0, last_start)
            is_absent = np.lib.stride_tricks.sliding_window_view(self.rows[:, PRICE], length)[at] == 0
            stretches = np.lib.stride_tricks.sliding_window_view(self.rows, length, axis=0).swapaxes(1, 2)[at]
            if is_absent.any():
                stretches[is_absent] = np.nan
        reaches_beyond = (starts < 0) | (starts > last_start)
        if reaches_beyond.any():
            stretches[reaches_beyond] = np.nan
            for index in np.flatnonzero(reaches_beyond & (starts > -length) & (starts < len(self.rows))):
                start = int(starts[index])
                low, high = max(start, 0), min(start + length, len(self.rows))
                rows = self.rows[low:high]
                stretches[index, low - start : high - start] = np.where(rows[:, PRICE:] == 0, np.nan, rows)
        return stretches
