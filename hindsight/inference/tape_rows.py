"""From the market's tables to tape rows: every row with what was known at some instant, or each at its own close."""

import numpy as np
import polars as pl

from hindsight.inference.frames import CANDLE_COLUMNS, COLUMN, COLUMNS, PIVOT_TYPES, Frames
from hindsight.market import indicators
from hindsight.market.as_of import stretches
from hindsight.market.streams import Stream, Window, to_ms

VALUES = ("open_time", *CANDLE_COLUMNS, *indicators.NAMES)


def tape_rows(candles: pl.DataFrame, pivots: pl.DataFrame, window: Window, stream: Stream) -> Frames:
    """Rows [T, F] of the grid of `window`. `candles` reach back to the anchor, `pivots` to the first of the stream."""
    inside = candles.filter(pl.col("open_time").is_between(window.start, window.end, closed="left"))
    values = inside.select("open_time", *CANDLE_COLUMNS).join(
        indicators.compute(candles, window, stream.step), on="open_time", how="left", maintain_order="left"
    )
    return laid(values, pivots, window, stream)


def first_known_rows(
    candles: pl.DataFrame, revisions: pl.DataFrame, pivots: pl.DataFrame, window: Window, stream: Stream
) -> Frames:
    """The same, each row as it stood at its own close: no correction and no late delivery changes it any more.

    `candles` and `revisions` are those of `as_of`, and reach back to the anchor.
    """
    return np.concatenate(
        [tape_rows(known, pivots, part, stream) for part, known in stretches(candles, revisions, window, stream.step)]
    )


def laid(values: pl.DataFrame, pivots: pl.DataFrame, window: Window, stream: Stream) -> Frames:
    """Rows [T, F] of candles with their indicators, in the columns of VALUES; where there is none, a row of NaN."""
    first_ms, step_ms = to_ms(window.start), stream.step_ms
    block = np.full(((to_ms(window.end) - first_ms) // step_ms, len(COLUMNS)), np.nan, np.float32)
    at = (_ms(values["open_time"]) - first_ms) // step_ms
    names = VALUES[1:]
    block[at[:, None], [COLUMN[name] for name in names]] = values.select(names).to_numpy()
    close_ms = first_ms + (np.arange(len(block)) + 1) * step_ms
    by_type = pivots.select("pivot_type", "pivot_time", "confirmed_at", "price").partition_by(
        "pivot_type", as_dict=True
    )
    for (pivot_type,), of_type in by_type.items():
        if pivot_type in PIVOT_TYPES:
            _lay_pivots(block, of_type, str(pivot_type), close_ms, step_ms)
    missing = np.setdiff1d(np.arange(len(block)), at)
    block[missing] = np.nan
    return block


def _lay_pivots(block: Frames, pivots: pl.DataFrame, pivot_type: str, close_ms: np.ndarray, step_ms: int) -> None:
    newest = np.searchsorted(_ms(pivots["confirmed_at"]), close_ms, side="right") - 1
    known = newest >= 0
    pivot_ms = _ms(pivots["pivot_time"])[newest]
    block[known, COLUMN[f"{pivot_type}_price"]] = pivots["price"].to_numpy()[newest][known]
    block[known, COLUMN[f"{pivot_type}_age"]] = ((close_ms - step_ms - pivot_ms) // step_ms)[known]


def _ms(times: pl.Series) -> np.ndarray:
    return times.dt.epoch("ms").to_numpy()
