"""Ingest: what the feed has landed becomes candles, indicators, pivots and order books.

A pass takes up everything that waits, ROWS_AT_ONCE candles at a time and a few streams in one transaction, and archives
the segments after it: a kill in between has them taken up again, which changes nothing. It calls what a backfill calls,
so the tables of a stretch that was recorded live are those of a backfill of it.

Now is the venue's clock as it stands in the segments, never this machine's: what arrives late is known from then on.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl

from hindsight.errors import SegmentUnreadable
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row, Segment
from hindsight.market.book_rows import book_frame
from hindsight.market.candles import CANDLES
from hindsight.market.streams import Stream, Window, from_ms
from hindsight.record import (
    RECORD_IN_ORDER,
    confirm_pivots,
    months_reached,
    replace_indicators,
    store_candles,
    unseen_month,
)
from hindsight.store.book_tables import write_order_book
from hindsight.store.market_tables import pivot_mark
from hindsight.store.timings import note
from hindsight.store.warehouse import Warehouse

logger = logging.getLogger(__name__)
SEGMENTS_AT_ONCE = 1000
ROWS_AT_ONCE = 2000  # candles: readers wait about a tenth of a second for as many
STREAMS_AT_ONCE = 2  # in one transaction: the same
DELIVERED = pl.Schema(
    {"open_time_ms": pl.Int64}
    | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64)
    | {"known_ms": pl.Int64}
)


@dataclass(slots=True)
class Taken:
    """What one call took up of one stream. `closed` is the last close that the tables now know of."""

    candles: int = 0
    revised: int = 0
    refused: int = 0
    indicators: int = 0
    pivots: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(1, 6), 0))  # confirmed, by level
    closed: datetime | None = None

    def add(self, other: "Taken") -> None:
        """Adds what a later pass took up."""
        for name in ("candles", "revised", "refused", "indicators"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.pivots = {level: self.pivots[level] + other.pivots[level] for level in self.pivots}
        self.closed = other.closed or self.closed


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one call took up, by stream; seconds of order book by venue and symbol; and what was set aside, and why."""

    streams: dict[Stream, Taken]
    books: dict[tuple[str, str], int]
    segments: int
    set_aside: list[str]

    def and_then(self, later: "Ingested") -> "Ingested":
        """What both took up together."""
        for stream, taken in later.streams.items():
            self.streams.setdefault(stream, Taken()).add(taken)
        books = {key: self.books.get(key, 0) + later.books.get(key, 0) for key in {**self.books, **later.books}}
        return Ingested(self.streams, books, self.segments + later.segments, self.set_aside + later.set_aside)


def ingest(warehouse: Warehouse, landing: Landing, clock: Callable[[], datetime], *, max_gap: int) -> Ingested:
    """Takes up every segment that waits. Doing it again changes nothing; what cannot be read is set aside.

    `clock` is the venue's, and read only to note how long after its close a candle was stored.
    """
    streams: dict[Stream, Taken] = {}
    books: dict[tuple[str, str], int] = {}
    set_aside: list[str] = []
    count = 0
    for segments in _passes(landing, set_aside):
        candles, seconds = _by_stream(segments), _book_seconds(segments)
        if candles or len(seconds):
            now = from_ms(max(segment.venue_ms for _, segment in segments))
            left, books_left = list(candles), seconds
            while left or len(books_left):
                with warehouse.writing() as con:
                    write_order_book(con, books_left)
                    for stream in left[:STREAMS_AT_ONCE]:
                        taken, closes = record_delivered(con, stream, candles[stream], now, max_gap=max_gap)
                        streams.setdefault(stream, Taken()).add(taken)
                        note(con, stream, "", "stored", closes, clock())
                left, books_left = left[STREAMS_AT_ONCE:], books_left.clear()
            for venue, symbol, rows in seconds.group_by("venue", "symbol").len().iter_rows():
                books[venue, symbol] = books.get((venue, symbol), 0) + rows
        for path, _ in segments:
            landing.archive(path)
        count += len(segments)
    return Ingested(streams=streams, books=books, segments=count, set_aside=set_aside)


