"""The feed: one process that hears every configured market and lands what it heard, whatever becomes of the venue.

    hindsight feed

It never opens the tables. A part that is down leaves the others alone; feed.json says how each of them fares.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from hindsight.errors import HomeUnwritable, SettingRefused, VenueUnavailable
from hindsight.exchange.alone import alone
from hindsight.exchange.feed import binance, connection
from hindsight.exchange.feed.beside import Beside
from hindsight.exchange.feed.books import SymbolBooks, VenueBook, book_symbol
from hindsight.exchange.feed.built import BuiltCandles
from hindsight.exchange.feed.candles import StreamCandles
from hindsight.exchange.feed.connection import Connection
from hindsight.exchange.feed.messages import HeardTrade
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part, Times, keep_connected
from hindsight.exchange.feed.refused import RefusedSegments
from hindsight.exchange.feed.resume import known_candles, newest_trade, positions
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.feed.trades import SymbolTrades
from hindsight.exchange.feed.upkeep import Upkeep, Watched
from hindsight.exchange.landing import Landing
from hindsight.market.buckets import bucket_sizes
from hindsight.market.streams import Stream
from hindsight.settings import Settings

logger = logging.getLogger(__name__)
Tell = Callable[[HeardTrade], None]
BUILT_PATIENCE = 3  # times grace_seconds, for the trades that a candle is made of


class Feed:
    """Everything that runs in one feed. Raises SettingRefused where there is no live market to hear."""

    def __init__(self, settings: Settings, times: Times, stop: asyncio.Event, *, hears_raw: bool = True) -> None:
        self.settings, self.times, self.hears_raw = settings, times, hears_raw
        self.main = self._connect(settings.venue, *_live(settings))
        self.landing = Landing(settings.landing_path)
        self.outbox = Outbox(self.landing, self.main.clock, times)
        self.upkeep = Upkeep(self.main, self.outbox, settings.home, times, settings.silent_seconds)
        self.beside = Beside(stop)

    async def run(self) -> None:
        """Feeds until `stop` is set, then lands what it has. Raises whatever ended it before."""
        writing = self.beside.start(self.outbox.run())
        self.beside.start(self.upkeep.run(self.beside))
        self.beside.start(self._begin())
        try:
            await self.beside.stop.wait()
        finally:
            await self.beside.cancel(but=writing)
            await asyncio.gather(*(each.close() for each in self.upkeep.connections.values()))
            for books in self.upkeep.books:
                books.give()
            self.outbox.end()
            await asyncio.gather(writing, return_exceptions=True)
            self.upkeep.beat()
        if self.beside.failure is not None:
            raise self.beside.failure

    async def _begin(self) -> None:
        """Reaches the venue, and starts every part."""
        await self._open(self.main)
        self.main.check(self.settings.streams)
        ids = {symbol: TradeIds() for symbol in self.settings.symbols}
        listening = self._begin_candles(ids)
        for symbol in self.settings.symbols:
            part = self._part(symbol, "trades", symbol, self.main)
            read = binance.read_trade if self.main.hears_raw else connection.read_trade_row
            trades = SymbolTrades(symbol, self.main, self.outbox, part, ids[symbol], read, _each(listening[symbol]))
            trades.newest = newest_trade(self.landing, symbol)
            self.main.listen("trades", symbol, trades.take)
            self._watch(part, trades.watch, Watched(self.main, trades.lose))
            self.beside.start(trades.mend())
        if self.settings.books:
            self._begin_books()

    def _begin_candles(self, ids: dict[str, TradeIds]) -> dict[str, list[Tell]]:
        """Starts the candles of every stream. Those for whom trades say something, by symbol."""
        settings, listening = self.settings, {symbol: list[Tell]() for symbol in self.settings.symbols}
        known, last = known_candles(self.landing, settings.streams), positions(self.landing, settings.streams)
        grace_ms = int(settings.grace_seconds * settings.venue_speed * 1000)
        read = binance.read_kline if self.main.hears_raw else connection.read_row
        fetched: dict[Stream, StreamCandles] = {}
        for stream in settings.streams:
            part = self._part(str(stream), "candles", stream.symbol, self.main)
            if not self.main.has_candles(stream):
                built = BuiltCandles(stream, self.main.clock, self.outbox, part, BUILT_PATIENCE * grace_ms)
                built.position_ms = last.get(str(stream))
                self.upkeep.made.append(part)
                listening[stream.symbol].append(built.take)
                self.beside.start(built.build())
                continue
            candles = StreamCandles(stream, self.main, self.outbox, part, ids[stream.symbol], read, grace_ms)
            candles.begin(last.get(str(stream)), known[str(stream)], settings.first_candles)
            fetched[stream] = candles
            if stream.timeframe == "1s":
                listening[stream.symbol].append(candles.look_again)
            self.main.listen("candles", stream.symbol, candles.take, stream.timeframe)
            self._watch(part, candles.watch, Watched(self.main, candles.lose, candles.is_behind))
            self.beside.start(candles.mend())
        self.upkeep.refused = RefusedSegments(self.landing, self.outbox, fetched)
        return listening

    def _begin_books(self) -> None:
        """Starts the order books of every symbol, of the market's own venue or of `book_venues`."""
        settings, connections = self.settings, self.upkeep.connections
        sizes, ages = bucket_sizes(settings.bucket_sizes), bucket_sizes(settings.book_ages)
        for symbol in settings.symbols:
            self.upkeep.books.append(SymbolBooks(symbol, self.main.name, self.main.clock, self.outbox, sizes))
        for entry in settings.book_venues or (self.main.name,):
            name, _, url = entry.partition("@")
            if name not in connections:
                connections[name] = self._connect(name, name, url)
            self.beside.start(self._begin_venue(connections[name], ages.get(name, settings.book_age_seconds)))

    async def _begin_venue(self, venue: Connection, age_seconds: float) -> None:
        """Starts one venue's order books."""
        if venue is not self.main:
            await self._open(venue)
        for books in self.upkeep.books:
            symbol = book_symbol(books.symbol, venue)
            if symbol is None:
                logger.error("%s has no market for %s: its book is left out", venue.name, books.symbol)
                continue
            name = books.symbol if venue is self.main else f"{books.symbol} {venue.name}"
            part = self._part(name, "order_book", symbol, venue)
            books.add_source(venue.name, symbol, age_seconds, part)
            book = VenueBook(books, venue, symbol, part)
            if venue.hears_raw:
                venue.listen("order_book", symbol, book.take)
            self._watch(part, book.watch, Watched(venue, book.lose))

    async def _open(self, venue: Connection) -> None:
        """Reaches a venue, however long that takes."""
        failures = 0
        while True:
            try:
                return await venue.open()
            except VenueUnavailable as error:
                logger.log(logging.WARNING if not failures else logging.DEBUG, "%s", error)
                await asyncio.sleep(self.times.backoff(failures))
                failures += 1

    def _part(self, name: str, kind: str, symbol: str, venue: Connection) -> Part:
        part = Part(f"{name} {kind}", self.times)
        venue.add_part(part, kind, symbol)
        return part

    def _watch(self, part: Part, watch: Callable[[], Awaitable[None]], watched: Watched) -> None:
        self.upkeep.parts[part] = watched
        self.beside.start(keep_connected(part, watch, lambda: self.upkeep.lost(part)))

    def _connect(self, name: str, ccxt_id: str, url: str) -> Connection:
        return Connection(
            name,
            ccxt_id,
            url,
            times=self.times,
            speed=self.settings.venue_speed,
            silent_seconds=self.settings.silent_seconds,
            hears_raw=self.hears_raw,
        )


