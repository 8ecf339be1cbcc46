"""The feed: one process that hears every configured market and lands what it heard, whatever becomes of the venue.

    hindsight feed

It never opens the tables. A part that is down leaves the others alone; feed.json says how each of them fares.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterable

from hindsight.errors import HomeUnwritable, SettingRefused, VenueUnavailable
from hindsight.exchange.feed import binance, connection
from hindsight.exchange.feed.books import SymbolBooks, VenueBook, book_symbol
from hindsight.exchange.feed.candles import StreamCandles
from hindsight.exchange.feed.connection import Connection
from hindsight.exchange.feed.heartbeat import write_heartbeat
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part, Times, keep_connected
from hindsight.exchange.feed.sequence import REMEMBERED
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.feed.trades import SymbolTrades
from hindsight.exchange.landing import Landing
from hindsight.exchange.packs import pack
from hindsight.exchange.segments import Row
from hindsight.market.buckets import bucket_sizes
from hindsight.settings import Settings

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.05
ASLEEP_SECONDS = 5.0  # between two ticks: the machine slept, or this process was stopped
BEAT_SECONDS, SILENCE_SECONDS, CLOCK_SECONDS, PACK_SECONDS = 1.0, 0.5, 30.0, 60.0
PACK_AFTER_MS = 900_000  # an hour is packed so long after it has ended
SEGMENTS_READ = 3000  # back from the newest, to know again what was landed


class Feed:
    """Everything that runs in one feed. Raises SettingRefused where there is no live market to hear."""

    def __init__(self, settings: Settings, times: Times, *, hears_raw: bool = True) -> None:
        self.settings, self.times, self.hears_raw = settings, times, hears_raw
        self.started_ms = times.local_ms()
        self.main = self._connect(settings.venue, *_live(settings))
        self.landing = Landing(settings.landing_path)
        self.outbox = Outbox(self.landing, self.main.clock, times)
        self.parts: dict[Part, tuple[Connection, Callable[[], None]]] = {}
        self.connections = {self.main.name: self.main}
        self.books: list[SymbolBooks] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_clock_due = False

    async def run(self, stop: asyncio.Event) -> None:
        """Feeds until `stop` is set, then lands what it has. Raises whatever ended it before."""
        self._stop = stop
        writing = self._start(self.outbox.run())
        self._start(self._tick())
        self._start(self._begin())
        try:
            await stop.wait()
        finally:
            others = [task for task in self._tasks if task is not writing]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.gather(*(each.close() for each in self.connections.values()))
            for books in self.books:
                books.give()
            self.outbox.end()
            await asyncio.gather(writing, return_exceptions=True)
            self._beat()
        if self._failure is not None:
            raise self._failure

    async def _begin(self) -> None:
        """Reaches the venue, and starts every part."""
        await self._open(self.main)
        self.main.check(self.settings.streams)
        ids = {symbol: TradeIds() for symbol in self.settings.symbols}
        known, positions = self._known(), self._positions()
        seconds: dict[str, list[StreamCandles]] = {symbol: [] for symbol in self.settings.symbols}
        for stream in self.settings.streams:
            part = self._part(str(stream), "candles", stream.symbol, self.main)
            read = binance.read_kline if self.main.hears_raw else connection.read_row
            grace_ms = int(self.settings.grace_seconds * self.settings.venue_speed * 1000)
            candles = StreamCandles(stream, self.main, self.outbox, part, ids[stream.symbol], read, grace_ms)
            candles.begin(positions.get(str(stream)), known.get(str(stream), []), self.settings.first_candles)
            if stream.timeframe == "1s":
                seconds[stream.symbol].append(candles)
            self.main.listen("candles", stream.symbol, candles.take, stream.timeframe)
            self._watch(part, self.main, candles.watch, candles.lose)
            self._start(candles.mend())
        for symbol in self.settings.symbols:
            part = self._part(symbol, "trades", symbol, self.main)
            read_trade = binance.read_trade if self.main.hears_raw else connection.read_trade_row
            prove = _each(candles.look_again for candles in seconds[symbol])
            trades = SymbolTrades(symbol, self.main, self.outbox, part, ids[symbol], read_trade, prove)
            trades.newest = self._newest_trade(symbol)
            self.main.listen("trades", symbol, trades.take)
            self._watch(part, self.main, trades.watch, trades.lose)
            self._start(trades.mend())
        if self.settings.books:
            self._begin_books()

    def _begin_books(self) -> None:
        """Starts the order books of every symbol, of the market's own venue or of `book_venues`."""
        settings = self.settings
        sizes, ages = bucket_sizes(settings.bucket_sizes), bucket_sizes(settings.book_ages)
        for symbol in settings.symbols:
            self.books.append(SymbolBooks(symbol, self.main.name, self.main.clock, self.outbox, sizes))
        for entry in settings.book_venues or (self.main.name,):
            name, _, url = entry.partition("@")
            if name not in self.connections:
                self.connections[name] = self._connect(name, name, url)
            self._start(self._begin_venue_books(self.connections[name], ages.get(name, settings.book_age_seconds)))

    async def _begin_venue_books(self, venue: Connection, age_seconds: float) -> None:
        if venue is not self.main:
            await self._open(venue)
        for books in self.books:
            stream = next(each for each in self.settings.streams if each.symbol == books.symbol)
            symbol = book_symbol(stream, venue)
            if symbol is None:
                logger.error("%s has no market for %s: its book is left out", venue.name, books.symbol)
                continue
            books.add_source(venue.name, symbol, age_seconds)
            name = books.symbol if venue is self.main else f"{books.symbol} {venue.name}"
            part = self._part(name, "order_book", symbol, venue)
            book = VenueBook(books, venue, symbol, part)
            if venue.hears_raw:
                venue.listen("order_book", symbol, book.take)
            self._watch(part, venue, book.watch, book.lose)

    async def _open(self, venue: Connection) -> None:
        failures = 0
        while True:
            try:
                return await venue.open()
            except VenueUnavailable as error:
                logger.log(logging.WARNING if not failures else logging.DEBUG, "%s", error)
                await asyncio.sleep(self.times.backoff(failures))
                failures += 1

    async def _tick(self) -> None:
        """Looks after everything that nobody says: silence, sleep, the clocks, the ends of seconds."""
        now = self.times.monotonic()
        due = dict.fromkeys((self._beat, self._restart_silent, self._sync_clocks, self._pack), now)
        every = dict(zip(due, (BEAT_SECONDS, SILENCE_SECONDS, CLOCK_SECONDS, PACK_SECONDS), strict=True))
        due[self._sync_clocks] += CLOCK_SECONDS
        while True:
            before = now
            await asyncio.sleep(TICK_SECONDS)
            now = self.times.monotonic()
            if now - before > ASLEEP_SECONDS:
                self._wake(now - before)
            for books in self.books:
                books.give()
            if self._is_clock_due:
                self._is_clock_due, due[self._sync_clocks] = False, now
            for action, at in due.items():
                if now >= at:
                    due[action] = now + every[action]
                    action()

    def _wake(self, seconds: float) -> None:
        logger.warning("asleep for %.0f s: every connection is made anew, and the time in between fetched", seconds)
        for part, (_, lose) in self.parts.items():
            part.heard_at = self.times.monotonic()
            lose()
        for venue in self.connections.values():
            venue.restart_all()
        self._is_clock_due = True

    def _restart_silent(self) -> None:
        for part, (venue, _) in self.parts.items():
            if part.is_silent(self.settings.silent_seconds):
                logger.warning(
                    "%s: silent for %.0f s, connecting anew", part.name, self.times.monotonic() - part.heard_at
                )
                part.enter("silent")
                part.heard_at = self.times.monotonic()
                venue.restart(part)

    def _sync_clocks(self) -> None:
        for venue in self.connections.values():
            if venue.exchange.markets:
                self._start(_quietly(venue.sync_clock()))

    def _pack(self) -> None:
        if self.main.clock.is_synced:
            before_ms = self.main.clock.now_ms() - PACK_AFTER_MS
            self._start(_quietly(asyncio.to_thread(pack, self.landing, before_ms)))

    def _beat(self) -> None:
        lost = {kind: count for kind, count in self.outbox.lost.items() if count}
        write_heartbeat(
            self.settings.home / "feed.json", self.started_ms, self.main.clock, self.times, self.parts, lost
        )

    def _part(self, name: str, kind: str, symbol: str, venue: Connection) -> Part:
        part = Part(f"{name} {kind}", self.times)
        venue.add_part(part, kind, symbol)
        return part

    def _watch(
        self, part: Part, venue: Connection, watch: Callable[[], Coroutine[None, None, None]], lose: Callable[[], None]
    ) -> None:
        def lost() -> None:
            lose()
            self._is_clock_due = True

        self.parts[part] = (venue, lose)
        self._start(keep_connected(part, watch, lost))

    def _start(self, work: Coroutine[None, None, object]) -> asyncio.Task[object]:
        """Runs `work` beside the rest; an error that nobody foresaw ends the feed, which is then started anew."""
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._stop.set()

    def _connect(self, name: str, ccxt_id: str, url: str) -> Connection:
        settings = self.settings
        return Connection(
            name,
            ccxt_id,
            url,
            times=self.times,
            speed=settings.venue_speed,
            silent_seconds=settings.silent_seconds,
            hears_raw=self.hears_raw,
        )

    def _positions(self) -> dict[str, int]:
        """The open time after which each stream goes on: that of its last candle stored or landed."""
        try:
            stored = json.loads((self.settings.landing_path / "resume.json").read_bytes())
        except FileNotFoundError:
            stored = {}
        found = {str(stream): self.landing.newest(str(stream)) for stream in self.settings.streams}
        both = {name: max(newest or 0, stored.get(name, 0)) for name, newest in found.items()}
        return {name: position for name, position in both.items() if position}

    def _known(self) -> dict[str, list[Row]]:
        """What was landed last of each stream, oldest first, so that a correction is told from a repeat."""
        known: dict[str, list[Row]] = {str(stream): [] for stream in self.settings.streams}
        for _, segment in zip(range(SEGMENTS_READ), self.landing.backwards("candles"), strict=False):
            for row in reversed(segment.rows):
                known.setdefault(row["stream"], []).append(row)
            if all(len(rows) >= REMEMBERED for rows in known.values()):
                break
        return {name: rows[::-1] for name, rows in known.items()}

    def _newest_trade(self, symbol: str) -> int | None:
        for _, segment in zip(range(SEGMENTS_READ // 10), self.landing.backwards("trades"), strict=False):
            ids = [row["trade_id"] for row in segment.rows if row["symbol"] == symbol]
            if numbers := [each for each in ids if isinstance(each, int)]:
                return max(numbers)
        return None


async def run_feed(settings: Settings, times: Times, stop: asyncio.Event, *, hears_raw: bool = True) -> None:
    """Feeds until `stop` is set. Raises HomeUnwritable where another feed writes to the same folder.

    `hears_raw` = False: nothing is heard but what ccxt passes on, as of venues whose own messages are not read.
    """
    settings.landing_path.mkdir(parents=True, exist_ok=True)
    with (settings.landing_path / "feed.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise HomeUnwritable(
                f"another feed, process {lock.read().strip()}, writes to {settings.landing_path}: stop that one first"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        await Feed(settings, times, hears_raw=hears_raw).run(stop)


def _live(settings: Settings) -> tuple[str, str]:
    """ccxt's name of the venue that `source` means, and where it is reached."""
    kind, _, name = settings.source.partition(":")
    if kind == "archive":
        raise SettingRefused(f"setting source = {settings.source!r}: an archive has no live market; choose ccxt:VENUE")
    if kind == "simulated" and not settings.venue_url:
        raise SettingRefused("setting venue_url is empty: start `hindsight venue`, and set it to what that prints")
    return (name if kind == "ccxt" else "binance"), settings.venue_url


def _each(calls: Iterable[Callable[[], None]]) -> Callable[[], None]:
    """One call that makes all of them."""
    listed = tuple(calls)

    def call() -> None:
        for each in listed:
            each()

    return call


async def _quietly(work: Coroutine[None, None, object]) -> None:
    """Work that may fail now, and is done again before long."""
    try:
        await work
    except (VenueUnavailable, HomeUnwritable) as error:
        logger.warning("%s", error)
