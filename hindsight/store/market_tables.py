"""The market's tables: candles with their revisions and gaps, indicators, pivots and the state between pivots.

A candle is keyed by stream and open_time. `candles` holds its newest revision, `candle_revisions` what that replaced.
Every function works inside the caller's connection, so that what belongs together lands together.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import polars as pl

from hindsight.market.as_of import REVISIONS
from hindsight.market.candles import CANDLES, TIME
from hindsight.market.gaps import GAPS, find_gaps
from hindsight.market.indicators import NAMES
from hindsight.market.pivots import PIVOTS
from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, in_order, insert, select, select_with, stream_key

WITHIN = f"{OF_STREAM} and open_time >= $start and open_time < $end"


@dataclass(frozen=True, slots=True, kw_only=True)
class PivotMark:
    """How far pivots have come: every candle from `since` on that opened before `as_of` is in `state`."""

    since: datetime
    as_of: datetime
    state: bytes


def read_candles(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """The newest revision of each candle that opens in `window`, sorted, in the columns of CANDLES."""
    sql = f"""
        select {", ".join(CANDLES)}
        from candles
        where {WITHIN}
        """
    return in_order(select(con, sql, **_at(stream, window)), "open_time")


def read_revisions(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """What corrections replaced, of candles that open in `window`: the columns of CANDLES and `superseded_at`."""
    sql = f"""
        select {", ".join(REVISIONS)}
        from candle_revisions
        where {WITHIN}
        order by open_time, revision
        """
    return select(con, sql, **_at(stream, window))


def first_candle(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> datetime | None:
    """The open time of the first candle in `window`; None where there is none."""
    sql = f"select min(open_time) from candles where {WITHIN}"
    return con.execute(sql, _at(stream, window)).fetchall()[0][0]


def corrected_before(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> list[datetime]:
    """The open times, sorted, of older candles that were corrected after the start of `window`, up to its end."""
    sql = f"""
        select open_time
        from candles
        where {OF_STREAM} and revision > 0 and recorded_at > $start and recorded_at <= $end and open_time < $start
        order by open_time
        """
    return [row[0] for row in con.execute(sql, _at(stream, window)).fetchall()]


def read_gaps(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """The gaps that start in `window`, in the columns of GAPS."""
    sql = f"""
        select {", ".join(GAPS)}
        from gaps
        where {OF_STREAM} and start_time >= $start and start_time < $end
        order by start_time
        """
    return select(con, sql, **_at(stream, window))


def read_indicators(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """open_time, known_at and the indicators of the candles that open in `window`, sorted."""
    sql = f"""
        select open_time, known_at, {", ".join(NAMES)}
        from indicators
        where {WITHIN}
        """
    return in_order(select(con, sql, **_at(stream, window)), "open_time")


def read_pivots(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """The pivots with `confirmed_at` in `window`, in the columns and the order of PIVOTS as they were confirmed."""
    # Within one candle a pivot lifts itself from level to level; both sides keep the order in which they were appended.
    sql = f"""
        select {", ".join(PIVOTS)}
        from pivots
        where {OF_STREAM} and confirmed_at >= $start and confirmed_at < $end
        order by confirmed_at, rowid
        """
    return select(con, sql, **_at(stream, window))


def replace_gaps(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window, frame: pl.DataFrame) -> None:
    """Makes `frame` the gaps that start in `window`."""
    con.execute(
        f"""
        delete from gaps
        where {OF_STREAM} and start_time >= $start and start_time < $end
        """,
        _at(stream, window),
    )
    insert(con, "gaps", frame, stream)


def find_gaps_again(con: duckdb.DuckDBPyConnection, stream: Stream, span: Window) -> None:
    """Brings `gaps` up to date after candles were inserted in `span`: up to the next stored candle on either side."""
    before, after = con.execute(
        f"""
        select
          (select max(open_time) from candles where {OF_STREAM} and open_time < $start),
          (select min(open_time) from candles where {OF_STREAM} and open_time >= $end)
        """,
        _at(stream, span),
    ).fetchall()[0]
    start, end = before or span.start, (after or span.end - stream.step) + stream.step
    present = select(
        con,
        f"select open_time from candles where {WITHIN} order by open_time",
        **_at(stream, Window(start=start, end=end)),
    )
    replace_gaps(con, stream, Window(start=start, end=end), find_gaps(present["open_time"], stream, None))


def append_refused(con: duckdb.DuckDBPyConnection, stream: Stream, frame: pl.DataFrame, now: datetime) -> int:
    """Notes refused candles (the columns of REFUSED) that are not noted yet and returns how many those were."""
    if frame.is_empty():
        return 0
    new = select_with(
        con,
        frame.unique(maintain_order=True),
        f"""
        select open_time, reason, found
        from incoming
        where not exists (
          select 1
          from refused_candles as noted
          where {OF_STREAM}
            and noted.open_time is not distinct from incoming.open_time
            and noted.reason = incoming.reason
            and noted.found = incoming.found)
        """,
        **stream_key(stream),
    )
    return insert(con, "refused_candles", new.with_columns(refused_at=pl.lit(now, TIME)), stream)


def replace_indicators(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window, frame: pl.DataFrame) -> int:
    """Makes `frame` (open_time, known_at, the indicators) the rows of `window`, and returns how many they are."""
    con.execute(f"delete from indicators where {WITHIN}", _at(stream, window))
    return insert(con, "indicators", frame, stream)


def last_indicators(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> datetime | None:
    """The open time of the last candle in `window` whose indicators are stored; None where there is none."""
    sql = f"select max(open_time) from indicators where {WITHIN}"
    return con.execute(sql, _at(stream, window)).fetchall()[0][0]


def append_pivots(con: duckdb.DuckDBPyConnection, stream: Stream, frame: pl.DataFrame) -> int:
    """Appends pivots in the columns of PIVOTS; the caller's watermark keeps them from standing twice."""
    return insert(con, "pivots", frame, stream)


def pivot_mark(con: duckdb.DuckDBPyConnection, stream: Stream) -> PivotMark | None:
    """How far pivots have come; None before the first candle."""
    rows = con.execute(
        f"""
        select since, as_of, state
        from pivot_states
        where {OF_STREAM}
        """,
        stream_key(stream),
    ).fetchall()
    marks = [PivotMark(since=since, as_of=as_of, state=state) for since, as_of, state in rows]  # one a month
    return max(marks, key=lambda mark: mark.as_of, default=None)


def write_pivot_mark(con: duckdb.DuckDBPyConnection, stream: Stream, mark: PivotMark) -> None:
    """Makes `mark` the newest; of each UTC month the last one is kept, and the month's end belongs to it."""
    month = (mark.as_of - timedelta(microseconds=1)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    con.execute(
        f"delete from pivot_states where {OF_STREAM} and as_of > $month",
        {**stream_key(stream), "month": month},
    )
    con.execute(
        """
        insert into pivot_states (venue, symbol, timeframe, since, as_of, state)
        values ($venue, $symbol, $timeframe, $since, $as_of, $state)
        """,
        {**stream_key(stream), "since": mark.since, "as_of": mark.as_of, "state": mark.state},
    )


def _at(stream: Stream, window: Window) -> dict[str, object]:
    return {**stream_key(stream), "start": window.start, "end": window.end}
