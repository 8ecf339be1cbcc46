"""Rows of the order book: the books of one symbol as they stood at the end of one second.

| column | type | invariant |
|---|---|---|
| symbol, venue | text | the market that the row is for; the key, with `second` |
| second | timestamp UTC | first instant, included; the row is known one second later |
| price | float | mid of the books added up, in the symbol's quote currency |
| spread | float | best ask - best bid of the same; 0 or less where venues overlap; null where unknown |
| bucket_size, anchor | float | `anchor = floor(price / bucket_size) * bucket_size` (buckets.py) |
| amounts | 40 floats | US dollars per bucket, lowest price first; null where a book does not reach, never 0 for it |
| imbalance | float | within [-1, 1]; null where nothing rests near the price, or a book does not reach so far |
| snapshots | int | books accepted in the second; 0 where the last ones were carried forward |
| age_ms | int | from the newest book used to the end of the second |
| venues | texts | whose books were added up |
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import polars as pl

from hindsight.market.buckets import SIDE
from hindsight.market.candles import TIME

BOOK_SECONDS = pl.Schema(
    {
        "symbol": pl.String,
        "venue": pl.String,
        "second": TIME,
        "price": pl.Float64,
        "spread": pl.Float32,
        "bucket_size": pl.Float64,
        "anchor": pl.Float64,
        "amounts": pl.Array(pl.Float32, 2 * SIDE),
        "imbalance": pl.Float32,
        "snapshots": pl.Int32,
        "age_ms": pl.Int32,
        "venues": pl.List(pl.String),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSecond:
    """One row: the books of one symbol as they stood at the end of the second that begins at `second_ms`."""

    symbol: str
    venue: str
    second_ms: int
    price: float
    spread: float | None
    bucket_size: float
    anchor: float
    amounts: list[float | None]
    imbalance: float | None
    snapshots: int
    age_ms: int
    venues: list[str]

    def landed(self) -> dict[str, object]:
        """The row as JSON has it."""
        return asdict(self)


def book_frame(rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """Landed rows in the columns of BOOK_SECONDS. Raises ValueError where one of them is none."""
    landed = {name: kind for name, kind in BOOK_SECONDS.items() if name != "second"}
    try:
        frame = pl.DataFrame(list(rows), schema={**landed, "second_ms": pl.Int64, "amounts": pl.List(pl.Float32)})
        frame = frame.with_columns(
            pl.col("amounts").list.to_array(2 * SIDE), second=(pl.col("second_ms") * 1000).cast(TIME)
        ).select(BOOK_SECONDS.names())
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise ValueError(f"expected rows of an order book, found {error}") from None
    broken = frame.filter(~pl.all_horizontal(_rules()).fill_null(False))
    if len(broken):
        raise ValueError(f"expected rows of an order book, found {broken.row(0, named=True)}")
    return frame


def _rules() -> list[pl.Expr]:
    """What is true of every row."""
    amounts, imbalance, spread = pl.col("amounts").arr, pl.col("imbalance"), pl.col("spread")
    numbers = [pl.col(name) for name in ("price", "bucket_size", "anchor")]
    return [
        pl.col("symbol").is_not_null() & pl.col("venue").is_not_null(),
        pl.col("second").dt.epoch("ms") % 1000 == 0,
        *(number.is_finite() & (number >= 0) for number in numbers),
        (pl.col("price") > 0) & (pl.col("bucket_size") > 0),
        spread.is_null() | spread.is_finite(),
        pl.col("amounts").is_not_null() & (amounts.min().fill_null(0) >= 0) & amounts.sum().is_finite(),
        imbalance.is_null() | imbalance.is_between(-1, 1),
        (pl.col("snapshots") >= 0) & (pl.col("age_ms") >= 0),
        pl.col("venues").list.len() > 0,
    ]
