"""The order book of a market of seconds: made up around the last trade's price, standing still in an outage."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np

from hindsight.exchange.venue import wire
from hindsight.exchange.venue.book import TICK_MS, UPDATES_PER_TICK, Levels, SyntheticBook
from hindsight.exchange.venue.kept_days import MINUTES, KeptDays
from hindsight.exchange.venue.market import Book, Event, Listing
from hindsight.exchange.venue.seconds import MINUTE_MS

TICKS_PER_MINUTE = MINUTE_MS // TICK_MS


class SecondsBook:
    """One symbol's order book at any tick of 100 ms."""

    def __init__(self, kept: KeptDays, listing: Listing, made_up: SyntheticBook) -> None:
        self.kept, self.listing, self.made_up = kept, listing, made_up
        self._path = lru_cache(maxsize=4)(self._prices)

    def snapshot(self, now_ms: int, limit: int) -> Book:
        tick = self._visible(now_ms // TICK_MS)
        return self._book(tick, *self.made_up.snapshot(self._price(tick), tick, limit))

    def depth_events(self, since_ms: int, step: int) -> Iterator[Event]:
        """What changes from one multiple of `step` ticks to the next, without a hole in the update ids."""
        last = self._visible(since_ms // TICK_MS)
        for seen, tick in self._seen(since_ms, step):
            if seen == last:
                continue
            # Between two ticks that are further apart than a step nothing was delivered, or they would have been seen.
            path = [last, *range(max(last + 1, seen - step + 1), seen + 1)]
            changes = self._book(seen, *self.made_up.changes([self._price(each) for each in path], last, seen))
            message = wire.depth_message(self.listing, last * UPDATES_PER_TICK + 1, changes, tick * TICK_MS)
            yield Event(tick * TICK_MS, message)
            last = seen

    def ticker_events(self, since_ms: int, step: int) -> Iterator[Event]:
        """The best bid and ask, whenever a tick shows them changed."""
        before = None
        for seen, tick in self._seen(since_ms, step):
            bid, ask = self.made_up.best(self._price(seen), seen)
            if (bid, ask) != before:
                yield Event(tick * TICK_MS, wire.book_ticker_message(self.listing, self._book(seen, [bid], [ask])))
            before = bid, ask

    def _seen(self, since_ms: int, step: int) -> Iterator[tuple[int, int]]:
        """The tick whose book is seen at each multiple of `step`; of an outage, only its beginning."""
        first, was_delivered = since_ms // TICK_MS, True
        for tick in count(first - first % step + step, step):
            if self.kept.has_ended(tick * TICK_MS):
                return
            is_delivered = self.kept.is_delivered(self.listing.id, tick * TICK_MS)
            if is_delivered or was_delivered:
                yield (tick if is_delivered else self._visible(tick)), tick
            was_delivered = is_delivered

    def _visible(self, tick: int) -> int:
        return self.kept.last_delivered(self.listing.id, tick * TICK_MS) // TICK_MS

    def _price(self, tick: int) -> int:
        minute, place = divmod(tick, TICKS_PER_MINUTE)
        return self._path(minute)[place]

    def _prices(self, minute: int) -> list[int]:
        """The price of the last trade on time, at each tick of a minute since 1970."""
        day, made = self.kept.source.day(self.listing.id, minute // MINUTES), self.kept.trades(self.listing.id, minute)
        in_day = minute % MINUTES
        on_time = made.known == made.times
        ticks = in_day * MINUTE_MS + np.arange(TICKS_PER_MINUTE) * TICK_MS
        place = np.searchsorted(made.times[on_time], ticks, side="right")
        before = day.seconds.open[in_day * 60]
        return np.concatenate([[before], made.prices[on_time]])[place].tolist()

    def _book(self, tick: int, bids: Levels, asks: Levels) -> Book:
        price, amount = self.listing.price, self.listing.amount
        return Book(
            tick * UPDATES_PER_TICK,
            [(price(level), amount(units)) for level, units in bids],
            [(price(level), amount(units)) for level, units in asks],
        )
