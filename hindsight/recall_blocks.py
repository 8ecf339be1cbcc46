"""Bring back the blocks that frames are gathered from, and tell how far all of them are recorded."""

from datetime import datetime, timedelta

import duckdb
import numpy as np

from hindsight.inference.blocks import OUTPUT_AGE, OUTPUTS, Blocks, Peer
from hindsight.inference.frames import COLUMNS, Tape
from hindsight.inference.pivot_history import PivotHistory
from hindsight.inference.predictions import BUY, NEXT_HIGH, TREND
from hindsight.inference.records import predictions_of
from hindsight.inference.shape import CandleBlock, FrameShape, Read
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.settings import Settings
from hindsight.store import book_tapes
from hindsight.store import tape as tapes
from hindsight.store.book_tables import newest_book, pivot_books
from hindsight.store.hidden_tables import read_hidden
from hindsight.store.inference_tables import predicted_until, read_references
from hindsight.store.market_tables import pivot_mark
from hindsight.store.pivot_tables import pivots_before
from hindsight.store.timings import moved_since

A_MINUTE = timedelta(minutes=1)
MOVING = timedelta(minutes=2)  # of ours: a piece of history takes less
BOOK_PATIENCE = timedelta(seconds=1.5)  # of ours, after a close, for the seconds of the book before it


def recall_blocks(
    con: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream, shape: FrameShape, first: int, end: int
) -> Blocks:
    """The blocks of the frames of references made at the closes of own rows [first, end), as known at the last one."""
    venue, step_ms = stream.venue, stream.step_ms
    span = Window(start=from_ms((first + 1) * step_ms), end=from_ms(end * step_ms))
    around = Window(start=span.start - timedelta(seconds=shape.book), end=span.end)
    return Blocks(
        shape=shape,
        tapes=[
            _tape(con, settings, block_stream, block, shape.warmup, span)
            for block_stream, block in zip(shape.streams(venue), shape.candles, strict=True)
        ],
        book=book_tapes.load(con, settings.tape_path, stream, around) if shape.book else None,
        pivots=_pivots(con, stream, shape, span) if shape.pivots else None,
        peers=[_peer(con, stream, read, first, end) for read in shape.reads],
    )


def known_until(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    shape: FrameShape,
    now: datetime | None,
    done: datetime | None = None,
) -> datetime | None:
    """The last close of `stream` of which every required stream of `shape` has said what it knows; None for none.

    A candle is asked for once the one after it could have closed. A model that another one reads is waited for; live,
    where `now` is the venue's time and the reader is done up to `done`, until it is `given_up`. So is the book, live,
    for BOOK_PATIENCE.
    """
    until: datetime | None = None
    for block_stream in shape.streams(stream.venue):
        mark = pivot_mark(con, block_stream)
        if mark is None:
            return None
        # Of a longer candle that is still forming, the last closed one is all there is to know.
        last = mark.as_of if block_stream == stream else mark.as_of + block_stream.step - timedelta(milliseconds=1)
        until = last if until is None else min(until, last)
    if shape.book and now and until:
        # Its last second is landed within a moment; of a book that is dead there is nothing to wait for.
        patience = now - BOOK_PATIENCE * settings.venue_speed
        until = min(until, max(newest_book(con, stream, patience - A_MINUTE) or patience, patience))
    for read in shape.reads:
        said = predicted_until(con, read.model, stream)
        patience = timedelta(milliseconds=read.deadline_ms)
        passed = given_up(con, settings, stream, read.model, patience, done, now)
        ready = max((each for each in (said, passed) if each is not None), default=None)
        until = min(until, ready) if until and ready else None
    return until


def given_up(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    model: str,
    patience: timedelta,
    done: datetime | None,
    now: datetime | None,
) -> datetime | None:
    """The last close at which `model` is waited for no longer by whoever is done up to `done`; None in a backfill.

    At the newest closes that is `patience` after them. Of a backlog, a model that is working through it is waited for,
    and one that has moved nowhere in MOVING is not.
    """
    if now is None:
        return None
    is_newest = done is not None and now - done < patience + 3 * stream.step
    if is_newest or not moved_since(con, stream, model, now - MOVING * settings.venue_speed):
        return now - patience
    return None


def deadline(settings: Settings, stream: Stream) -> timedelta:
    """How long after a close a model that others read may take to predict; after it they go on without."""
    return min(timedelta(seconds=settings.peer_deadline_seconds), stream.step)


def _tape(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    block: CandleBlock,
    warmup: int,
    span: Window,
) -> Tape:
    """The candles of one block, of which the last closed by the end of `span`."""
    mark, step_ms = pivot_mark(con, stream), stream.step_ms
    start_row = to_ms(span.start) // step_ms - block.length - warmup
    end_row = to_ms(span.end) // step_ms
    if mark is None or to_ms(mark.since) // step_ms >= end_row:
        return Tape(step_ms=step_ms, first_row=end_row, rows=np.empty((0, len(COLUMNS)), np.float32))
    window = Window(start=from_ms(start_row * step_ms), end=from_ms(end_row * step_ms))
    return tapes.load(con, settings.tape_path, stream, window, mark.since, span.end)


def _pivots(con: duckdb.DuckDBPyConnection, stream: Stream, shape: FrameShape, span: Window) -> PivotHistory:
    """The pivots that frames of `span` may hold, with the book beside them where it is a block."""
    found = pivots_before(con, stream, span, shape.pivots)
    first = found["confirmed_at"].min() if shape.book else None
    if not isinstance(first, datetime):
        return PivotHistory.of(found, None, stream.step_ms)
    reach = Window(start=first, end=span.end + timedelta(microseconds=1))
    return PivotHistory.of(found, pivot_books(con, stream, reach), stream.step_ms)


def _peer(con: duckdb.DuckDBPyConnection, stream: Stream, read: Read, first: int, end: int) -> Peer:
    """What a model said and knew in time at the closes of rows [first, end), and of the few before."""
    start = first - OUTPUT_AGE
    peer = Peer(
        first_row=start,
        outputs=np.full((end - start, len(OUTPUTS) - 1), np.nan, np.float32),
        hidden=np.full((end - start, read.width), np.nan, np.float32),
    )
    window = Window(start=from_ms(start * stream.step_ms), end=from_ms(end * stream.step_ms))
    states = read_hidden(con, read, stream, window)
    references = read_references(con, read.model, stream, window).join(
        states, on="made_at", how="inner", maintain_order="left"
    )
    if len(references):
        at = references["made_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1 - start
        said = predictions_of(references)
        peer.outputs[at] = np.column_stack([said[:, BUY], said[:, TREND], said[:, NEXT_HIGH]])
        blobs = b"".join(references["state"].to_list())
        peer.hidden[at] = np.frombuffer(blobs, np.float16).reshape(len(at), -1)
    return peer