async def run_feed(settings: Settings, times: Times, stop: asyncio.Event, *, hears_raw: bool = True) -> None:
    """Feeds until `stop` is set. Raises HomeUnwritable where another feed writes to the same folder.

    `hears_raw` = False: nothing is heard but what ccxt passes on, as of venues whose own messages are not read.
    """
    settings.landing_path.mkdir(parents=True, exist_ok=True)
    with alone(settings.landing_path / "feed.lock") as other:
        if other is not None:
            raise HomeUnwritable(
                f"another feed, process {other}, writes to {settings.landing_path}: stop that one first"
            )
        feed = Feed(settings, times, stop, hears_raw=hears_raw)
        feed.landing.clear_torn()
        await feed.run()


def _live(settings: Settings) -> tuple[str, str]:
    """ccxt's name of the venue that `source` means, and where it is reached."""
    kind, _, name = settings.source.partition(":")
    if kind == "archive":
        raise SettingRefused(f"setting source = {settings.source!r}: an archive has no live market; choose ccxt:VENUE")
    if kind == "simulated" and not settings.venue_url:
        raise SettingRefused("setting venue_url is empty: start `hindsight venue`, and set it to what that prints")
    return (name if kind == "ccxt" else "binance"), settings.venue_url


def _each(calls: Iterable[Tell]) -> Tell:
    """One call that makes all of them."""
    listed = tuple(calls)

    def call(trade: HeardTrade) -> None:
        for each in listed:
            each(trade)

    return call
