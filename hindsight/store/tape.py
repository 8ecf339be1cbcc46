"""The tape on disk: `tape/<stream>/rows.f32` and a JSON that says what is in it.

It is derived from DuckDB and never the only copy of anything: when it is missing, damaged, or laid out otherwise, it is
made again. Rows are appended month by month; a correction rewrites the rows from the corrected candle on.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from hindsight.errors import HomeUnwritable
from hindsight.inference.frames import COLUMNS, Tape
from hindsight.inference.tape_rows import superseded, tape_rows
from hindsight.market import indicators
from hindsight.market.as_of import as_of
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.store.market_tables import pivot_mark, read_candles, read_revisions
from hindsight.store.rows import OF_STREAM, select, stream_key

LAYOUT = hashlib.blake2b("|".join((*COLUMNS, "float32 1")).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What the JSON beside the rows says."""

    layout: str
    source: str  # which candles and pivots it was made of, in short
    first_row: int
    end_row: int


def load(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    stream: Stream,
    window: Window,
    origin: datetime,
    moment: datetime | None = None,
) -> Tape:
    """The rows of `window` as they are known at `moment`, after bringing the file up to the window's end.

    `origin` is the open time of the stream's first candle. `moment` is the window's end where it is not given, and
    else lies before the close of the candle after it. Everything that is read was recorded at or before it.
    """
    moment = moment or window.end
    file = folder / stream.venue / stream.symbol.replace("/", "-").replace(":", "_") / stream.timeframe / "rows.f32"
    first_row, end_row = to_ms(origin) // stream.step_ms, to_ms(window.end) // stream.step_ms
    _bring_up_to(con, file, stream, first_row, end_row)
    start_row = max(to_ms(window.start) // stream.step_ms, first_row)
    rows = np.memmap(file, np.float32, "r", shape=(end_row - first_row, len(COLUMNS)))[start_row - first_row :]
    rows = np.array(rows)  # a copy: pages of a map would stay resident, and grow with history
    span = Window(start=from_ms(start_row * stream.step_ms), end=window.end)
    candles, revisions, pivots, changed = known(con, stream, span, moment)
    if changed is not None:  # the file holds what was known at some later close, or only at the window's end
        changed = max(changed, span.start)
        since = Window(start=changed, end=span.end)
        rows[to_ms(changed) // stream.step_ms - start_row :] = tape_rows(candles, pivots, since, stream)
    return Tape(
        step_ms=stream.step_ms,
        first_row=start_row,
        rows=rows,
        superseded=superseded(candles, revisions, pivots, span, stream, moment),
    )


def known(
    con: duckdb.DuckDBPyConnection, stream: Stream, window: Window, moment: datetime
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, datetime | None]:
    """Candles, revisions and pivots that rows of `window` are made of, as recorded at or before `moment`.

    The last one is the open time of the first candle of which something was recorded after the window's end; None
    where nothing was.
    """
    reach = Window(start=indicators.anchor(window.start, stream.step), end=window.end)
    stored, revisions = read_candles(con, stream, reach), read_revisions(con, stream, reach)
    later = pl.concat([frame.select("open_time", "recorded_at") for frame in (stored, revisions)]).filter(
        pl.col("recorded_at") > window.end
    )
    changed = later["open_time"].min()
    assert changed is None or isinstance(changed, datetime)
    known_revisions = revisions.filter(pl.col("superseded_at") <= moment)
    return as_of(stored, revisions, moment), known_revisions, pivots_for(con, stream, window), changed


def pivots_for(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """Pivots confirmed in (start, end], in the order of their confirmation, and before them the newest of each type."""
    return select(
        con,
        """
        select *, rowid as emitted
        from pivots
        where venue = $venue
          and symbol = $symbol
          and timeframe = $timeframe
          and confirmed_at > $start
          and confirmed_at <= $until
        union all
        (
            select *, rowid as emitted
            from pivots
            where venue = $venue
              and symbol = $symbol
              and timeframe = $timeframe
              and confirmed_at <= $start
            qualify row_number() over (partition by pivot_type order by confirmed_at desc) = 1
        )
        order by confirmed_at, emitted
        """,
        start=window.start,
        until=window.end,
        **stream_key(stream),
    )


def _bring_up_to(con: duckdb.DuckDBPyConnection, file: Path, stream: Stream, first_row: int, end_row: int) -> None:
    contents = _contents(file)
    if contents is None or contents.first_row != first_row or not _is_of(con, stream, contents):
        contents = _Contents(layout=LAYOUT, source="", first_row=first_row, end_row=first_row)
    if contents.end_row >= end_row:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    until = from_ms(end_row * stream.step_ms)
    since = from_ms(contents.end_row * stream.step_ms)
    start = max(_earliest_change(con, stream, since, until), from_ms(first_row * stream.step_ms))
    try:
        with file.open("r+b" if file.exists() else "w+b") as handle:
            for month in Window(start=start, end=until).months():
                handle.seek((to_ms(month.start) // stream.step_ms - first_row) * len(COLUMNS) * 4)
                candles, pivots = _known_at(con, stream, month, until)
                handle.write(tape_rows(candles, pivots, month, stream).tobytes())
            handle.flush()
            os.fsync(handle.fileno())
        temporary = file.with_name(f".contents.{os.getpid()}")
        source = _source(con, stream, end_row)
        contents = _Contents(layout=LAYOUT, source=source, first_row=first_row, end_row=end_row)
        temporary.write_text(json.dumps(asdict(contents)))
        temporary.rename(file.with_name("contents.json"))
    except OSError as error:
        raise HomeUnwritable(
            f"the tape of {stream} cannot be written to {file}: {error}. Make room and run the same command again;"
            " the tape is made from the warehouse, and nothing is lost"
        ) from error


def _known_at(
    con: duckdb.DuckDBPyConnection, stream: Stream, month: Window, until: datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The candles that rows of `month` are made of, in the revisions current at `until`, and the pivots."""
    reach = Window(start=indicators.anchor(month.start, stream.step), end=month.end)
    candles = as_of(read_candles(con, stream, reach), read_revisions(con, stream, reach), until)
    return candles, pivots_for(con, stream, month)


def _contents(file: Path) -> _Contents | None:
    """What the tape holds; None when it has to be made again."""
    try:
        contents = _Contents(**json.loads(file.with_name("contents.json").read_text()))
        whole = file.stat().st_size >= (contents.end_row - contents.first_row) * len(COLUMNS) * 4
    except (OSError, ValueError, TypeError):
        return None
    return contents if contents.layout == LAYOUT and whole else None


def _is_of(con: duckdb.DuckDBPyConnection, stream: Stream, contents: _Contents) -> bool:
    """Whether a tape was made from these tables, and from no more than what they hold."""
    mark = pivot_mark(con, stream)
    held = to_ms(mark.as_of) // stream.step_ms if mark else 0
    return contents.end_row <= held and contents.source == _source(con, stream, contents.end_row)


def _source(con: duckdb.DuckDBPyConnection, stream: Stream, end_row: int) -> str:
    """A short name for the tables behind a tape up to `end_row`: another warehouse, or other pivots, have another."""
    found = con.execute(
        f"""
        select count(*), bit_xor(hash(pivot_time, price)), (
          select arg_min(open, open_time)
          from candles
          where {OF_STREAM}
        )
        from pivots
        where {OF_STREAM} and confirmed_at <= $until
        """,
        {"until": from_ms(end_row * stream.step_ms), **stream_key(stream)},
    ).fetchall()
    return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()


def _earliest_change(con: duckdb.DuckDBPyConnection, stream: Stream, since: datetime, until: datetime) -> datetime:
    """The open time of the first candle that changed, or arrived, in (since, until], at most `since`."""
    found = select(
        con,
        """
        select least(min(open_time), $since) as open_time
        from (
            select open_time, recorded_at
            from candles
            where venue = $venue
              and symbol = $symbol
              and timeframe = $timeframe
            union all
            select open_time, recorded_at
            from candle_revisions
            where venue = $venue
              and symbol = $symbol
              and timeframe = $timeframe
        )
        where recorded_at > $since
          and recorded_at <= $until
        """,
        since=since,
        until=until,
        **stream_key(stream),
    )["open_time"][0]
    return found or since
