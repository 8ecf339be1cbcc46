"""A market made of days of seconds: candles, trades and a made-up order book that agree with each other."""

from collections.abc import Iterator, Mapping

from hindsight.exchange.venue.book import TICK_MS, SyntheticBook
from hindsight.exchange.venue.kept_days import KeptDays
from hindsight.exchange.venue.market import Book, Event, Kline, Listing, NotListed, Pace, Trade
from hindsight.exchange.venue.seconds import MINUTE_MS, DaySource
from hindsight.exchange.venue.seconds_book import SecondsBook
from hindsight.exchange.venue.seconds_candles import kline_events, klines
from hindsight.exchange.venue.seconds_trades import trade_events, trades

SLOW_BOOK_TICKS = 10  # @depth without a pace of its own comes once a second


class SecondsMarket:
    """Serves what a DaySource knows. `books` holds the making of each symbol's order book."""

    def __init__(self, source: DaySource, books: dict[str, SyntheticBook]) -> None:
        self.listings: Mapping[str, Listing] = source.listings
        self.timeframes: Mapping[str, int] = source.timeframes
        self.opening_ms = source.opening_ms
        self._kept = KeptDays(source)
        self._books = {id_: SecondsBook(self._kept, source.listings[id_], made_up) for id_, made_up in books.items()}

    def start_ms(self, present_ms: int) -> int:
        return self._kept.source.start_ms(present_ms)

    def klines(self, symbol: str, timeframe: str, first_ms: int, last_ms: int, now_ms: int) -> list[Kline]:
        return klines(self._kept, self._kept.listing(symbol), timeframe, first_ms, last_ms, now_ms)

    def trades(self, symbol: str, first_ms: int, last_ms: int, now_ms: int) -> list[Trade]:
        return trades(self._kept, self._kept.listing(symbol), first_ms, last_ms, now_ms)

    def time_of_trade(self, symbol: str, trade_id: int) -> int:
        return self._kept.source.minute_of_trade(self._kept.listing(symbol).id, trade_id) * MINUTE_MS

    def book(self, symbol: str, now_ms: int, limit: int) -> Book:
        return self._books[self._kept.listing(symbol).id].snapshot(now_ms, limit)

    def events(self, symbol: str, channel: str, since_ms: int, pace: Pace) -> Iterator[Event]:
        listing, step = self._kept.listing(symbol), pace.depth_ms // TICK_MS
        kind, _, timeframe = channel.partition("_")
        if channel in ("trade", "aggTrade"):
            return trade_events(self._kept, listing, since_ms, is_aggregate=channel == "aggTrade")
        if channel == "bookTicker":
            return self._books[symbol].ticker_events(since_ms, step)
        if channel in ("depth", "depth@1000ms", "depth@100ms"):
            return self._books[symbol].depth_events(
                since_ms, step if channel.endswith("@100ms") else max(step, SLOW_BOOK_TICKS)
            )
        if kind == "kline" and timeframe in self.timeframes:
            return kline_events(self._kept, listing, timeframe, since_ms, pace)
        raise NotListed(f"{symbol.lower()}@{channel}: no such stream")
