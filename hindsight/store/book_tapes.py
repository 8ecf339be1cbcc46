"""The book's tape on disk: `<venue>/<symbol>/book/rows.f32` below the tapes, and a JSON that says what is in it.

It is derived from the table `order_book` and never the only copy of anything: when it is missing, damaged, laid out
otherwise, or of other tables, it is made again. It consists of blocks of 600 seconds. A second without a row is a row
of zeros, and a block without one is a hole, which reads as zeros and takes no room, however long nothing was recorded.

A row of the table does not say when it was written, and may be replaced. So the JSON holds a fingerprint of each of the
newest KEPT blocks that have rows; a block whose fingerprint is another one now is laid again, whether its rows are new,
came late or were replaced. Every call looks at the blocks that its window reaches, and when a block begins at all of
them. What is not noticed: a change in a block older than those, other than a row before the first one; and a row
replaced by one that differs in its amounts alone. To have these laid too, remove the folder.

Blocks are laid in place, as the table has them now; a tape that is made again is another file, so that a map of the
old one stays whole.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb
import numpy as np

from hindsight.errors import HomeUnwritable
from hindsight.inference.book_tape import BOOK_COLUMNS, BookTape
from hindsight.inference.frames import Frames
from hindsight.market.book_means import MEANS
from hindsight.market.buckets import SIDE
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.store.rows import OF_MARKET, market_key, select
from hindsight.store.tape import market_folder

BLOCK = 600  # seconds
KEPT = 288  # blocks: two days, if every second of them is recorded
AT_ONCE = 144  # blocks that are read together
BLOCK_BYTES = BLOCK * len(BOOK_COLUMNS) * 4
LAYOUT = hashlib.blake2b("|".join((*BOOK_COLUMNS, f"float32 {BLOCK} 1")).encode(), digest_size=8).hexdigest()
SECOND_1970 = "epoch_ms(second) // 1000"
SCALARS = ("imbalance", *MEANS, "price")  # the last of BOOK_COLUMNS, in their order

Blocks = dict[int, str]  # fingerprints by the number of the block, counted from 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What the JSON beside the rows says."""

    layout: str
    first_block: int
    blocks: Blocks  # the newest KEPT; the file ends with the last of them


