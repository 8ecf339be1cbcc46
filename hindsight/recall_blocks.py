"""Bring back the blocks that frames are gathered from, and tell how far all of them are recorded."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import duckdb
import numpy as np

from hindsight.inference.blocks import OUTPUT_AGE, OUTPUT_COLUMNS, Blocks, Peer
from hindsight.inference.frames import COLUMNS, Tape
from hindsight.inference.pivot_history import IMBALANCES, KEY, PivotHistory
from hindsight.inference.predictions import BUY, NEXT_HIGH, TREND
from hindsight.inference.records import predictions_of
from hindsight.inference.shape import CandleBlock, FrameShape, Read
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.settings import Settings
from hindsight.store import book_tapes
from hindsight.store import tape as tapes
from hindsight.store.book_tables import books_known_at, newest_book
from hindsight.store.hidden_tables import read_hidden
from hindsight.store.inference_tables import predicted_until, read_references
from hindsight.store.market_tables import pivot_mark
from hindsight.store.pivot_tables import pivots_before
from hindsight.store.timings import moved_since

T = TypeVar("T")
A_MINUTE = timedelta(minutes=1)
MOVING = timedelta(minutes=2)  # of ours: a piece of history takes less
BOOK_PATIENCE = timedelta(seconds=1.5)  # of ours, after a close, for the seconds of the book before it


@dataclass(slots=True)
class Shared:
    """What the models of one stream have in common in a call.

    What is made for one of them is given to whoever asks for the same rows of the same blocks while the market's tables
    are as they were. A live call says when it began, and which models do not come in it: nobody waits for those.
    """

    asked: object = None
    made: dict[object, Any] = field(default_factory=dict)
    began: datetime | None = None
    missing: set[str] = field(default_factory=set)

    def ask(self, asked: object) -> None:
        """Forgets all that was made for whoever asked for something else."""
        if asked != self.asked:
            self.asked, self.made = asked, {}

    def once(self, name: object, make: Callable[[], T]) -> T:
        """What `make` makes, or has made before."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @property
    def tape(self) -> Tape | None:
        """The tape of the stream, if somebody has asked for its blocks."""
        return self.made["blocks"].own if "blocks" in self.made else None


def recall_blocks(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    shape: FrameShape,
    first: int,
    end: int,
    shared: Shared | None = None,
) -> Blocks:
    """The blocks of the frames of references made at the closes of own rows [first, end), as known at the last one."""
    market, shared = replace(shape, reads=()), shared or Shared()
    shared.ask((stream, market, first, end, _state_of_market(con)))
    blocks = shared.once("blocks", lambda: _market_blocks(con, settings, stream, market, first, end))
    return replace(blocks, shape=shape, peers=[_peer(con, stream, read, first, end) for read in shape.reads])


def _market_blocks(
    con: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream, shape: FrameShape, first: int, end: int
) -> Blocks:
    """All blocks but what other models say."""
    span = Window(start=from_ms((first + 1) * stream.step_ms), end=from_ms(end * stream.step_ms))
    around = Window(start=span.start - timedelta(seconds=shape.book), end=span.end)
    return Blocks(
        shape=shape,
        tapes=[
            _tape(con, settings, block_stream, block, shape.warmup, span)
            for block_stream, block in zip(shape.streams(stream.venue), shape.candles, strict=True)
        ],
        book=book_tapes.load(con, settings.tape_path, stream, around) if shape.book else None,
        pivots=_pivots(con, stream, shape, span) if shape.pivots else None,
    )


def _state_of_market(con: duckdb.DuckDBPyConnection) -> tuple[int, ...]:
    """Counts that move with every candle, correction, pivot and new second of the book; DuckDB need not count."""
    return con.execute(
        """
        select
          (select count(*) from candles),
          (select count(*) from candle_revisions),
          (select count(*) from pivots),
          (select count(*) from order_book)
        """
    ).fetchall()[0]


def known_until(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    shape: FrameShape,
    now: datetime | None,
    done: datetime | None = None,
    shared: Shared | None = None,
) -> datetime | None:
    """The last close of `stream` of which every required stream of `shape` has said what it knows; None for none.

    A candle is asked for once the one after it could have closed. A model that another one reads is waited for; live,
    where `now` is the venue's time and the reader is done up to `done`, until it is `given_up`, with what is
    `shared` in the call; not at closes at which nobody predicts. So is the book, live, for BOOK_PATIENCE.
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
        said = _until_next(predicted_until(con, read.model, stream), stream, settings.predict_every)
        patience = timedelta(milliseconds=read.deadline_ms)
        passed = given_up(con, settings, stream, read.model, patience, done, now, shared)
        ready = max((each for each in (said, passed) if each is not None), default=None)
        until = min(until, ready) if until and ready else None
    return until


def _until_next(close: datetime | None, stream: Stream, every: int) -> datetime | None:
    """The last close before the next one after `close` at which models predict."""
    if close is None:
        return None
    done = to_ms(close) // stream.step_ms
    return from_ms((done // every * every + every - 1) * stream.step_ms)


def given_up(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    model: str,
    patience: timedelta,
    done: datetime | None,
    now: datetime | None,
    shared: Shared | None,
) -> datetime | None:
    """The last close at which `model` is waited for no longer by whoever is done up to `done`; None in a backfill.

    At the newest closes that is `patience` after them, and at once where it is missing in the call. Of a backlog, a
    model that is working through it is waited for, and one that has moved nowhere in MOVING is not. What closes while
    a call waits for what hangs is no backlog.
    """
    if now is None:
        return None
    shared, moving = shared or Shared(), MOVING * settings.venue_speed
    behind = timedelta.max if done is None else (shared.began or now) - done
    is_newest = behind < patience + 3 * stream.step
    if model in shared.missing and (is_newest or behind < moving):
        return now
    if is_newest or not moved_since(con, stream, model, now - moving):
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
    if not shape.book:
        return PivotHistory.of(found, None, stream.step_ms)
    instants = [found[name].dt.epoch("ms").to_numpy() for name in ("pivot_time", "confirmed_at")]
    known = books_known_at(con, stream, np.concatenate(instants))["imbalance"]
    beside = dict(zip(IMBALANCES, (known.head(len(found)), known.tail(len(found))), strict=True))
    return PivotHistory.of(found, found.select(KEY).with_columns(**beside), stream.step_ms)


def _peer(con: duckdb.DuckDBPyConnection, stream: Stream, read: Read, first: int, end: int) -> Peer:
    """What a model said and knew in time at the closes of rows [first, end), and of the few before."""
    start = first - OUTPUT_AGE
    peer = Peer(
        first_row=start,
        outputs=np.full((end - start, len(OUTPUT_COLUMNS) - 1), np.nan, np.float32),
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
