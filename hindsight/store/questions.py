"""Questions that the tables must answer with no row: each returns what is wrong in one window of one stream.

A window bounds what is read, so that asking after one more day costs the same on two weeks of history and on two years.
At most MOST offending rows come back: enough to see what happened.
"""

from typing import Protocol

import duckdb
import polars as pl

from hindsight.market.indicators import NAMES, WARMUP
from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, select, stream_key

Connection = duckdb.DuckDBPyConnection
MOST = 100
FASTEST, SLOWEST = 50, 60  # candles before which not every indicator can be warm, and after which every one is


class Question(Protocol):
    """A question with a name, and its sentence as the docstring."""

    __name__: str

    def __call__(self, con: Connection, stream: Stream, window: Window, /) -> pl.DataFrame: ...


def ask(con: Connection, sql: str, stream: Stream, window: Window, **more: object) -> pl.DataFrame:
    """The first MOST rows of `sql`, in which {of_stream}, $from, $to and $step stand for the stream and the window."""
    # duckdb refuses a parameter that the query does not name
    given = {**stream_key(stream), "from": window.start, "to": window.end, "step": stream.step, "most": MOST, **more}
    sql = sql.replace("{of_stream}", OF_STREAM) + "\nlimit $most"
    return select(con, sql, **{name: value for name, value in given.items() if f"${name}" in sql})


# Candles -------------------------------------------------------------------------------------------------------------


def candles_standing_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which candles are stored more than once?"""
    sql = """
        select open_time, count(*) as times
        from candles
        where {of_stream} and open_time >= $from and open_time < $to
        group by open_time
        having count(*) > 1
        order by open_time"""
    return ask(con, sql, stream, window)


def malformed_candles(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which candles are out of order within themselves (high < low, open outside), not finite, or off the grid?"""
    sql = """
        select open_time, open, high, low, close, volume
        from candles
        where {of_stream} and open_time >= $from and open_time < $to
          and not (
            low > 0 and low <= least(open, close) and high >= greatest(open, close) and volume >= 0
            and isfinite(open) and isfinite(high) and isfinite(low) and isfinite(close) and isfinite(volume)
            and epoch_ms(open_time) % epoch_ms($step) = 0)
        order by open_time"""
    return ask(con, sql, stream, window)