def record_delivered(
    con: duckdb.DuckDBPyConnection, stream: Stream, batch: pl.DataFrame, now: datetime, *, max_gap: int
) -> tuple[Taken, list[datetime]]:
    """Brings candles, indicators and pivots of one stream to where a batch of deliveries (columns of CANDLES) ends.

    Beside what was taken up stand the closes that are new, none for the history that a new stream starts with.
    """
    before = pivot_mark(con, stream)
    if before is not None:
        batch = _without_older(batch, stream, before.since)
    written, refused = store_candles(con, stream, batch, now)
    taken = Taken(candles=written.inserted, revised=written.revised, refused=refused)
    if written.span is None:  # a correction reaches the indicators with the candle that closes next, as in a backfill
        return taken, []
    # From where the tables stood: corrections that came since then reach further back than the new candles.
    start = written.span.start if before is None else min(before.as_of, written.span.start)
    for month in months_reached(con, stream, Window(start=start, end=max(start, written.span.end))):
        taken.indicators += replace_indicators(con, stream, month)
    mark = before
    while (month := unseen_month(con, stream, mark, written.span.end)) is not None:
        pivots, mark = confirm_pivots(con, stream, mark, month, max_gap)
        for level, found in pivots["level"].value_counts().iter_rows():
            taken.pivots[level] += found
    taken.closed = mark.as_of if mark else None
    is_new = (pl.col("revision") == 0) & (pl.col("open_time") >= before.as_of) if before else pl.lit(False)
    return taken, (batch.filter(is_new)["open_time"] + stream.step).to_list()


def _without_older(batch: pl.DataFrame, stream: Stream, since: datetime) -> pl.DataFrame:
    """The batch without candles from before the recorded history: pivots are never found again."""
    is_older = pl.col("open_time") < since
    older = batch.filter(is_older)["open_time"]
    if len(older):
        logger.error(
            "%s [%s, %s]: %d candles from before the recorded history, which begins at %s, were left out. %s",
            stream, older.min(), older.max(), len(older), since, RECORD_IN_ORDER,
        )  # fmt: skip
    return batch.filter(~is_older)


def _passes(landing: Landing, set_aside: list[str]) -> Iterator[list[tuple[Path, Segment]]]:
    """The readable segments in the order they landed, ROWS_AT_ONCE rows and a bit together."""
    together: list[tuple[Path, Segment]] = []
    rows = 0
    for path in landing.segments():
        try:
            together.append((path, _readable(landing, path)))
        except SegmentUnreadable as unreadable:
            logger.error("set aside: %s", unreadable)
            landing.refuse(path, str(unreadable))
            set_aside.append(str(unreadable))
            continue
        except FileNotFoundError:  # another run has taken it up meanwhile
            continue
        except OSError as error:  # the file may be whole: it stays, and is tried again
            logger.warning("segment %s cannot be read now: %s", path.name, error)
            continue
        segment = together[-1][1]
        rows += len(segment.rows) if segment.kind != "trades" else 0
        if rows >= ROWS_AT_ONCE or len(together) >= SEGMENTS_AT_ONCE:
            yield together
            together, rows = [], 0
    if together:
        yield together


def _readable(landing: Landing, path: Path) -> Segment:
    """The segment at `path`. Raises SegmentUnreadable also where a row says what no table could hold."""
    segment = landing.read(path)
    try:
        if segment.kind == "order_book":
            book_frame(segment.rows)
        if segment.kind == "candles":
            for name in {row["stream"] for row in segment.rows}:
                Stream.parse(name)
    except ValueError as error:
        raise SegmentUnreadable(f"segment {path.name}: {error}") from error
    return segment


def _book_seconds(segments: list[tuple[Path, Segment]]) -> pl.DataFrame:
    return book_frame([row for _, segment in segments if segment.kind == "order_book" for row in segment.rows])


def _by_stream(segments: list[tuple[Path, Segment]]) -> dict[Stream, pl.DataFrame]:
    rows: dict[str, list[Row]] = {}
    for _, segment in segments:
        for row in segment.rows if segment.kind == "candles" else ():
            rows.setdefault(row["stream"], []).append(row)
    return {Stream.parse(name): _delivered(of_stream, Stream.parse(name)) for name, of_stream in rows.items()}


def _delivered(rows: list[Row], stream: Stream) -> pl.DataFrame:
    """Rows of segments in the columns of CANDLES; corrections of one candle are numbered as they come."""
    frame = pl.DataFrame(rows, schema=DELIVERED).unique(maintain_order=True)
    is_correction = pl.col("known_ms").is_not_null()
    return (
        frame.with_columns(
            open_time=pl.from_epoch("open_time_ms", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            revision=is_correction.cum_sum().over("open_time_ms").cast(pl.Int32) * is_correction,
        )
        .with_columns(
            recorded_at=pl.when(is_correction)
            .then(pl.from_epoch("known_ms", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
            .otherwise(pl.col("open_time") + stream.step)
        )
        .select(CANDLES.names())
        .cast(CANDLES)
    )
