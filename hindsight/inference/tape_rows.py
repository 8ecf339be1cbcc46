"""From the market's tables to tape rows: every row with what was known at its close, and what corrections overwrote."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from hindsight.inference.frames import CANDLE_COLUMNS, COLUMN, COLUMNS, PIVOT_TYPES, Frames, Superseded
from hindsight.market import indicators
from hindsight.market.as_of import as_of
from hindsight.market.streams import Stream, Window, from_ms, to_ms

A_MILLISECOND, A_MOMENT = timedelta(milliseconds=1), timedelta(microseconds=1)


def tape_rows(candles: pl.DataFrame, pivots: pl.DataFrame, window: Window, stream: Stream) -> Frames:
    """Rows [T, F] of the grid of `window`. `candles` reach back to the anchor, `pivots` to the first of the stream."""
    first_ms, step_ms = to_ms(window.start), stream.step_ms
    block = np.full(((to_ms(window.end) - first_ms) // step_ms, len(COLUMNS)), np.nan, np.float32)
    inside = candles.filter(pl.col("open_time").is_between(window.start, window.end, closed="left"))
    values = inside.select("open_time", *CANDLE_COLUMNS).join(
        indicators.compute(candles, window, stream.step), on="open_time", how="left", maintain_order="left"
    )
    at = (_ms(values["open_time"]) - first_ms) // step_ms
    names = [*CANDLE_COLUMNS, *indicators.NAMES]
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


def superseded(
    candles: pl.DataFrame,
    revisions: pl.DataFrame,
    pivots: pl.DataFrame,
    window: Window,
    stream: Stream,
    moment: datetime,
) -> list[Superseded]:
    """What rows of `window` held before each correction or late delivery became known, from its start to `moment`.

    One block per instant at which candles changed after their close: from the first changed row to the last one that
    had closed by then. Rows beyond it were made from the corrected candles to begin with.
    """
    late = pl.concat([candles, revisions.select(candles.columns)]).filter(
        pl.col("recorded_at") > pl.col("open_time") + stream.step,
        pl.col("recorded_at").is_between(window.start, moment, closed="right"),
    )
    if late.is_empty():
        return []
    blocks = []
    for (known_at,), changed in late.sort("recorded_at").group_by("recorded_at", maintain_order=True):
        assert isinstance(known_at, datetime)
        first = changed["open_time"].min()
        assert isinstance(first, datetime)
        # A correction of 04:03:54.000001 is known at 04:03:54.001, not at 04:03:54.000. The candle that closes at that
        # very instant already saw it; the one before is the last that did not.
        until_ms = to_ms(known_at + A_MILLISECOND - A_MOMENT)
        span = Window(start=first, end=from_ms((until_ms - 1) // stream.step_ms * stream.step_ms))
        reach = pl.col("open_time").is_between(indicators.anchor(first, stream.step), span.end, closed="left")
        before = as_of(candles.filter(reach), revisions.filter(reach), known_at - A_MOMENT)
        rows = tape_rows(before, pivots, span, stream)
        blocks.append(Superseded(first_row=to_ms(first) // stream.step_ms, rows=rows, until_ms=until_ms))
    return blocks


def _lay_pivots(block: Frames, pivots: pl.DataFrame, pivot_type: str, close_ms: np.ndarray, step_ms: int) -> None:
    newest = np.searchsorted(_ms(pivots["confirmed_at"]), close_ms, side="right") - 1
    known = newest >= 0
    pivot_ms = _ms(pivots["pivot_time"])[newest]
    block[known, COLUMN[f"{pivot_type}_price"]] = pivots["price"].to_numpy()[newest][known]
    block[known, COLUMN[f"{pivot_type}_age"]] = ((close_ms - step_ms - pivot_ms) // step_ms)[known]


def _ms(times: pl.Series) -> np.ndarray:
    return times.dt.epoch("ms").to_numpy()
