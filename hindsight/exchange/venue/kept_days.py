"""The few days and minutes that a market of seconds keeps at hand; all others are made again when asked for."""

from functools import lru_cache

import numpy as np
import polars as pl

from hindsight.exchange.venue.market import Listing, NotListed
from hindsight.exchange.venue.seconds import (
    DAY_MS,
    MINUTE_MS,
    NO_TRADES,
    DaySource,
    MinuteTrades,
)

MINUTES = DAY_MS // MINUTE_MS


class KeptDays:
    """Days, minutes and candles of a DaySource, each made once while it is in use. Instants are in ms since 1970."""

    def __init__(self, source: DaySource) -> None:
        self.source = source
        symbols = len(source.listings)
        self.trades = lru_cache(maxsize=16 * symbols)(self._trades)
        self._seconds = lru_cache(maxsize=2 * symbols)(source.delivered)
        self._others = lru_cache(maxsize=128)(source.delivered)

    def listing(self, symbol: str) -> Listing:
        if symbol not in self.source.listings:
            raise NotListed(f"{symbol}: no such symbol")
        return self.source.listings[symbol]

    def step_ms(self, timeframe: str) -> int:
        if timeframe not in self.source.timeframes:
            raise NotListed(f"{timeframe}: no such timeframe")
        return self.source.timeframes[timeframe]

    def delivered(self, symbol: str, timeframe: str, day: int) -> pl.DataFrame:
        """As DaySource.delivered. A day of seconds is a hundred times as large as others: fewer of them are kept."""
        return (self._seconds if timeframe == "1s" else self._others)(symbol, timeframe, day)

    def has_ended(self, moment_ms: int) -> bool:
        """Whether a recording has nothing at this instant any more."""
        return self.source.closing_ms is not None and moment_ms >= self.source.closing_ms

    def is_delivered(self, symbol: str, moment_ms: int) -> bool:
        """Whether the venue delivers anything in the second of this instant."""
        if moment_ms < self.source.opening_ms or self.has_ended(moment_ms):
            return False
        return bool(self.source.day(symbol, moment_ms // DAY_MS).is_delivered[moment_ms % DAY_MS // 1000])

    def last_delivered(self, symbol: str, moment_ms: int) -> int:
        """The last instant at or before this one in a second that was delivered; the opening where there is none."""
        if self.is_delivered(symbol, moment_ms):
            return moment_ms
        for day in range(moment_ms // DAY_MS, self.source.opening_ms // DAY_MS - 1, -1):
            end = min(moment_ms - day * DAY_MS, DAY_MS) // 1000
            seconds = np.flatnonzero(self.source.day(symbol, day).is_delivered[:end])
            if len(seconds):
                return day * DAY_MS + int(seconds[-1]) * 1000 + 999
        return self.source.opening_ms

    def _trades(self, symbol: str, minute: int) -> MinuteTrades:
        """The trades of one minute since 1970."""
        moment_ms = minute * MINUTE_MS
        if moment_ms < self.source.opening_ms or self.has_ended(moment_ms):
            return NO_TRADES
        return self.source.trades(symbol, minute)
