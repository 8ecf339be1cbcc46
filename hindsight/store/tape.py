"""The tape on disk: `tape/<stream>/rows.f32`, what changed later in `changes.f32`, and a JSON that says what they hold.

It is derived from DuckDB and never the only copy of anything: when it is missing, damaged, laid out otherwise, or of
other tables, it is made again. Both files only grow. A row is written as it stood at the close of its candle, month by
month. Where a candle came late, or was corrected, the rows that it reaches, up to the last one that had closed by then,
are written a second time, as they stood from then on (see tape_changes.py); those that close later have seen it. So
the rows of a window are a map of the file, with only what changed laid over it, and maps of others stay whole.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np

from hindsight.errors import HomeUnwritable
from hindsight.inference.frames import COLUMNS, Frames, Superseded, Tape
from hindsight.market.streams import EPOCH, Stream, Window, from_ms, to_ms
from hindsight.store.market_tables import pivot_mark
from hindsight.store.rows import OF_STREAM, stream_key
from hindsight.store.tape_changes import Change, changed_rows, changes_between, rows_at_their_close

ROW_BYTES = len(COLUMNS) * 4
LAYOUT = hashlib.blake2b("|".join((*COLUMNS, "float32 2")).encode(), digest_size=8).hexdigest()
LOOKED_AT = 100_000  # rows at the end of the file: at every call, are they those of the tables, and what changed?


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What the JSON beside the rows says."""

    layout: str
    source: str  # how many candles and which pivots its last rows were made of, in short
    first_row: int
    end_row: int
    changes: tuple[Change, ...] = ()  # all that were known by the last close, as they follow in their file


