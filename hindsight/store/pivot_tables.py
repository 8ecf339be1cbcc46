"""The table `pivots` read back as far as a history of the newest pivots of every type needs it."""

import duckdb
import polars as pl

from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, select, stream_key


def pivots_before(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window, count: int) -> pl.DataFrame:
    """Pivots confirmed in (start, end], in the order of confirmation, and before them the newest `count` of each type.

    Columns: those of the table, and `emitted`, the order in which they were confirmed.
    """
    # At one close at most one pivot of a type is confirmed, so that max_by has no ties to break. It keeps a few rows
    # of each type, where a window function sorts the whole history.
    sql = f"""
        with before as (
          select unnest(max_by(rowid, confirmed_at, $count)) as emitted
          from pivots
          where {OF_STREAM} and confirmed_at <= $start
          group by pivot_type)
        select *, rowid as emitted
        from pivots
        where {OF_STREAM} and confirmed_at <= $until
          and (confirmed_at > $start or rowid in (select emitted from before))
        order by confirmed_at, emitted
        """
    return select(con, sql, start=window.start, until=window.end, count=count, **stream_key(stream))
