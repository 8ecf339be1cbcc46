"""Buckets: how wide they are, which one a price falls into, and what rests in each, in US dollars.

Bucket i of 40 covers [anchor + (i - 20) * size, anchor + (i - 19) * size), with anchor = floor(mid / size) * size. So
$1 buckets around $3020 run from $3000 to $3040, the same around $3020.99, and a price on an edge belongs to the bucket
that it opens. Bids stand in 0..19 only and asks in 20..39 only: a bid between the anchor and the mid counts in 19, and
where the books of several venues overlap, an ask below the anchor counts in 20. So the sum is everything in range.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from hindsight.errors import SettingRefused
from hindsight.market.depth import Depth

SIDE = 20  # buckets on either side of the anchor
NEAR = 5  # bucket widths on either side of the mid that the imbalance looks at
# Stablecoins are taken at par. That is an assumption: they have been worth 0.998 to 1.002 in ordinary times.
USD = {"USD": 1.0, "USDT": 1.0, "USDC": 1.0}
SIZE_FRACTION = 0.0003  # of the price: $1 for ETH at $3,300
EDGE = 1e-9  # of a bucket: 0.3 / 0.1 is 2.9999999999999996 and means 3


def usd_per(quote: str) -> float:
    """US dollars for one unit of a quote currency. Raises SettingRefused where no rate is known."""
    if quote not in USD:
        raise SettingRefused(
            f"expected books quoted in one of {', '.join(USD)}, found {quote}: amounts are kept in US dollars, and no "
            f"rate of {quote} is known; leave its markets out of symbols, or set books = false"
        )
    return USD[quote]


def quote_of(symbol: str) -> str:
    """The currency that prices of `symbol` are in: USDT of ETH/USDT and of ETH/USDT:USDT."""
    return symbol.partition("/")[2].partition(":")[0]


def bucket_sizes(entries: Iterable[str]) -> dict[str, float]:
    """The setting `bucket_sizes`, as in ("ETH=1", "BTC=10"), by base currency."""
    return {base: float(size) for base, _, size in (entry.partition("=") for entry in entries)}


def bucket_size(symbol: str, price: float, sizes: Mapping[str, float]) -> float:
    """The width set for the symbol's base; else 1, 2 or 5 times a power of ten, nearest to 0.0003 of `price` by ratio.

    It is chosen once, and kept while the price moves: every row says which width it was made with.
    """
    base = symbol.partition("/")[0]
    if base in sizes:
        return sizes[base]
    wanted = math.log10(price * SIZE_FRACTION)
    power = math.floor(wanted)
    round_widths = [(lead, power + more) for more in (0, 1) for lead in (1, 2, 5)]
    lead, power = min(round_widths, key=lambda width: abs(math.log10(width[0]) + width[1] - wanted))
    return float(f"{lead}e{power}")


def bucket_of(price: float, size: float) -> int:
    """How many whole buckets lie between zero and `price`."""
    return math.floor(price / size + EDGE)


def tidy(number: float) -> float:
    """The number without the noise of binary fractions: twelve digits."""
    return float(f"{number:.12g}")


def amounts_around(depths: Iterable[Depth], price: float, size: float) -> list[float | None]:
    """US dollars in each of the 40 buckets around `price`, to the cent, added up over `depths`.

    None where one of them does not reach to the far edge of a bucket: what rests there is unknown, which is not 0.
    """
    first = bucket_of(price, size) - SIDE
    total, known = np.zeros(2 * SIDE), np.ones(2 * SIDE, dtype=bool)
    edges = np.arange(first, first + 2 * SIDE + 1)
    for depth in depths:
        bid = np.floor(depth.bid / size + EDGE).astype(np.int64) - first
        ask = np.floor(depth.ask / size + EDGE).astype(np.int64) - first
        is_bid, is_ask = bid >= 0, ask < 2 * SIDE
        total += np.bincount(np.minimum(bid[is_bid], SIDE - 1), depth.bid_usd[is_bid], 2 * SIDE)
        total += np.bincount(np.maximum(ask[is_ask], SIDE), depth.ask_usd[is_ask], 2 * SIDE)
        known[:SIDE] &= edges[:SIDE] >= depth.low / size - EDGE
        known[SIDE:] &= edges[SIDE + 1 :] <= depth.high / size + EDGE
    return [amount if is_known else None for amount, is_known in zip(total.round(2).tolist(), known, strict=True)]


def imbalance_around(depths: Iterable[Depth], price: float, size: float) -> float | None:
    """(bids - asks) / (bids + asks) in US dollars within 5 bucket widths of `price`, to the millionth.

    Measured from the price and not from the anchor: with whole buckets, bids would count from 5 to 6 widths deep and
    asks from 4 to 5, by where the price stands in its bucket, and the number would follow that place. None where
    nothing rests there, or a book does not reach so far.
    """
    low, high = price - (NEAR + EDGE) * size, price + (NEAR - EDGE) * size
    bids = asks = 0.0
    for depth in depths:
        if depth.low > low + 2 * EDGE * size or depth.high < high:
            return None
        bids += float(depth.bid_usd[depth.bid >= low].sum())
        asks += float(depth.ask_usd[depth.ask < high].sum())
    return round((bids - asks) / (bids + asks), 6) if bids + asks > 0 else None
