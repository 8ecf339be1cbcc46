"""Trades made up from seconds, which they add up to exactly: open, high, low, close and volume.

The first trade of a second is at its open, the last at its close. Every minute in which anything traded has
TRADES_PER_MINUTE ids, so that the ids of any moment are known without those before it, and neighbours in time are
neighbours in id.
"""

import numpy as np

from hindsight.exchange.simulated_market import LateTrades
from hindsight.exchange.venue.seconds import MINUTE_MS, NO_TRADES, Day, MinuteTrades

TRADES_PER_MINUTE = 256
LATE = 2  # of them, where trades come late: one at the late high, one at the late low


def trades_of_minute(day: Day, minute: int, units_per_lot: int, noise: np.random.Generator) -> MinuteTrades:
    """The trades of minute `minute` of the day; none where it was not delivered, or next to nothing traded."""
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

    if (volume < counts).any():
        return NO_TRADES  # too little to be cut into so many trades

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
