"""A market known by its seconds: what a second of ticks and lots says about candles that form and trades that happen.

The trades of a minute are made up so that each second has exactly its open, high, low, close and volume: the first at
the open, the last at the close. Every minute that was delivered has TRADES_PER_MINUTE ids, so that the ids of any
moment are known without those before it, and neighbours in time are neighbours in id.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.exchange.simulated_market import Ints, LateTrades, Seconds
from hindsight.exchange.venue.market import Listing

Booleans = NDArray[np.bool_]
DAY_MS, MINUTE_MS = 86_400_000, 60_000
TRADES_PER_MINUTE = 256
LATE = 2  # of them, where trades come late: one at the late high, one at the late low


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The seconds of a UTC day, which of them were delivered at all [86,400], and the trades that came late."""

    seconds: Seconds
    is_delivered: Booleans
    late: LateTrades | None


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

    def first_trade_id(self, symbol: str, minute: int) -> int: ...

    def minute_of_trade(self, symbol: str, trade_id: int) -> int: ...

    def noise(self, symbol: str, minute: int) -> np.random.Generator: ...


@dataclass(frozen=True, slots=True)
class MinuteTrades:
    """The trades of one minute, by id: int64 [N] each, times in ms of the UTC day, prices in ticks."""

    times: Ints
    known: Ints  # later than their times for those that came late
    prices: Ints
    units: Ints
    is_buyer_maker: Booleans


NOTHING = np.empty(0, dtype=np.int64)
NO_TRADES = MinuteTrades(NOTHING, NOTHING, NOTHING, NOTHING, np.empty(0, dtype=np.bool_))


def trades_of_minute(day: Day, minute: int, units_per_lot: int, noise: np.random.Generator) -> MinuteTrades:
    """The trades of minute `minute` of the day; none where it was not delivered or nothing traded."""
    of_minute = slice(minute * 60, minute * 60 + 60)
    seconds = day.seconds
    open_, high, low, close = (column[of_minute] for column in (seconds.open, seconds.high, seconds.low, seconds.close))
    volume = seconds.lots[of_minute] * units_per_lot
    traded = (volume > 0) & day.is_delivered[of_minute]
    if not traded.any():
        return NO_TRADES
    late = day.late if day.late is not None and day.late.second // 60 == minute else None

    has_high, has_low = high > np.maximum(open_, close), low < np.minimum(open_, close)
    has_close = (close != open_) | has_high | has_low
    if late is not None:
        has_close[-1] = True  # the late ones come before the close, which they never move
    needed = np.where(traded, 1 + has_high + has_low + has_close, 0)
    total = TRADES_PER_MINUTE - (LATE if late is not None else 0)
    each, rest = divmod(total - int(needed.sum()), int(traded.sum()))
    counts = needed + np.where(traded, each + (np.cumsum(traded) <= rest), 0)

    second = np.repeat(np.arange(60), counts)  # [N], and so are all below
    ends = np.cumsum(counts)
    place = np.arange(total) - (ends - counts)[second]
    from_end = counts[second] - 1 - place
    wander, size, moment, side, order = noise.random((5, total))

    prices = low[second] + (wander * (high - low + 1)[second]).astype(np.int64)
    high_is_last = has_high & (~has_low | (order[:60] < 0.5))
    low_is_last = has_low & ~high_is_last
    both = has_high & has_low
    prices = np.where((from_end == 1) & high_is_last[second], high[second], prices)
    prices = np.where((from_end == 1) & low_is_last[second], low[second], prices)
    prices = np.where((from_end == 2) & (both & low_is_last)[second], high[second], prices)
    prices = np.where((from_end == 2) & (both & high_is_last)[second], low[second], prices)
    prices = np.where((from_end == 0) & has_close[second], close[second], prices)
    prices = np.where(place == 0, open_[second], prices)

    # Shares of what is left when each trade has one unit; cut at whole units, they add up exactly.
    weight = np.cumsum(size + 0.2)
    before = np.concatenate([[0.0], weight])[(ends - counts)[second]]
    share = (weight - before) / (weight[ends - 1][second] - before)
    to_share = (volume - counts)[second]
    reached = np.where(from_end == 0, to_share, (share * to_share).astype(np.int64))
    units = 1 + reached - np.where(place == 0, 0, np.concatenate([[0], reached[:-1]]))

    times = minute * MINUTE_MS + second * 1000 + ((place + 0.9 * moment) * 1000 / counts[second]).astype(np.int64)
    step = np.sign(np.diff(prices, prepend=prices[0]))
    is_buyer_maker = np.where(step == 0, side < 0.5, step < 0)
    on_time = MinuteTrades(times, times, prices, units, is_buyer_maker)
    return on_time if late is None else _with_late(on_time, late, units_per_lot)


def _with_late(trades: MinuteTrades, late: LateTrades, units_per_lot: int) -> MinuteTrades:
    """The trades of the minute with the late ones, which have the ids just before the last trade's."""
    units = late.lots * units_per_lot
    last = len(trades.times) - 1
    return MinuteTrades(
        np.insert(trades.times, last, [trades.times[-1]] * LATE),
        np.insert(trades.known, last, [late.known_at * 1000] * LATE),
        np.insert(trades.prices, last, [late.high, late.low]),
        np.insert(trades.units, last, [units - units // 2, units // 2]),
        np.insert(trades.is_buyer_maker, last, [False, True]),
    )


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
