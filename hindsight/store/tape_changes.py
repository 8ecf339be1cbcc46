"""What the rows of a tape are made of: at each candle's close, and again where candles changed after theirs."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import duckdb
import polars as pl

from hindsight.inference.frames import CANDLE_COLUMNS, Frames
from hindsight.inference.tape_rows import first_known_rows, laid, tape_rows
from hindsight.market import indicators
from hindsight.market.as_of import as_of
from hindsight.market.streams import EPOCH, Stream, Window, from_ms
from hindsight.store.market_tables import read_candles, read_indicators, read_revisions
from hindsight.store.pivot_tables import pivots_before
from hindsight.store.rows import OF_STREAM, stream_key

SHORT = timedelta(hours=1)  # of ours: so much is rather read from the table of indicators than computed again


class Change(NamedTuple):
    """Candles that came late or were corrected, all known from one instant on.

    Before it the rows [first_row, end_row) stood otherwise: from the first of them to the last one closed by then, but
    no further than to those whose indicators begin after the last of them.
    """

    until_ms: int  # a correction of 04:03:54.000001 is known at 04:03:54.001, not at 04:03:54.000
    first_row: int
    end_row: int

    @property
    def size(self) -> int:
        """How many rows that are."""
        return self.end_row - self.first_row


def changes_between(
    con: duckdb.DuckDBPyConnection, stream: Stream, start: datetime, end: datetime, opened: datetime = EPOCH
) -> list[Change]:
    """What became known in (start, end] of candles that had closed before; of those that `opened` then or later."""
    late = f"""
        {OF_STREAM}
          and open_time >= $opened
          and recorded_at > $start
          and recorded_at <= $end
          and epoch_us(recorded_at) - epoch_us(open_time) > $step_us"""
    found = con.execute(
        f"""
        select (epoch_us(recorded_at) + 999) // 1000, epoch_ms(open_time) // $step_ms
        from candles
        where {late}
        union all
        select (epoch_us(recorded_at) + 999) // 1000, epoch_ms(open_time) // $step_ms
        from candle_revisions
        where {late}
        """,
        {
            "start": start,
            "end": end,
            "opened": opened,
            "step_ms": stream.step_ms,
            "step_us": 1000 * stream.step_ms,
            **stream_key(stream),
        },
    ).fetchall()
    rows: dict[int, list[int]] = {}
    for until_ms, row in found:
        rows.setdefault(until_ms, []).append(row)
    # The candle that closes at that very instant already saw it; the one before is the last that did not.
    return [
        Change(until_ms, min(of), min((until_ms - 1) // stream.step_ms, _first_unreached(max(of), stream)))
        for until_ms, of in sorted(rows.items())
    ]


def _first_unreached(row: int, stream: Stream) -> int:
    """The first row of which no indicator depends on the candle of `row`: the first of a UTC day, see `anchor`."""
    of_a_day = indicators.DAY // stream.step
    return -(-(row + 1 + indicators.WARMUP) // of_a_day) * of_a_day


def changed_rows(con: duckdb.DuckDBPyConnection, stream: Stream, change: Change) -> Iterator[Frames]:
    """The rows of a change as they stand from then on, month by month."""
    start, end = (from_ms(row * stream.step_ms) for row in (change.first_row, change.end_row))
    for span in Window(start=start, end=end).months():
        reach = Window(start=indicators.anchor(span.start, stream.step), end=span.end)
        known = as_of(read_candles(con, stream, reach), read_revisions(con, stream, reach), from_ms(change.until_ms))
        yield tape_rows(known, pivots_for(con, stream, span), span, stream)


def rows_at_their_close(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> Frames:
    """The rows of `window`, each as it stood at its own close."""
    pivots = pivots_for(con, stream, window)
    values = _as_stored(con, stream, window) if window.end - window.start <= SHORT else None
    if values is not None:
        return laid(values, pivots, window, stream)
    reach = Window(start=indicators.anchor(window.start, stream.step), end=window.end)
    return first_known_rows(
        read_candles(con, stream, reach), read_revisions(con, stream, reach), pivots, window, stream
    )


def pivots_for(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """Pivots confirmed in (start, end], in the order of their confirmation, and before them the newest of each type."""
    return pivots_before(con, stream, window, 1)


def _as_stored(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame | None:
    """Candles with their indicators out of the tables; None unless all of both were known at the close."""
    candles, values = read_candles(con, stream, window), read_indicators(con, stream, window)
    close = candles["open_time"] + stream.step
    is_known = candles["open_time"].equals(values["open_time"])
    if not is_known or not close.equals(candles["recorded_at"]) or not close.equals(values["known_at"]):
        return None
    return candles.select("open_time", *CANDLE_COLUMNS).hstack(values.select(indicators.NAMES))