def market_folder(folder: Path, stream: Stream) -> Path:
    """Where the tapes of the stream's market lie: a folder per timeframe, and one of its book."""
    return folder / stream.venue / stream.symbol_in_paths


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
    else lies before the close of the candle after it. Everything that is read was recorded at or before it. The rows
    are a map of the file, of which only what changed later is a copy.
    """
    until_ms, step_ms = to_ms(moment or window.end), stream.step_ms
    file = market_folder(folder, stream) / stream.timeframe / "rows.f32"
    first_row, end_row = to_ms(origin) // step_ms, to_ms(window.end) // step_ms
    contents = _bring_up_to(con, file, stream, first_row, end_row)
    start_row = max(to_ms(window.start) // step_ms, first_row)
    rows = _map(file, start_row - first_row, end_row - start_row)
    changes = [change for change in contents.changes if change.until_ms <= until_ms]
    laid = _read_changes(file, contents.changes)
    held_ms = contents.end_row * step_ms
    if until_ms > held_ms:  # known before the close of the next row
        late = changes_between(con, stream, from_ms(held_ms), from_ms(until_ms))
        changes = [*changes, *late]
        laid += [np.concatenate([*changed_rows(con, stream, change)]) for change in late]
    superseded = []
    for change, now in zip(changes, laid, strict=False):
        low, high = max(change.first_row, start_row), min(change.end_row, end_row)
        if low < high:
            before = rows[low - start_row : high - start_row].copy()
            superseded.append(Superseded(first_row=low, rows=before, until_ms=change.until_ms))
            rows[low - start_row : high - start_row] = now[low - change.first_row : high - change.first_row]
    return Tape(step_ms=step_ms, first_row=start_row, rows=rows, superseded=superseded)


def _bring_up_to(con: duckdb.DuckDBPyConnection, file: Path, stream: Stream, first_row: int, end_row: int) -> _Contents:
    """What the files hold once they reach to `end_row`, or further."""
    contents = _contents(file)
    if contents is None or contents.first_row != first_row or not _is_of(con, stream, contents):
        contents = _Contents(layout=LAYOUT, source="", first_row=first_row, end_row=first_row)
    if contents.end_row >= end_row:
        return contents
    try:
        return _extend(con, file, stream, contents, end_row)
    except OSError as error:
        raise HomeUnwritable(
            f"the tape of {stream} cannot be written to {file}: {error}. Make room and run the same command again;"
            " the tape is made from the warehouse, and nothing is lost"
        ) from error


def _extend(con: duckdb.DuckDBPyConnection, file: Path, stream: Stream, contents: _Contents, end_row: int) -> _Contents:
    """Writes the rows up to `end_row`, and what changed by then, behind those that are there."""
    since, until = (from_ms(row * stream.step_ms) for row in (contents.end_row, end_row))
    beside, named = file.with_name("changes.f32"), file.with_name("contents.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    if contents.end_row == contents.first_row:  # made anew, beside what others may have mapped
        for old in (named, file, beside):
            old.unlink(missing_ok=True)
    months = (rows_at_their_close(con, stream, month) for month in Window(start=since, end=until).months())
    _write(file, contents.end_row - contents.first_row, months)
    late = changes_between(con, stream, since, until)
    if late:
        parts = (rows for change in late for rows in changed_rows(con, stream, change))
        _write(beside, _count(contents.changes), parts)
    contents = _Contents(
        layout=LAYOUT,
        source=_source(con, stream, contents.first_row, end_row),
        first_row=contents.first_row,
        end_row=end_row,
        changes=(*contents.changes, *late),
    )
    temporary = file.with_name(f".contents.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(contents)))
    temporary.rename(named)
    return contents


def _write(file: Path, place: int, parts: Iterable[Frames]) -> None:
    """Writes the parts from row `place` on."""
    with file.open("r+b" if file.exists() else "w+b") as handle:
        handle.seek(place * ROW_BYTES)
        for rows in parts:
            handle.write(rows.data)
        handle.flush()
        os.fsync(handle.fileno())


def _map(file: Path, place: int, count: int) -> Frames:
    """Rows of a file, of which those that are written to become a copy in memory; what others append is not in them."""
    if count <= 0:
        return np.empty((0, len(COLUMNS)), np.float32)
    shape = (count, len(COLUMNS))
    return np.memmap(file, np.float32, "c", offset=place * ROW_BYTES, shape=shape).view(np.ndarray)


def _read_changes(file: Path, changes: Sequence[Change]) -> list[Frames]:
    """The rows of each change."""
    rows = _map(file.with_name("changes.f32"), 0, _count(changes))
    return np.split(rows, np.cumsum([change.size for change in changes])[:-1]) if changes else []


def _count(changes: Iterable[Change]) -> int:
    return sum(change.size for change in changes)


def _contents(file: Path) -> _Contents | None:
    """What the tape holds; None when it has to be made again."""
    try:
        contents = _Contents(**json.loads(file.with_name("contents.json").read_text()))
        contents = replace(contents, changes=tuple(Change(*change) for change in contents.changes))
        is_whole = file.stat().st_size >= (contents.end_row - contents.first_row) * ROW_BYTES
        if contents.changes:
            is_whole &= file.with_name("changes.f32").stat().st_size >= _count(contents.changes) * ROW_BYTES
    except (OSError, ValueError, TypeError):
        return None
    return contents if contents.layout == LAYOUT and is_whole else None


def _is_of(con: duckdb.DuckDBPyConnection, stream: Stream, contents: _Contents) -> bool:
    """Whether a tape was made from these tables, and from no more than what they hold.

    A change that the file does not know of came in later than it says, and was in no row that it would have reached.
    """
    mark = pivot_mark(con, stream)
    held = to_ms(mark.as_of) // stream.step_ms if mark else 0
    if contents.end_row > held or contents.source != _source(con, stream, contents.first_row, contents.end_row):
        return False
    looked_row = max(contents.end_row - LOOKED_AT, contents.first_row)
    opened, end = (from_ms(row * stream.step_ms) for row in (looked_row, contents.end_row))
    found = set(changes_between(con, stream, EPOCH, end, opened))
    laid = {change for change in contents.changes if change.first_row >= looked_row}
    return laid <= found and {change.until_ms for change in found} <= {change.until_ms for change in contents.changes}


def _source(con: duckdb.DuckDBPyConnection, stream: Stream, first_row: int, end_row: int) -> str:
    """A short name for the tables behind a tape: where the candles known at its last close were others, or fewer, or
    the pivots, it is another one. What came later does not change it.
    """
    looked_row = max(end_row - LOOKED_AT, first_row)
    first, since, until = (from_ms(row * stream.step_ms) for row in (first_row, looked_row, end_row))
    found = con.execute(
        f"""
        select count(*), bit_xor(hash(pivot_time, price)), (
          select any_value(open)
          from candles
          where {OF_STREAM} and open_time = $first
        ), (
          select count(*)
          from candles
          where {OF_STREAM} and open_time >= $since and open_time < $until and recorded_at <= $until
        ) + (
          select count(*)
          from candle_revisions
          where {OF_STREAM} and open_time >= $since and recorded_at <= $until and superseded_at > $until
        )
        from pivots
        where {OF_STREAM} and confirmed_at > $since and confirmed_at <= $until
        """,
        {"first": first, "since": since, "until": until, **stream_key(stream)},
    ).fetchall()
    return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()
