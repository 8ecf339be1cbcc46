"""Depth: the part of one venue's book that lies near its mid, read from the levels as the venue or ccxt has them."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

# One side of a book, best first: rows that begin with a price and an amount, as lists or as an array.
Side = Sequence[Sequence[float]] | NDArray[np.float64]
Unusable = Literal["empty", "malformed", "crossed"]


@dataclass(frozen=True, slots=True)
class Depth:
    """What rests near the mid, each side best first, with prices in the currency that the buckets count in.

    `bid_usd` and `ask_usd` are price times amount in US dollars. Every order between `low` and `high` is there, some
    beyond may be.
    """

    event_ms: int
    bid: NDArray[np.float64]
    bid_usd: NDArray[np.float64]
    ask: NDArray[np.float64]
    ask_usd: NDArray[np.float64]
    low: float
    high: float

    def known_within(self, low: float, high: float) -> Self:
        """The same, known no further than from `low` to `high`."""
        return replace(self, low=max(self.low, low), high=min(self.high, high))


def read_depth(
    event_ms: int,
    bids: Side,
    asks: Side,
    *,
    kept: float,
    quote_to_usd: float,
    conversion: float = 1.0,
    reach: tuple[float, float] | None = None,
) -> Depth | Unusable:
    """What rests up to `kept` off the mid, or why the book is unusable. Copies what it keeps.

    `kept` is in the currency of the buckets, of which a unit of the book's own quote currency buys `conversion`. Every
    order between the two prices of `reach` is in the book; None means: as far as its deepest orders.
    """
    if not (len(bids) and len(asks)):
        return "empty"
    try:
        middle = (bids[0][0] + asks[0][0]) / 2
        lowest, highest = middle - kept / conversion, middle + kept / conversion
        bid, bid_amount, is_bid_cut = _read(bids, lowest, -1)
        ask, ask_amount, is_ask_cut = _read(asks, highest, 1)
        deepest = (float(bids[-1][0]), float(asks[-1][0]))
    except (TypeError, ValueError, IndexError, KeyError):
        return "malformed"
    is_sound = _is_sound(-bid, bid_amount) and _is_sound(ask, ask_amount)
    if not (is_sound and 0 < deepest[0] <= bid[-1] and ask[-1] <= deepest[1] < math.inf):
        return "malformed"
    if bid[0] >= ask[0]:
        return "crossed"
    low, high = reach or deepest
    return Depth(
        event_ms=event_ms,
        bid=bid * conversion,
        bid_usd=bid * bid_amount * quote_to_usd,
        ask=ask * conversion,
        ask_usd=ask * ask_amount * quote_to_usd,
        low=conversion * max(low, lowest if is_bid_cut else 0.0),
        high=conversion * min(high, highest if is_ask_cut else math.inf),
    )


def _read(levels: Side, bound: float, sign: int) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Prices and amounts up to `bound`, and whether there are more; `sign` is 1 where prices ascend."""
    count = max(1, bisect_right(levels, sign * bound, key=lambda level: sign * level[0]))
    part = levels[:count]
    if isinstance(part, np.ndarray):
        prices, amounts = part[:, 0].astype(np.float64), part[:, 1].astype(np.float64)
    else:
        prices = np.array([level[0] for level in part], dtype=np.float64)
        amounts = np.array([level[1] for level in part], dtype=np.float64)
    return prices, amounts, count < len(levels)


def _is_sound(ascending: NDArray[np.float64], amounts: NDArray[np.float64]) -> bool:
    """Whether prices ascend and amounts are finite and not negative; false for anything that is not a number."""
    is_ordered = bool((ascending[1:] > ascending[:-1]).all()) and bool(np.isfinite(ascending).all())
    return is_ordered and bool(amounts.min() >= 0) and bool(amounts.max() < math.inf)
