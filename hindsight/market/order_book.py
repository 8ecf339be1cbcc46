"""An order book, kept from one snapshot and the updates after it by the sequence rules of Binance's spot market.

Updates are kept until there is a snapshot; those that end at or before its `lastUpdateId` are dropped; the first one
applied has U <= lastUpdateId + 1 <= u, and every other one U = the u before it + 1. An amount of 0 removes its price.
A book that loses this chain, or crosses, is emptied and says that it needs a new snapshot: it is never patched.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#how-to-manage-a-local-order-book-correctly
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from hindsight.errors import BookBroken

# A price and the amount that rests there, as numbers or as the text that the wire has.
Level = Sequence[float | str]
Levels = list[tuple[float, float]]
Update = tuple[int, int, Levels, Levels, int]  # first id (U), final id (u), bids, asks, event time
MOST_WAITING = 6000  # updates kept for a snapshot that is on its way: ten minutes of them


class OrderBook:
    """The resting orders of one market: `apply` every update as it comes, `start` with a snapshot that came after one.

    `event_ms` is when the newest update happened by the venue's clock; None before one was applied. `reach` is the
    lowest and the highest price between which every level is known: a snapshot ends somewhere, and of what lies beyond
    only those levels are heard of that change. `old` counts the updates that were dropped because they were known.
    """

    def __init__(self) -> None:
        self.is_whole = False
        self.event_ms: int | None = None
        self.reach = (math.inf, -math.inf)
        self.old = 0
        self._waiting: deque[Update] = deque(maxlen=MOST_WAITING)
        self._bids, self._asks = _Side(), _Side()
        self._last_id = -1
        self._is_first = True

    @property
    def best_bid(self) -> float | None:
        return self._bids.prices[-1] if self._bids.prices else None

    @property
    def best_ask(self) -> float | None:
        return self._asks.prices[0] if self._asks.prices else None

    def bids(self, down_to: float = 0.0) -> Levels:
        """(price, amount) of every bid at or above `down_to`, best first."""
        prices, amounts = self._bids.prices, self._bids.amounts
        return [(price, amounts[price]) for price in reversed(prices[bisect_left(prices, down_to) :])]

    def asks(self, up_to: float = math.inf) -> Levels:
        """(price, amount) of every ask below `up_to`, best first."""
        prices, amounts = self._asks.prices, self._asks.amounts
        return [(price, amounts[price]) for price in prices[: bisect_left(prices, up_to)]]

    def start(
        self, last_update_id: int, bids: Iterable[Level], asks: Iterable[Level], levels_asked: int | None = None
    ) -> None:
        """Begins anew with a snapshot, and applies what waited for one.

        A side with fewer levels than the `levels_asked` for is known down to its last order. Raises BookBroken where
        the snapshot is older than the updates that wait (take another one), or they are not a chain.
        """
        self._empty()
        bid_levels, ask_levels = self._parsed(bids), self._parsed(asks)
        self._bids.change(bid_levels)
        self._asks.change(ask_levels)
        self._check_crossing()
        ends = (self._bids.prices[:1], self._asks.prices[-1:])
        is_all = [levels_asked is not None and len(levels) < levels_asked for levels in (bid_levels, ask_levels)]
        self.reach = (
            0.0 if is_all[0] else ends[0][0] if ends[0] else math.inf,
            math.inf if is_all[1] else ends[1][0] if ends[1] else -math.inf,
        )
        self._last_id, self._is_first, self.is_whole = last_update_id, True, True
        while self._waiting:
            self._follow(self._waiting.popleft())

    def apply(self, first_id: int, final_id: int, bids: Iterable[Level], asks: Iterable[Level], event_ms: int) -> None:
        """Applies one update, or keeps it while there is no snapshot. Raises BookBroken where a new one is needed."""
        if first_id > final_id:
            raise self._broken(f"an update from id {first_id} to {final_id}", "malformed")
        update = (first_id, final_id, self._parsed(bids), self._parsed(asks), event_ms)
        if self.is_whole:
            self._follow(update)
        else:
            self._waiting.append(update)

    def _follow(self, update: Update) -> None:
        first_id, final_id, bids, asks, event_ms = update
        if final_id <= self._last_id:
            self.old += 1
            return
        expected = self._last_id + 1
        if first_id > expected or (first_id < expected and not self._is_first):
            reason = "snapshot too old" if self._is_first else "gap in sequence"
            self._waiting.appendleft(update)  # what comes after the break may join the next snapshot
            raise self._broken(f"an update from id {first_id} to {final_id} where id {expected} comes next", reason)
        self._bids.change(bids)
        self._asks.change(asks)
        self._last_id, self._is_first, self.event_ms = final_id, False, event_ms
        self._check_crossing()

    def _check_crossing(self) -> None:
        bid, ask = self.best_bid, self.best_ask
        if bid is not None and ask is not None and bid >= ask:
            raise self._broken(f"a best bid of {bid} at or above the best ask of {ask}", "crossed")

    def _parsed(self, levels: Iterable[Level]) -> Levels:
        try:
            parsed = [(float(level[0]), float(level[1])) for level in levels]
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise self._broken(f"a level that is no price with an amount ({error})", "malformed") from None
        for price, amount in parsed:
            if not (0 < price < math.inf and 0 <= amount < math.inf):
                raise self._broken(f"the price {price} with the amount {amount}", "malformed")
        return parsed

    def _broken(self, found: str, reason: str) -> BookBroken:
        self._empty()
        return BookBroken(f"expected an order book's next update, found {found}; take a new snapshot", reason)

    def _empty(self) -> None:
        self.is_whole, self.event_ms, self.reach = False, None, (math.inf, -math.inf)
        self._bids, self._asks = _Side(), _Side()


class _Side:
    """One side of a book: its prices in ascending order, and what rests at each."""

    __slots__ = ("amounts", "prices")

    def __init__(self) -> None:
        self.prices: list[float] = []
        self.amounts: dict[float, float] = {}

    def change(self, levels: Levels) -> None:
        """Makes these the amounts at their prices; 0 removes one."""
        for price, amount in levels:
            is_there = price in self.amounts
            if amount:
                self.amounts[price] = amount
                if not is_there:
                    self.prices.insert(bisect_left(self.prices, price), price)
            elif is_there:
                del self.amounts[price]
                del self.prices[bisect_left(self.prices, price)]
