"""Order books from recordings: what was said on the wire, played again through the same rules as live.

Understood are the wire itself (`.gz`: lines of a receive time in ns and Binance's JSON, with the REST snapshot in line)
and level tables (`.parquet`: a row per level with `ts_ms side price size snapshot U u`, in the order of the wire).
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import polars as pl

from hindsight.errors import BookBroken
from hindsight.market.book_rows import BookSecond
from hindsight.market.book_seconds import BookSeconds
from hindsight.market.order_book import Level, OrderBook

MARGIN = 24  # bucket widths of the book that are offered, on either side


@dataclass(frozen=True, slots=True, kw_only=True)
class BookMessage:
    """One message: an update of the book, or a snapshot, of which `final_id` is the lastUpdateId."""

    is_snapshot: bool
    first_id: int
    final_id: int
    event_ms: int
    bids: list[Level] = field(default_factory=list)
    asks: list[Level] = field(default_factory=list)


def recorded_messages(path: Path) -> Iterator[BookMessage]:
    """The messages of a recording about its order book, in the order in which they came."""
    return _table(path) if path.suffix == ".parquet" else _wire(path)


def replay(book: OrderBook, messages: Iterator[BookMessage]) -> Iterator[BookMessage]:
    """Applies each message to `book`, and yields it where the book is whole after it.

    A break in the chain empties the book until the next snapshot.
    """
    for message in messages:
        try:
            if message.is_snapshot:
                book.start(message.final_id, message.bids, message.asks)
            else:
                book.apply(message.first_id, message.final_id, message.bids, message.asks, message.event_ms)
        except BookBroken:
            continue
        if book.is_whole:
            yield message


def recorded_seconds(path: Path, seconds: BookSeconds, source: str) -> Iterator[BookSecond]:
    """The rows that a recording makes: every book of it is added to `seconds` as one of `source`."""
    book = OrderBook()
    for _ in replay(book, recorded_messages(path)):
        if book.event_ms is None or book.best_bid is None or book.best_ask is None:
            continue
        margin = MARGIN * seconds.bucket_size
        bids, asks = book.bids(book.best_bid - margin), book.asks(book.best_ask + margin)
        seconds.add(source, book.event_ms, bids, asks, reach=book.reach)
        yield from seconds.rows(book.event_ms)


def _wire(path: Path) -> Iterator[BookMessage]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            message = json.loads(line.partition(" ")[2])
            if "lastUpdateId" in message:
                last = message["lastUpdateId"]
                yield BookMessage(
                    is_snapshot=True,
                    first_id=last,
                    final_id=last,
                    event_ms=0,
                    bids=message["bids"],
                    asks=message["asks"],
                )
            elif (update := message.get("data", message)).get("e") == "depthUpdate":
                yield BookMessage(
                    is_snapshot=False,
                    first_id=update["U"],
                    final_id=update["u"],
                    event_ms=update["E"],
                    bids=update["b"],
                    asks=update["a"],
                )


def _table(path: Path) -> Iterator[BookMessage]:
    columns = ["snapshot", "U", "u", "ts_ms", "side", "price", "size"]
    levels = pl.read_parquet(path, columns=columns).select(columns).iter_rows()
    for (is_snapshot, first_id, final_id, event_ms), rows in groupby(levels, key=itemgetter(0, 1, 2, 3)):
        bids: list[Level] = []
        asks: list[Level] = []
        for *_, side, price, size in rows:
            (bids if side == "bid" else asks).append((price, size))
        yield BookMessage(
            is_snapshot=is_snapshot, first_id=first_id, final_id=final_id, event_ms=event_ms, bids=bids, asks=asks
        )