def load(con: duckdb.DuckDBPyConnection, folder: Path, stream: Stream, window: Window) -> BookTape:
    """The seconds of `window` from the first to the last recorded block, after bringing the file up to the table.

    The rows are a read-only map of the file; there are none without a book of the market. Any timeframe will do.

    Raises HomeUnwritable when the file cannot be written.
    """
    file = market_folder(folder, stream) / "book" / "rows.f32"
    start_row, end_row = to_ms(window.start) // 1000, to_ms(window.end) // 1000
    contents = _bring_up_to_date(con, file, stream, start_row // BLOCK)
    if contents is None:
        return BookTape(first_row=start_row, rows=np.empty((0, len(BOOK_COLUMNS)), np.float32))
    first_row, stop_row = contents.first_block * BLOCK, (max(contents.blocks) + 1) * BLOCK
    rows = np.memmap(file, np.float32, "r", shape=(stop_row - first_row, len(BOOK_COLUMNS))).view(np.ndarray)
    start_row = min(max(start_row, first_row), stop_row)
    return BookTape(first_row=start_row, rows=rows[start_row - first_row : max(end_row, start_row) - first_row])


def _bring_up_to_date(con: duckdb.DuckDBPyConnection, file: Path, stream: Stream, start_block: int) -> _Contents | None:
    """What the file holds once its blocks from `start_block` on are as the table has them; None if that has no row."""
    first_block = _first_block(con, stream)
    if first_block is None:
        return None
    before = _contents(file, first_block)
    laid, since = (before.blocks, min(before.blocks)) if before else ({}, first_block)
    near = max(since, min(start_block, max(laid, default=since)))
    found = _fingerprints(con, stream, near)
    if near > since and (max(found, default=0) > max(laid) or not laid.items() & found.items()):
        near, found = since, _fingerprints(con, stream, since)
    if before and not laid.items() & found.items():  # not one is the same: it is of other tables
        before, laid, near, found = None, {}, first_block, _fingerprints(con, stream, first_block)
    changed = {block for block, _ in found.items() ^ {each for each in laid.items() if each[0] >= near}}
    if before and not changed:
        return before
    blocks = {block: text for block, text in laid.items() if block < near} | found
    contents = _Contents(layout=LAYOUT, first_block=first_block, blocks=dict(sorted(blocks.items())[-KEPT:]))
    try:
        _write(con, file, stream, contents, sorted(changed), is_new=before is None)
    except OSError as error:
        raise HomeUnwritable(
            f"the order book's tape of {stream.venue} {stream.symbol} cannot be written to {file}: {error}. Make room"
            " and run the same command again; the tape is made from the warehouse, and nothing is lost"
        ) from error
    return contents


def _write(
    con: duckdb.DuckDBPyConnection,
    file: Path,
    stream: Stream,
    contents: _Contents,
    changed: Iterable[int],
    *,
    is_new: bool,
) -> None:
    """Lays the blocks that changed, and says what the file holds then, once all of it is on disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    named, unfinished = file.with_name("contents.json"), file.with_name(".unfinished")
    if is_new:
        named.unlink(missing_ok=True)
    try:
        with unfinished.open("wb") if is_new else file.open("r+b") as handle:
            for span in _spans(changed):
                handle.seek((span.start - contents.first_block) * BLOCK_BYTES)
                handle.write(_rows(con, stream, span).data)
            _flush(handle)
        if is_new:
            unfinished.rename(file)
        with unfinished.open("wb") as handle:
            handle.write(json.dumps(asdict(contents)).encode())
            _flush(handle)
        unfinished.rename(named)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def _flush(handle: BinaryIO) -> None:
    handle.flush()
    os.fsync(handle.fileno())


def _spans(blocks: Iterable[int]) -> Iterator[range]:
    """Sorted blocks, those that follow one another together, at most AT_ONCE of them."""
    span = range(0)
    for block in blocks:
        if block == span.stop and len(span) < AT_ONCE:
            span = range(span.start, block + 1)
            continue
        if span:
            yield span
        span = range(block, block + 1)
    if span:
        yield span


def _rows(con: duckdb.DuckDBPyConnection, stream: Stream, span: range) -> Frames:
    """The rows [T, C] of blocks that follow one another: zeros where there is none, NaN where a value is unknown."""
    found = select(
        con,
        f"""
        select {SECOND_1970} as at, amounts, {", ".join(SCALARS)}
        from order_book
        where {OF_MARKET} and second >= $start and second < $end
        """,
        start=from_ms(span.start * BLOCK * 1000),
        end=from_ms(span.stop * BLOCK * 1000),
        **market_key(stream),
    )
    rows = np.zeros((len(span) * BLOCK, len(BOOK_COLUMNS)), np.float32)
    at = found["at"].to_numpy() - span.start * BLOCK
    rows[at, : -len(SCALARS)] = found["amounts"].explode().to_numpy().reshape(-1, 2 * SIDE)
    for column, name in enumerate(SCALARS, -len(SCALARS)):
        rows[at, column] = found[name].fill_null(np.nan).to_numpy()
    return rows


def _fingerprints(con: duckdb.DuckDBPyConnection, stream: Stream, since_block: int) -> Blocks:
    """What each block with rows, from `since_block` on, holds in short.

    Without the amounts: to read them takes five times as long, and they do not change alone.
    """
    found = con.execute(
        f"""
        select {SECOND_1970} // {BLOCK} as block,
               count(*), bit_xor(hash(second, snapshots, age_ms, {", ".join(SCALARS)}))
        from order_book
        where {OF_MARKET} and second >= $since
        group by block
        """,
        {"since": from_ms(since_block * BLOCK * 1000), **market_key(stream)},
    ).fetchall()
    return {block: f"{count} {xor:016x}" for block, count, xor in found}


def _first_block(con: duckdb.DuckDBPyConnection, stream: Stream) -> int | None:
    # With a limit DuckDB reads the oldest rows alone; min() would read the column of every market.
    found = con.execute(
        f"""
        select {SECOND_1970} // {BLOCK}
        from order_book
        where {OF_MARKET}
        order by second
        limit 1
        """,
        market_key(stream),
    ).fetchall()
    return found[0][0] if found else None


def _contents(file: Path, first_block: int) -> _Contents | None:
    """What a tape from `first_block` on holds; None when it has to be made again."""
    try:
        contents = _Contents(**json.loads(file.with_name("contents.json").read_text()))
        blocks = {int(block): str(text) for block, text in contents.blocks.items()}
        is_whole = file.stat().st_size >= (max(blocks) + 1 - first_block) * BLOCK_BYTES
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if not is_whole or (contents.layout, contents.first_block) != (LAYOUT, first_block):
        return None
    return _Contents(layout=LAYOUT, first_block=first_block, blocks=blocks)