def holes_not_in_gaps(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which holes between two stored candles does the table `gaps` not know?"""
    sql = """
        with spaced as (
          select lag(open_time) over (order by open_time) + $step as start_time, open_time as end_time
          from candles
          where {of_stream} and open_time < $to and open_time >= coalesce(
            (select max(open_time) from candles where {of_stream} and open_time < $from), $from))
        select start_time, end_time
        from spaced
        anti join (select start_time, end_time from gaps where {of_stream}) as known using (start_time, end_time)
        where start_time < end_time
        order by start_time"""
    return ask(con, sql, stream, window)


def missing_candles(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which candles did nobody deliver?"""
    sql = """
        select start_time, end_time, candles
        from gaps
        where {of_stream} and start_time < $to and end_time > $from
        order by start_time"""
    return ask(con, sql, stream, window)


def candles_known_too_early(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which candles claim to have been known before they closed?"""
    sql = """
        select open_time, revision, recorded_at
        from candles
        where {of_stream} and open_time >= $from and open_time < $to and recorded_at < open_time + $step
        order by open_time"""
    return ask(con, sql, stream, window)


def broken_revisions(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which corrections leave an instant at which no value, or two, were current?"""
    sql = """
        with every as (
          select open_time, revision, recorded_at, superseded_at
          from candle_revisions
          where {of_stream} and open_time >= $from and open_time < $to
          union all
          select open_time, revision, recorded_at, null
          from candles
          where {of_stream} and open_time >= $from and open_time < $to and revision > 0)
        select open_time, revision, recorded_at, superseded_at
        from every
        qualify superseded_at is distinct from lead(recorded_at) over (partition by open_time order by revision)
        order by open_time, revision"""
    return ask(con, sql, stream, window)


# Indicators ----------------------------------------------------------------------------------------------------------


def indicators_beside_candles(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which candles have no indicators, which indicators no candle, and which stand twice?"""
    sql = """
        with here as (
          select open_time, count(*) as rows
          from indicators
          where {of_stream} and open_time >= $from and open_time < $to
          group by open_time),
        there as (
          select distinct open_time
          from candles
          where {of_stream} and open_time >= $from and open_time < $to)
        select coalesce(here.open_time, there.open_time) as open_time,
               coalesce(rows, 0) as indicator_rows,
               there.open_time is not null as has_candle
        from here
        full join there on here.open_time = there.open_time
        where here.open_time is null or there.open_time is null or rows > 1
        order by open_time"""
    return ask(con, sql, stream, window)


def indicators_not_finite(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which indicators are NaN or infinite? Not warm is null, never NaN."""
    broken = " or ".join(f"not isfinite({name})" for name in NAMES)
    sql = f"""
        select open_time, {", ".join(NAMES)}
        from indicators
        where {{of_stream}} and open_time >= $from and open_time < $to and ({broken})
        order by open_time"""
    return ask(con, sql, stream, window)


def indicators_not_warming_up(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which indicators are null although enough candles precede them, or are there before enough of them do?"""
    cold = " or ".join(f"{name} is null" for name in NAMES)
    sql = f"""
        with computed as (
          select open_time, {cold} as is_cold
          from indicators
          where {{of_stream}} and open_time >= $from and open_time < $to),
        suspects as (
          select *
          from computed
          where is_cold or open_time < (select min(open_time) from candles where {{of_stream}}) + $slowest * $step)
        select suspects.open_time, is_cold, count(*) as candles_since_anchor
        from suspects
        join candles
          on {{of_stream}}
         and candles.open_time >= date_trunc('day', suspects.open_time) - $warmup
         and candles.open_time <= suspects.open_time
        group by suspects.open_time, is_cold
        having (is_cold and count(*) >= $slowest) or (not is_cold and count(*) < $fastest)
        order by suspects.open_time"""
    return ask(con, sql, stream, window, warmup=WARMUP * stream.step, slowest=SLOWEST, fastest=FASTEST)


# Pivots --------------------------------------------------------------------------------------------------------------


def pivots_standing_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which pivots are stored more than once?"""
    sql = """
        select pivot_type, pivot_time, rule_version, count(*) as times, min(confirmed_at) as first_confirmed_at
        from pivots
        where {of_stream} and confirmed_at > $from and confirmed_at <= $to
        group by pivot_type, pivot_time, rule_version
        having count(*) > 1
        order by pivot_time"""
    return ask(con, sql, stream, window)


def pivots_confirmed_too_early(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which pivots were confirmed before the candle after them had closed?"""
    sql = """
        select pivot_type, pivot_time, confirmed_at, candles_right
        from pivots
        where {of_stream} and confirmed_at > $from and confirmed_at <= $to
          and (confirmed_at < pivot_time + 2 * $step or candles_right < 1)
        order by pivot_time"""
    return ask(con, sql, stream, window)


def pivots_off_their_candle(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which pivots have another price than the candle they stand on had as first delivered, or a strength of NaN?"""
    sql = """
        with found as (
          select *
          from pivots
          where {of_stream} and confirmed_at > $from and confirmed_at <= $to),
        delivered as (
          select open_time, high, low, revision
          from candles
          where {of_stream} and open_time >= (select min(pivot_time) from found) and open_time < $to
          union all
          select open_time, high, low, revision
          from candle_revisions
          where {of_stream} and open_time >= (select min(pivot_time) from found) and open_time < $to),
        first_known as (
          select open_time, min_by(high, revision) as high, min_by(low, revision) as low
          from delivered
          group by open_time)
        select pivot_type, pivot_time, price, high, low, strength
        from found
        left join first_known on open_time = pivot_time
        where price is distinct from if(side = 'high', high, low) or not isfinite(strength) or strength < 0
        order by pivot_time"""
    return ask(con, sql, stream, window)
