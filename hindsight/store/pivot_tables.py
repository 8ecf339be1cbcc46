"""The table `pivots` read back as far as a history of the newest pivots of every type needs it."""

from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.streams import EPOCH, Stream, Window
from hindsight.store.rows import OF_STREAM, select, stream_key

HIGHEST = ("L5L", "L5H")


def pivots_before(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window, count: int) -> pl.DataFrame:
    """Pivots confirmed in (start, end], in the order of confirmation, and before them the newest `count` of each type.

    Columns: those of the table, and `emitted`, the order in which they were confirmed.
    """
    # A pivot is confirmed by one of the level below, at the same close: since the last `count` of the highest level
    # there have been as many of every other. What lies further back is years of pivots that nobody asks for.
    since = min(_since(con, stream, window.start, pivot_type, count) for pivot_type in HIGHEST)
    # At one close at most one pivot of a type is confirmed, so that max_by has no ties to break. It keeps a few rows
    # of each type, where a window function sorts the whole history.
    sql = f"""
        with before as (
          select unnest(max_by(rowid, confirmed_at, $count)) as emitted
          from pivots
          where {OF_STREAM} and confirmed_at >= $since and confirmed_at <= $start
          group by pivot_type)
        select *, rowid as emitted
        from pivots
        where {OF_STREAM} and confirmed_at >= $since and confirmed_at <= $until
          and (confirmed_at > $start or rowid in (select emitted from before))
        order by confirmed_at, emitted
        """
    return select(con, sql, since=since, start=window.start, until=window.end, count=count, **stream_key(stream))


def _since(con: duckdb.DuckDBPyConnection, stream: Stream, at: datetime, pivot_type: str, count: int) -> datetime:
    """When the oldest of the newest `count` pivots of a type that are known at `at` was confirmed; EPOCH where they are
    fewer."""
    found = con.execute(
        f"""
        select confirmed_at
        from pivots
        where {OF_STREAM} and pivot_type = $pivot_type and confirmed_at <= $at
        order by confirmed_at desc
        limit $count
        """,
        {"pivot_type": pivot_type, "at": at, "count": count, **stream_key(stream)},
    ).fetchall()
    return found[-1][0] if len(found) == count else EPOCH
