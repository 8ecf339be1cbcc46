"""The newest confirmed pivots of every type, as they were known at a close.

Legend: P pivots, B closes, T types, K newest pivots of a type.

A pivot enters at its confirmation, never at its `pivot_time`: at the close of row r those are known whose
`confirmed_at` is at or before that close.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.inference.frames import PIVOT_TYPES, Frames, Rows

IMBALANCES = ("imbalance_at_pivot", "imbalance_at_confirmation")
# Age in candles, from the pivot's candle to the one that closes; the other columns are as stored.
PIVOT_COLUMNS = ("age", "price", "strength", *IMBALANCES)
KEY = ("pivot_type", "pivot_time", "confirmed_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class PivotHistory:
    """Pivots of one stream, type after type as in PIVOT_TYPES, and those of one type as they were confirmed."""

    starts: NDArray[np.int64]  # [11] where each type begins, and where the last one ends
    confirmed_rows: Rows  # [P] the row at whose close the pivot is known
    pivot_rows: Rows  # [P]
    values: Frames  # [P, 4] the columns of PIVOT_COLUMNS after the age

    @classmethod
    def of(cls, pivots: pl.DataFrame, books: pl.DataFrame | None, step_ms: int) -> Self:
        """The history of `pivots`, which have pivot_type, pivot_time, confirmed_at, price and strength.

        `books` has the first three and the columns of IMBALANCES; a pivot without a row there has no imbalance.
        """
        order = {pivot_type: place for place, pivot_type in enumerate(PIVOT_TYPES)}
        known = pivots.select(*KEY, "price", "strength").filter(pl.col("pivot_type").is_in(PIVOT_TYPES))
        if books is None:
            known = known.with_columns(pl.lit(None, pl.Float32).alias(name) for name in IMBALANCES)
        else:
            beside = books.select(*KEY, *IMBALANCES).unique(KEY, keep="last", maintain_order=True)
            known = known.join(beside, on=KEY, how="left", maintain_order="left")
        known = known.with_columns(place=pl.col("pivot_type").replace_strict(order, return_dtype=pl.Int64))
        known = known.sort("place", "confirmed_at", maintain_order=True)
        return cls(
            starts=np.searchsorted(known["place"].to_numpy(), np.arange(len(PIVOT_TYPES) + 1)),
            # The first row that closes at or after the confirmation; one between two closes waits for the second.
            confirmed_rows=-(-_ms(known["confirmed_at"]) // step_ms) - 1,
            pivot_rows=_ms(known["pivot_time"]) // step_ms,
            values=known.select(pl.col(PIVOT_COLUMNS[1:]).cast(pl.Float32).fill_null(np.nan)).to_numpy(),
        )

    def gather(self, last_rows: Rows, count: int) -> Frames:
        """The newest `count` pivots of each type at the close of each row [B, 10, K, 5], the newest first.

        Types as in PIVOT_TYPES, columns as in PIVOT_COLUMNS; NaN where fewer are known, or an imbalance is not.
        """
        found = np.full((len(last_rows), len(PIVOT_TYPES), count, len(PIVOT_COLUMNS)), np.nan, np.float32)
        if not len(self.values):
            return found
        of_types = pairwise(self.starts.tolist())
        known = [np.searchsorted(self.confirmed_rows[first:end], last_rows, side="right") for first, end in of_types]
        back_BTK = np.stack(known, axis=1)[:, :, None] - np.arange(1, count + 1)
        at_BTK = np.where(back_BTK >= 0, self.starts[:-1, None] + back_BTK, 0)
        found[..., 0] = last_rows[:, None, None] - self.pivot_rows[at_BTK]
        found[..., 1:] = self.values[at_BTK]
        found[back_BTK < 0] = np.nan
        return found


def _ms(times: pl.Series) -> NDArray[np.int64]:
    return times.dt.epoch("ms").to_numpy()
