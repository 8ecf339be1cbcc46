"""A recorded session as a market: messages as they were sent, at their own event times, and what follows from them.

    session_market(Path("../shared/data/messages/binance_spot_recording"), ("BTC/USDT", "ETH/USDT"))

Trades, depth and best prices are the recorded ones. Candles are added up from the trades: a second without one is
quiet, for trade ids have no hole. A candle that opened before the recording is never shown. The order book that REST
shows is the recorded snapshot with everything applied that came since.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hindsight.errors import SettingRefused
from hindsight.exchange.venue.market import Book, Event, Listing, NotListed, Pace
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.session_book import SessionBook
from hindsight.exchange.venue.session_days import DECIMALS, SessionDays
from hindsight.exchange.venue.session_files import DEPTH, TICKER, TRADE, SessionFiles


class SessionMarket(SecondsMarket):
    """Recorded messages where there are some, and candles of seconds made from the recorded trades."""

    def __init__(self, files: dict[str, SessionFiles], symbols: Sequence[str]) -> None:
        listings = {
            symbol.replace("/", ""): Listing(symbol=symbol, price_decimals=DECIMALS, amount_decimals=DECIMALS)
            for symbol in symbols
        }
        super().__init__(SessionDays(files, listings), {})
        self.files = files
        self._replayed = {id_: SessionBook(each) for id_, each in files.items()}

    def book(self, symbol: str, now_ms: int, limit: int) -> Book:
        if symbol not in self._replayed:
            raise NotListed(f"{symbol}: no such symbol")
        return self._replayed[symbol].at(now_ms, limit)

    def events(self, symbol: str, channel: str, since_ms: int, pace: Pace) -> Iterator[Event]:
        if symbol in self.files and channel in (DEPTH, TRADE, TICKER):
            return self._recorded(symbol, channel, since_ms)
        if channel.startswith("depth"):
            raise NotListed(f"{symbol.lower()}@{channel}: recorded was {DEPTH}")
        return super().events(symbol, channel, since_ms, pace)

    def _recorded(self, symbol: str, channel: str, since_ms: int) -> Iterator[Event]:
        for at_ms, message in self.files[symbol].lines(channel):
            if at_ms >= since_ms and not isinstance(message, Book):
                yield Event(at_ms, message)


def session_market(folder: Path, symbols: Sequence[str]) -> SessionMarket:
    """The recorded sessions of a folder. Raises SettingRefused where it has none of any of `symbols`."""
    recorded = [symbol for symbol in symbols if SessionFiles(folder, symbol.replace("/", "")).exists]
    if not recorded:
        raise SettingRefused(f"--recording {folder}: no recorded session of {', '.join(symbols)}")
    ids = [symbol.replace("/", "") for symbol in recorded]
    return SessionMarket({id_: SessionFiles(folder, id_) for id_ in ids}, recorded)
