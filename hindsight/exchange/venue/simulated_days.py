"""The simulated venue's days, second by second: the candles that the venue sends are those of `SimulatedVenue`.

simulated_market(symbols=("ETH/USDT", "BTC/USDT"), seed=7, phi=0.3)

Where the imbalance is what tells the next second, the book that is sent leans like that of `SimulatedVenue`.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache

import polars as pl

from hindsight.exchange.simulated import OPENING, OPENING_DAY, SimulatedVenue
from hindsight.exchange.simulated_books import lean
from hindsight.exchange.simulated_market import (
    MINUTES,
    SECONDS,
    Instrument,
    delivered_of_day,
    generator,
    late_trades_of_day,
)
from hindsight.exchange.simulated_signals import Signal, leaning_of_day
from hindsight.exchange.venue.book import TICK_MS, SyntheticBook
from hindsight.exchange.venue.made_up_trades import TRADES_PER_MINUTE, trades_of_minute
from hindsight.exchange.venue.market import Listing
from hindsight.exchange.venue.seconds import Day, MinuteTrades
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.market.candles import CANDLES
from hindsight.market.streams import EPOCH, TIMEFRAMES, Stream, Window, to_ms

# A lot is 2 ** -10. Cut in 16 units of 2 ** -14, whose decimals are exact: 14 of them.
UNITS_PER_LOT = 16
AMOUNT_DECIMALS, AMOUNT_UNIT = 14, 5**14
OPENING_MINUTE = to_ms(OPENING) // 60_000
TICKS_PER_SECOND = 1000 // TICK_MS


class SimulatedDays:
    """A DaySource over one simulated venue. Every symbol exists, but a venue has a list."""

    def __init__(self, symbols: Sequence[str], venue: SimulatedVenue) -> None:
        self.units_per_lot = UNITS_PER_LOT
        self.opening_ms, self.closing_ms = to_ms(OPENING), None
        self.timeframes = {name: step // timedelta(milliseconds=1) for name, step in TIMEFRAMES.items()}
        self.venue = venue
        self.instruments = {symbol.replace("/", ""): Instrument.of(symbol) for symbol in symbols}
        self.listings = {
            id_: Listing(
                symbol=each.symbol,
                price_decimals=each.decimals,
                amount_decimals=AMOUNT_DECIMALS,
                amount_unit=AMOUNT_UNIT,
            )
            for id_, each in self.instruments.items()
        }
        self.day = lru_cache(maxsize=3 * len(symbols))(self._day)

    def start_ms(self, present_ms: int) -> int:
        return present_ms

    def _day(self, symbol: str, day: int) -> Day:
        seed, instrument = self.venue.seed, self.instruments[symbol]
        seconds = self.venue.seconds(instrument.symbol, day)
        is_delivered = delivered_of_day(seed, instrument, day)
        late = late_trades_of_day(seed, instrument, day, seconds)
        return Day(seconds=seconds, is_delivered=is_delivered, late=late)

    def delivered(self, symbol: str, timeframe: str, day: int) -> pl.DataFrame:
        if day < OPENING_DAY:
            return pl.DataFrame(schema=CANDLES)
        stream = Stream(venue="simulated", symbol=self.listings[symbol].symbol, timeframe=timeframe)
        start = EPOCH + timedelta(days=day)
        frames = self.venue.candles(stream, Window(start=start, end=start + timedelta(days=1)))
        return pl.concat([pl.DataFrame(schema=CANDLES), *frames])

    def first_trade_id(self, symbol: str, minute: int) -> int:
        return (minute - OPENING_MINUTE) * TRADES_PER_MINUTE + 1

    def minute_of_trade(self, symbol: str, trade_id: int) -> int:
        return (trade_id - 1) // TRADES_PER_MINUTE + OPENING_MINUTE

    def trades(self, symbol: str, minute: int) -> MinuteTrades:
        day, in_day = divmod(minute, MINUTES)
        noise = generator(self.venue.seed, self.instruments[symbol].symbol, "trades", minute)
        return trades_of_minute(self.day(symbol, day), in_day, UNITS_PER_LOT, noise)


def simulated_market(symbols: Sequence[str], seed: int, phi: float, signal: Signal = "momentum") -> SecondsMarket:
    """The simulated venue as a market that a socket can serve."""
    days = SimulatedDays(symbols, SimulatedVenue(seed, phi, signal))
    books = {
        id_: SyntheticBook(
            grid=each.grid,
            mean_units=max(1, round(each.level_lots * UNITS_PER_LOT)),
            salt=int(generator(seed, each.symbol, "book", 0).integers(2**40)),
            lean=_lean(seed, each.symbol) if signal == "imbalance" else None,
        )
        for id_, each in days.instruments.items()
    }
    return SecondsMarket(days, books)


def _lean(seed: int, symbol: str) -> Callable[[int], float]:
    """How the book of a symbol leans at a tick since 1970."""
    of_day = lru_cache(maxsize=3)(lambda day: lean(leaning_of_day(seed, symbol, day)))

    def at(tick: int) -> float:
        day, second = divmod(tick // TICKS_PER_SECOND, SECONDS)
        return float(of_day(day)[second])

    return at
