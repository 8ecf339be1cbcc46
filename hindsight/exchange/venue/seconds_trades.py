"""The trades of a market of seconds, by time or by id, and as they become known."""

import heapq
from collections.abc import Iterator
from itertools import count

import numpy as np

from hindsight.exchange.venue import wire
from hindsight.exchange.venue.kept_days import MINUTES, KeptDays
from hindsight.exchange.venue.made_up_trades import LATE
from hindsight.exchange.venue.market import Event, Listing, Trade
from hindsight.exchange.venue.seconds import DAY_MS, MINUTE_MS

NO_ID = -1  # as Binance has it
LATEST_MS = 10 * MINUTE_MS  # no trade becomes known later than that after it happened


def trades(kept: KeptDays, listing: Listing, first_ms: int, last_ms: int, now_ms: int) -> list[Trade]:
    """As Market.trades."""
    minutes = range(max(first_ms, kept.source.opening_ms) // MINUTE_MS, min(last_ms, now_ms) // MINUTE_MS + 1)
    found = (trade for minute in minutes for trade in of_minute(kept, listing, minute))
    return [trade for trade in found if first_ms <= trade.time_ms <= last_ms and trade.known_ms <= now_ms]


def of_minute(kept: KeptDays, listing: Listing, minute: int) -> Iterator[Trade]:
    """The trades of one minute since 1970, by id."""
    made, day_ms = kept.trades(listing.id, minute), minute // MINUTES * DAY_MS
    first_id = kept.source.first_trade_id(listing.id, minute)
    columns = (made.times + day_ms, made.known + day_ms, made.prices, made.units, made.is_buyer_maker)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for trade_id, (time_ms, known_ms, price, units, is_buyer_maker) in enumerate(rows, start=first_id):
        yield Trade(trade_id, time_ms, known_ms, listing.price(price), listing.amount(units), is_buyer_maker)


def ids_between(kept: KeptDays, listing: Listing, first_ms: int, end_ms: int, now_ms: int) -> tuple[int, int, int]:
    """First id, last id and number of the trades in [first, end) that are known at `now`; -1, -1, 0 without any.

    Both instants lie in one day. Ids of trades that come late are passed over like those of an outage.
    """
    first_id, last_id, number = NO_ID, NO_ID, 0
    id_of, day_ms = kept.source.first_trade_id, first_ms // DAY_MS * DAY_MS
    for minute in range(first_ms // MINUTE_MS, -(-end_ms // MINUTE_MS)):
        minute_ms = minute * MINUTE_MS
        if not kept.is_delivered(listing.id, minute_ms):
            continue
        first, end = id_of(listing.id, minute), id_of(listing.id, minute + 1)
        if minute_ms < first_ms or end_ms < minute_ms + MINUTE_MS:
            times = kept.trades(listing.id, minute).times
            place = np.searchsorted(times, [first_ms - day_ms, end_ms - day_ms])
            first, end = first + int(place[0]), first + int(place[1])
        if first < end:
            first_id = first if first_id == NO_ID else first_id
            last_id, number = end - 1, number + end - first
    late = kept.source.day(listing.id, first_ms // DAY_MS).late
    if late is not None and first_ms <= day_ms + late.second * 1000 < end_ms and now_ms < day_ms + late.known_at * 1000:
        number -= LATE
    return first_id, last_id, number


def trade_events(kept: KeptDays, listing: Listing, since_ms: int, *, is_aggregate: bool) -> Iterator[Event]:
    """Each trade when it happens; late ones when they become known."""
    message = wire.agg_trade_message if is_aggregate else wire.trade_message
    late: list[tuple[int, int, Trade]] = []
    for minute in count(max(since_ms - LATEST_MS, kept.source.opening_ms) // MINUTE_MS):
        if kept.has_ended(minute * MINUTE_MS):
            return
        for trade in of_minute(kept, listing, minute):
            if trade.known_ms > trade.time_ms:
                heapq.heappush(late, (trade.known_ms, trade.trade_id, trade))
                continue
            while late and late[0][0] <= trade.time_ms:
                known_ms, _, waited = heapq.heappop(late)
                if known_ms >= since_ms:
                    yield Event(known_ms, message(listing, waited))
            if trade.time_ms >= since_ms:
                yield Event(trade.time_ms, message(listing, trade))
