"""What a venue serves: one protocol for simulated and recorded markets.

A market is asked about instants of the venue's clock and keeps nothing of what was played: whatever it is asked twice,
it makes twice. Numbers are texts, as on the wire; a text reads back as exactly the number that was recorded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

Message = dict[str, object]  # one message of a stream, ready to be written as JSON


class NotListed(LookupError):
    """A stream or symbol was asked for that this market does not have; the venue says so to whoever asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One symbol and its finest steps: prices count in 10 ** -price_decimals, amounts in `amount_unit` of theirs."""

    symbol: str
    price_decimals: int
    amount_decimals: int
    amount_unit: int = 1

    @property
    def id(self) -> str:
        return self.symbol.replace("/", "")

    def price(self, ticks: int) -> str:
        return fixed(int(ticks), self.price_decimals)

    def amount(self, units: int) -> str:
        return fixed(int(units) * self.amount_unit, self.amount_decimals)


@dataclass(frozen=True, slots=True)
class Kline:
    """One candle as the venue shows it, with numbers as texts."""

    open_ms: int
    close_ms: int  # of the next candle's opening; the wire shows one millisecond less
    open: str
    high: str
    low: str
    close: str
    volume: str


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade; a late one is known some time after it happened."""

    trade_id: int
    time_ms: int
    known_ms: int
    price: str
    amount: str
    is_buyer_maker: bool


@dataclass(frozen=True, slots=True)
class Book:
    """Levels of an order book, best first, as of one update id. In a difference, an amount of zero removes."""

    last_update_id: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Event:
    """A message of a stream and the instant at which the venue sends it."""

    at_ms: int
    message: Message
    is_forming: bool = False  # of a candle still open: soon outdated by the next one, so that one may be left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Distances in venue time between messages that say the same thing with newer numbers."""

    kline_ms: int
    first_kline_ms: int | None  # after an opening; None: the next close says it as soon
    depth_ms: int

    @classmethod
    def at(cls, speed: float, timeframe_ms: int = 60_000) -> "Pace":
        """Binance's own pace, or as much slower as keeps a fast clock at 10 candles and 60 books a second of ours."""
        usual = 1000 if timeframe_ms == 1000 else 2000
        return cls(
            kline_ms=max(usual, int(100 * speed)),
            first_kline_ms=100 if timeframe_ms >= 50 * speed else None,
            depth_ms=max(100, 100 * round(speed / 6)),
        )


class Market(Protocol):
    """A market that a venue serves. Symbols are Binance's ids (ETHUSDT); unknown ones raise NotListed."""

    listings: Mapping[str, Listing]
    timeframes: Mapping[str, int]  # milliseconds by name
    opening_ms: int  # nothing happened before

    def start_ms(self, present_ms: int) -> int:
        """Where the venue's clock starts unless it is told: at this machine's present, or where a recording begins."""
        ...

    def klines(self, symbol: str, timeframe: str, first_ms: int, last_ms: int, now_ms: int) -> list[Kline]:
        """Candles that open in [first, last] as they stand at `now`, oldest first; the forming one may be the last.

        The two bounds lie in one UTC day, so that no answer takes long.
        """
        ...

    def trades(self, symbol: str, first_ms: int, last_ms: int, now_ms: int) -> list[Trade]:
        """Trades of [first, last] that are known at `now`, by id; the two bounds lie within an hour."""
        ...

    def time_of_trade(self, symbol: str, trade_id: int) -> int:
        """A moment at or before the trade and after most trades before it, in milliseconds."""
        ...

    def book(self, symbol: str, now_ms: int, limit: int) -> Book:
        """The best `limit` levels of each side."""
        ...

    def events(self, symbol: str, channel: str, since_ms: int, pace: Pace) -> Iterator[Event]:
        """The messages of `<symbol>@<channel>` from `since` on, in order of their instants.

        A channel is kline_<timeframe>, trade, aggTrade, depth, depth@100ms or bookTicker.
        """
        ...


def fixed(value: int, decimals: int) -> str:
    """`value` * 10 ** -decimals, written out."""
    if not decimals:
        return str(value)
    digits = f"{value:0{decimals + 1}d}"
    return f"{digits[:-decimals]}.{digits[-decimals:]}"
