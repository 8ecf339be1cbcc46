"""A market known by its seconds: where they come from, and what they say about a candle that forms."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from hindsight.exchange.simulated_market import Booleans, Ints, LateTrades, Seconds
from hindsight.exchange.venue.market import Listing

DAY_MS, MINUTE_MS = 86_400_000, 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The seconds of a UTC day, which of them were delivered at all [86,400], and the trades that came late."""

    seconds: Seconds
    is_delivered: Booleans
    late: LateTrades | None


@dataclass(frozen=True, slots=True)
class MinuteTrades:
    """The trades of one minute, by id: int64 [N] each, times in ms of the UTC day, prices in ticks."""

    times: Ints
    known: Ints  # later than their times for those that came late
    prices: Ints
    units: Ints
    is_buyer_maker: Booleans


class DaySource(Protocol):
    """Where days come from: the simulated venue, or minutes of a file. Days and minutes count from 1970."""

    listings: dict[str, Listing]
    timeframes: dict[str, int]
    opening_ms: int
    units_per_lot: int

    @property
    def closing_ms(self) -> int | None:
        """Where a file ends; None where nothing does."""
        ...

    def start_ms(self, present_ms: int) -> int: ...

    def day(self, symbol: str, day: int) -> Day: ...

    def delivered(self, symbol: str, timeframe: str, day: int) -> pl.DataFrame:
        """Candles opened and corrections recorded in (the start of the day, its end], in the columns of CANDLES."""
        ...

    def trades(self, symbol: str, minute: int) -> MinuteTrades: ...

    def first_trade_id(self, symbol: str, minute: int) -> int:
        """The id of the first trade of a minute. Over minutes that were not delivered, ids jump."""
        ...

    def minute_of_trade(self, symbol: str, trade_id: int) -> int: ...


NOTHING = np.empty(0, dtype=np.int64)
NO_TRADES = MinuteTrades(NOTHING, NOTHING, NOTHING, NOTHING, np.empty(0, dtype=np.bool_))


@dataclass(slots=True)
class Forming:
    """Open, high, low, close in ticks and volume in units of what was delivered of a candle so far."""

    open: int
    high: int
    low: int
    close: int
    units: int = 0

    def add(self, high: int, low: int, close: int, units: int) -> None:
        self.high, self.low = max(self.high, high), min(self.low, low)
        self.close, self.units = close, self.units + units


def forming(day: Day, current: MinuteTrades, first: int, until_ms: int, units_per_lot: int) -> Forming | None:
    """The candle that opened at second `first`, as it stands at `until_ms` of the day; None before any delivery.

    `current` holds the trades of the minute in which `until_ms` lies.
    """
    now, delivered, seconds = until_ms // 1000, day.is_delivered, day.seconds
    whole = np.arange(first, now)[delivered[first:now]]
    if not len(whole) and not delivered[now]:
        return None
    opened = int(seconds.open[whole[0] if len(whole) else now])
    candle = Forming(opened, opened, opened, opened)
    if len(whole):
        high, low = int(seconds.high[whole].max()), int(seconds.low[whole].min())
        lots = int(seconds.lots[whole].sum())
        candle.add(high, low, int(seconds.close[whole[-1]]), lots * units_per_lot)
    # The second that is passing: what has traded of it on time.
    partial = (current.times >= max(now, first) * 1000) & (current.known <= until_ms) & (current.known == current.times)
    if partial.any():
        prices = current.prices[partial]
        candle.add(int(prices.max()), int(prices.min()), int(prices[-1]), int(current.units[partial].sum()))
    late = day.late
    if late is not None and late.second >= first and late.known_at * 1000 <= until_ms:
        candle.add(late.high, late.low, candle.close, late.lots * units_per_lot)
    return candle
