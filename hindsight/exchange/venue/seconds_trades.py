"""The trades of a market of seconds, by time or by id, and as they become known."""

import heapq
from collections.abc import Iterator
from itertools import count

from hindsight.exchange.venue import wire
from hindsight.exchange.venue.kept_days import MINUTES, KeptDays
from hindsight.exchange.venue.market import Event, Listing, Trade
from hindsight.exchange.venue.seconds import DAY_MS, MINUTE_MS

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
