"""One venue as the feed reaches it: sockets and REST of one ccxt client, the venue's clock, and its wish to be left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import ccxt
import ccxt.pro

from hindsight.errors import AnswerUnreadable, MessageRefused, SettingRefused, VenueUnavailable
from hindsight.exchange.ccxt_urls import binance_urls
from hindsight.exchange.feed import messages
from hindsight.exchange.feed.binance import ListeningBinance
from hindsight.exchange.feed.built import LONGEST_STEP_MS
from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.listening import Listening
from hindsight.exchange.feed.messages import HeardCandle, HeardTrade, Page
from hindsight.exchange.feed.part import Part, Times
from hindsight.exchange.feed.reasons import Reason
from hindsight.market.streams import Stream

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
Refuse = Callable[[MessageRefused, object], None]
PAGE = 1000  # candles or trades in an answer
LEVELS = 5000  # of an order book, on each side: as many as Binance shows
REST_TIMEOUT_MS = 10_000
LONGEST_ROUND_TRIP = 1.0  # seconds; a slower answer says too little about the time
CLOCK_QUESTIONS = 4  # in a row, until two answers agree
CLOSING_SECONDS = 3.0
# What ccxt's venues call the things that they are subscribed to.
WORDS = {"candles": ("ohlcv", "kline", "candle"), "trades": ("trade",), "order_book": ("book", "depth")}


class Connection:
    """A venue named `name` in streams, reached through ccxt's `ccxt_id`, at `url` if that is not empty."""

    def __init__(
        self,
        name: str,
        ccxt_id: str,
        url: str,
        *,
        times: Times,
        speed: float,
        silent_seconds: float,
        hears_raw: bool = True,
    ) -> None:
        """`hears_raw` = False: nothing is heard but what ccxt passes on, as of venues whose messages are not read."""
        base = getattr(ccxt.pro, ccxt_id, None)
        if base is None:
            raise SettingRefused(
                f"ccxt.pro has no streams of {ccxt_id!r}: choose a venue of {', '.join(ccxt.pro.exchanges)}"
            )
        is_binance = issubclass(base, ccxt.pro.binance)
        if url and not is_binance:
            raise SettingRefused(f"only Binance can be reached at another address, found {ccxt_id} at {url}")
        config: dict[str, Any] = {
            "enableRateLimit": True,
            "timeout": REST_TIMEOUT_MS,
            "streaming": {"keepAlive": int(silent_seconds * 1000)},
        }
        config |= binance_urls(url) if url else {"options": {"fetchMarkets": {"types": ["spot"]}} if is_binance else {}}
        # What ccxt keeps of what it heard: read at once, so next to nothing is needed.
        config["options"] = {**config["options"], "OHLCVLimit": 50, "tradesLimit": PAGE, "watchOrderBookLimit": LEVELS}
        hook = ListeningBinance if is_binance and hears_raw else Listening
        self.exchange: Any = type(f"{hook.__name__}To{ccxt_id}", (hook, base), {})(config)
        self.clock = VenueClock(times.monotonic, speed)
        self.exchange.setup_ears(self.clock.latest_ms, self._stay_away, self._refuse)
        self.name, self.times, self.hears_raw = name, times, is_binance and hears_raw
        self.parts: dict[Part, tuple[str, str]] = {}  # kind and symbol of each
        self._away_until = 0.0

    def add_part(self, part: Part, kind: str, symbol: str) -> None:
        """Makes a part known, so that messages that say nothing of themselves are counted somewhere."""
        self.parts[part] = (kind, symbol)

    @property
    def is_clock_doubted(self) -> bool:
        """Whether something that a part was told since the clock was read would have come from the future."""
        return any(part.is_clock_doubted for part in self.parts)

    async def open(self) -> None:
        """Loads the venue's markets and reads its clock. Raises VenueUnavailable."""
        await self.ask(lambda: self.exchange.load_markets(True))  # not those of an answer before that were none
        if not self.exchange.markets:
            raise AnswerUnreadable(f"{self.name} answered with no markets at all")
        await self.sync_clock()

    def check(self, streams: Iterable[Stream]) -> None:
        """Raises SettingRefused for a symbol that the venue does not have, or candles that nobody can make."""
        for stream in streams:
            if stream.symbol not in self.exchange.markets:
                raise SettingRefused(f"setting symbols: {self.name} has no market {stream.symbol}")
            if not self.has_candles(stream) and stream.step_ms > LONGEST_STEP_MS:
                offered = ", ".join(self.exchange.timeframes or ()) if self.exchange.has.get("watchOHLCV") else ""
                raise SettingRefused(
                    f"setting timeframes: {self.name} streams no candles of {stream.timeframe} for {stream.symbol}, "
                    f"but of {offered or 'none'}; those of a minute and less can be made from its trades"
                )

    def has_candles(self, stream: Stream) -> bool:
        """Whether the venue streams candles of that length; if not, they are made from trades."""
        exchange = self.exchange
        return bool(exchange.has.get("watchOHLCV")) and stream.timeframe in (exchange.timeframes or ())

    def listen(self, kind: str, symbol: str, ear: Callable[[Any], None], timeframe: str | None = None) -> None:
        """Has every message of that kind brought to `ear`."""
        market_id = self.exchange.market(symbol)["id"]
        self.exchange.symbols_by_id[market_id] = symbol
        interval = None if timeframe is None else self.exchange.timeframes[timeframe]
        self.exchange.ears[(kind, market_id) if interval is None else (kind, market_id, interval)] = ear

    async def ask(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """REST's answer, asked for once the venue can stand it. Raises VenueUnavailable."""
        while (seconds := self._away_until - self.times.monotonic()) > 0:
            await asyncio.sleep(seconds)
        try:
            return await call()
        except ccxt.BaseError as error:
            raise VenueUnavailable(f"{self.name} did not answer: {type(error).__name__}: {str(error)[:300]}") from error
        except Exception as error:  # whatever ccxt stumbles over in an answer
            raise AnswerUnreadable(
                f"{self.name} answered what cannot be read: {type(error).__name__}: {str(error)[:300]}"
            ) from error

    async def sync_clock(self) -> None:
        """Reads the venue's clock, or this machine's where the venue shows none. Raises VenueUnavailable."""
        for part in self.parts:
            part.is_clock_doubted = False
        was_synced = self.clock.is_synced
        for asked in range(1, CLOCK_QUESTIONS + 1):
            asked_at = self.times.monotonic()
            venue_ms = await self.ask(self._show_time)
            answered_at = self.times.monotonic()
            if type(venue_ms) is not int or venue_ms < messages.PAST_MS:
                raise AnswerUnreadable(f"{self.name} told a time that is none: {str(venue_ms)[:300]}")
            if was_synced and answered_at - asked_at > LONGEST_ROUND_TRIP:
                return
            off_ms = venue_ms - self.clock.now_ms()
            if self.clock.sync(venue_ms, asked_at, answered_at):
                return
            if (was_synced or asked > 1) and asked < CLOCK_QUESTIONS:  # the very first has nothing to be held against
                logger.warning("%s: told a time %d ms off its own: asked once more", self.name, off_ms)
        raise AnswerUnreadable(f"{self.name} told {CLOCK_QUESTIONS} different times: none of them is believed")

    async def _show_time(self) -> object:
        return await self.exchange.fetch_time() if self.exchange.has["fetchTime"] else self.times.local_ms()

    async def candles(self, stream: Stream, since_ms: int, refuse: Refuse) -> Page[HeardCandle]:
        """Candles that open at or after `since_ms`, in order, the forming one last. Raises VenueUnavailable."""
        ask = self.exchange.fetch_ohlcv
        rows = await self._rows(lambda: ask(stream.symbol, stream.timeframe, since=since_ms, limit=PAGE), refuse)
        found: dict[int, HeardCandle] = {}
        is_whole = True
        for row in rows:
            try:
                candle = read_row(row, stream.step_ms, self.clock.farthest_ms())
                if candle.open_time_ms >= since_ms:
                    found[candle.open_time_ms] = candle
            except MessageRefused as refused:
                refuse(refused, row)
                is_whole = False
        times = (row[0] for row in rows if isinstance(row, list | tuple) and row)
        last_ms = messages.last_instant(times, self.clock.farthest_ms())
        more_ms = last_ms + stream.step_ms if len(rows) >= PAGE and last_ms is not None else None
        return Page(rows=[found[opened] for opened in sorted(found)], is_whole=is_whole, more_ms=more_ms)

    async def last_trades(self, symbol: str, refuse: Refuse) -> list[HeardTrade]:
        """The newest trades, with the ids that the socket gives them. Raises VenueUnavailable."""
        own_ids = {"fetchTradesMethod": "publicGetTrades"} if self.hears_raw else {}
        rows = await self._rows(lambda: self.exchange.fetch_trades(symbol, limit=PAGE, params=own_ids), refuse)
        found: list[HeardTrade] = []
        for row in rows:
            try:
                found.append(read_trade_row(row, self.clock.latest_ms()))
            except MessageRefused as refused:
                refuse(refused, row)
        return found

    async def trades_since(self, symbol: str, since_ms: int, refuse: Refuse) -> Page[tuple[int, HeardTrade]]:
        """A page of trades from `since_ms` on, by time, each with the first id that it stands for; its own is the last.

        Binance adds up what one order traded at one price. Only trades with ids that count. Raises VenueUnavailable.
        """
        rows = await self._rows(lambda: self.exchange.fetch_trades(symbol, since=since_ms, limit=PAGE), refuse)
        found: list[tuple[int, HeardTrade]] = []
        is_whole = True
        for row in rows:
            try:
                trade = read_trade_row(row, self.clock.latest_ms())
                told = row["info"] if self.hears_raw else {}
                first, last = (messages.trade_id(told.get(name, row["id"])) for name in ("f", "l"))
                if isinstance(first, int) and isinstance(last, int):
                    found.append((first, replace(trade, trade_id=last)))
            except MessageRefused as refused:
                refuse(refused, row)
                is_whole = False
        times = (row.get("timestamp") for row in rows if isinstance(row, dict))
        more_ms = messages.last_instant(times, self.clock.latest_ms()) if len(rows) >= PAGE else None
        found.sort(key=lambda each: each[1].time_ms)
        return Page(rows=found, is_whole=is_whole, more_ms=more_ms)

    async def _rows(self, call: Callable[[], Awaitable[Any]], refuse: Refuse) -> list[Any]:
        """The rows that REST answers with; an answer that is none is refused, too. Raises VenueUnavailable."""
        try:
            rows = await self.ask(call)
        except AnswerUnreadable as error:
            refuse(MessageRefused("an answer that ccxt cannot read", Reason.UNREADABLE), str(error))
            raise
        if not isinstance(rows, list):
            refuse(MessageRefused("an answer that is no list", Reason.UNREADABLE), rows)
            raise AnswerUnreadable(f"{self.name} answered with no list of rows: {str(rows)[:300]}")
        return rows

    def restart(self, part: Part) -> None:
        """Ends the sockets that bring a part's messages: whoever watches them hears of it and connects anew."""
        kind, symbol = self.parts[part]
        names = (symbol.lower(), str(self.exchange.market(symbol)["id"]).lower())
        clients = [client for client in self.exchange.clients.values() if client.isConnected]
        bring = []
        for client in clients:
            keys = [str(key).lower() for key in client.subscriptions]
            if any(word in key and any(name in key for name in names) for key in keys for word in WORDS[kind]):
                bring.append(client)
        self._end(bring or clients)

    def restart_all(self) -> None:
        """Ends every socket."""
        self._end([client for client in self.exchange.clients.values() if client.isConnected])

    async def close(self) -> None:
        """Ends every socket, politely where the other side still answers."""
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self.exchange.close()
        except TimeoutError:
            logger.warning("%s: did not close its connections within %d s", self.name, CLOSING_SECONDS)
            # A session that could not be closed politely still has to let go of its sockets.
            session, self.exchange.session = self.exchange.session, None
            if session is not None:
                await session.close()
            await self.exchange.close_connector()

    def _end(self, clients: list[Any]) -> None:
        for client in clients:
            client.on_error(ccxt.NetworkError(f"{self.name}: ended from here"))

    def _stay_away(self, seconds: float, status: int, address: str) -> None:
        until = self.times.monotonic() + seconds
        if until > self._away_until + 1:
            logger.warning(
                "%s: answered %d to %s; nothing is asked for the %g seconds that it wants",
                self.name,
                status,
                address.partition("?")[0],
                seconds,
            )
        self._away_until = max(self._away_until, until)

    def _refuse(self, subscriptions: list[str], refused: MessageRefused, message: object) -> None:
        """Counts a message that does not say whose it is: with the first part that the connection brings."""
        keys = " ".join(map(str, subscriptions)).lower()
        for part, (kind, symbol) in self.parts.items():
            if symbol.lower() in keys and any(word in keys for word in WORDS[kind]):
                part.refuse(refused, message)
                return
        next(iter(self.parts)).refuse(refused, message)


def read_row(row: Any, step_ms: int, latest_ms: int) -> HeardCandle:
    """The candle in one of ccxt's rows. Raises MessageRefused."""
    if not isinstance(row, list | tuple) or len(row) < 6:
        raise MessageRefused("no row of six", Reason.UNREADABLE)
    return messages.candle(row[0], (row[1], row[2], row[3], row[4], row[5]), step_ms=step_ms, latest_ms=latest_ms)


def read_trade_row(row: Any, latest_ms: int) -> HeardTrade:
    """The trade in one of ccxt's. Raises MessageRefused."""
    if not isinstance(row, dict):
        raise MessageRefused("no trade", Reason.UNREADABLE)
    return messages.trade(
        row.get("id"), row.get("timestamp"), row.get("price"), row.get("amount"), row.get("side"), latest_ms=latest_ms
    )
