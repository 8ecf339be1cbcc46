"""The order books of one symbol, from one venue or several, into one row a second."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hindsight.errors import MessageRefused
from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.connection import LEVELS, Connection
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part
from hindsight.exchange.feed.reasons import Reason
from hindsight.market.book_seconds import BookSeconds, BookSource
from hindsight.market.buckets import SIDE, bucket_size, quote_of, usd_per

UNDER_WAY_SECONDS = 1.0  # of ours, until a second is given without a venue that has said nothing since it ended
REACH_BUCKETS = SIDE + 10  # that are looked at, on either side of the best price
SNAPSHOT_SECONDS, LEAST_SNAPSHOT_SECONDS = 3600.0, 60.0  # a book is known less and less far as the price moves
UNREACHED_ROWS = 10
CROSSED_SECONDS = 1.0  # a book that stays crossed has an order in it that is long gone


class SymbolBooks:
    """Gathers the books of `symbol` for the rows of `venue`; `clock` is that venue's."""

    def __init__(self, symbol: str, venue: str, clock: VenueClock, outbox: Outbox, sizes: Mapping[str, float]) -> None:
        self.symbol, self.venue, self.clock, self.outbox, self.sizes = symbol, venue, clock, outbox, sizes
        self.sources: dict[str, BookSource] = {}
        self.parts: dict[str, Part] = {}  # of the same names
        self._counted = Counter[tuple[str, Reason]]()
        self.unreached = 0  # rows in a row that a book did not reach the far buckets of
        self._seconds: BookSeconds | None = None
        self._newest: dict[str, int] = {}
        self._given_ms = 0

    def add_source(self, name: str, symbol: str, age_seconds: float, part: Part) -> None:
        """Makes a venue known whose books count. Raises SettingRefused for one with an unknown quote currency."""
        usd = usd_per(quote_of(symbol))
        self.sources[name] = BookSource(name=name, age_limit_ms=int(age_seconds * 1000), quote_to_usd=usd)
        self.parts[name] = part
        self._seconds = None  # made anew with the next book, of every venue known by then

    def take(self, name: str, event_ms: int, book: Any, *, is_fresh: bool, latest_ms: int) -> str | None:
        """Takes in a venue's book; the reason where it is refused."""
        bids, asks = book["bids"], book["asks"]
        if not bids or not asks:
            return Reason.EMPTY
        middle = (bids[0][0] + asks[0][0]) / 2
        size = bucket_size(self.symbol, middle, self.sizes) if self._seconds is None else self._seconds.bucket_size
        if self._seconds is None:
            self._seconds = BookSeconds(
                symbol=self.symbol,
                venue=self.venue,
                bucket_size=size,
                sources=self.sources.values(),
                quote_to_usd=usd_per(quote_of(self.symbol)),
            )
            self._counted.clear()
        if not is_fresh:  # then all of it is read, to see how deep it is known
            reach = REACH_BUCKETS * size
            bids, asks = _down_to(bids, middle - reach), _up_to(asks, middle + reach)
        reason = self._seconds.add(name, event_ms, bids, asks, is_fresh=is_fresh, latest_ms=latest_ms)
        if reason is None:
            self._newest[name] = event_ms
            self._give(min(self._newest[each] for each in self._newest if self._is_live(each, event_ms)))
        return reason

    def _is_live(self, name: str, now_ms: int) -> bool:
        return now_ms - self._newest[name] <= self.sources[name].age_limit_ms

    def give(self) -> None:
        """Lands the seconds that have ended, whether or not every venue has said something since."""
        self._give(self.clock.now_ms() - int(UNDER_WAY_SECONDS * self.clock.speed * 1000))

    def _give(self, until_ms: int) -> None:
        until_ms = min(until_ms, self.clock.now_ms())  # a stamp that is ahead ends no second
        if self._seconds is None or until_ms // 1000 <= self._given_ms // 1000:
            return
        self._given_ms = until_ms
        rows = self._seconds.rows(until_ms)
        for row in rows:
            self.unreached = self.unreached + 1 if None in row.amounts else 0
        self.outbox.add("order_book", [row.landed() for row in rows])
        self._count(self._seconds)

    def _count(self, seconds: BookSeconds) -> None:
        """Has the parts show what no message was refused for: seconds without a living book, books that were late."""
        for name, part in self.parts.items():
            told = {Reason.STALE: seconds.refused[name][Reason.STALE], Reason.LATE: seconds.late[name]}
            for reason, count in told.items():
                if more := count - self._counted[name, reason]:
                    part.refused[reason] += more
                    self._counted[name, reason] = count


class VenueBook:
    """One venue's order book of one symbol, on its way into SymbolBooks. `symbol` is the venue's own."""

    def __init__(self, books: SymbolBooks, connection: Connection, symbol: str, part: Part) -> None:
        self.books, self.connection, self.symbol, self.part = books, connection, symbol, part
        self._is_fresh = True
        self._fresh_at = 0.0

    def take(self, book: Any) -> None:
        """Takes in the book as it stands after a message."""
        exchange, part, now = self.connection.exchange, self.part, self.part.times.monotonic()
        clock = self.connection.clock
        part.heard()
        if self.symbol in exchange.fresh_books:
            exchange.fresh_books.discard(self.symbol)
            self._is_fresh = True
        if self._is_fresh:
            book.limit()
            self._fresh_at = now
        event_ms = book["timestamp"]
        if type(event_ms) is not int:
            event_ms = clock.now_ms()  # the venue does not say
        name, latest_ms = self.connection.name, clock.farthest_ms()
        reason = self.books.take(name, event_ms, book, is_fresh=self._is_fresh, latest_ms=latest_ms)
        if reason is None:
            self._is_fresh = False
        else:
            part.refuse(
                MessageRefused(reason, reason),
                f"best bid {book['bids'][:1]}, best ask {book['asks'][:1]} at {event_ms}",
            )
        age = now - self._fresh_at
        is_short = self.books.unreached > UNREACHED_ROWS and age > LEAST_SNAPSHOT_SECONDS
        if age > SNAPSHOT_SECONDS or is_short or (reason == "crossed" and age > CROSSED_SECONDS):
            self._fresh_at = now
            exchange.take_snapshot(self.symbol)

    async def watch(self) -> None:
        """Hears the socket until it brings something, or is lost."""
        book = await self.connection.exchange.watch_order_book(self.symbol, LEVELS)
        if not self.connection.hears_raw:
            self.take(book)

    def lose(self) -> None:
        """The socket is gone; the next book is a new one."""
        self._is_fresh = True


def book_symbol(symbol: str, connection: Connection) -> str | None:
    """The venue's market for a symbol: the same, else the same against another dollar; None if it has none."""
    base, quote = symbol.partition(":")[0].split("/")
    names = [f"{base}/{each}" for each in (quote, "USD", "USDC", "USDT")]
    return next((name for name in names if name in connection.exchange.markets), None)


def _down_to(bids: list[list[float]], price: float) -> list[list[float]]:
    index = getattr(bids, "_index", None)  # ccxt's, negative prices
    return bids[: bisect_right(index, -price)] or bids[:1] if index is not None else bids


def _up_to(asks: list[list[float]], price: float) -> list[list[float]]:
    index = getattr(asks, "_index", None)
    return asks[: bisect_right(index, price)] or asks[:1] if index is not None else asks
