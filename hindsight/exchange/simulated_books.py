"""Past order books of the simulated venue: what the book that it shows live comes to on average, second by second.

The mid is the second's close, and the best orders stand one tick off it. Orders rest at the same density everywhere,
up to chance that differs from bucket to bucket and from second to second; more of them are bids or asks by a slow mood
that tells nothing. A book that leans holds as much at its touch as live, more of it on the side that the leaning
favours, and has no mood.
"""

import numpy as np
import polars as pl

from hindsight.exchange.simulated_market import LOT, SECONDS, Floats, Instrument, Ints, generator
from hindsight.exchange.venue.book import MEAN_AGE_TICKS, TICK_MS, TOUCH_LEVELS, mood
from hindsight.market.book_rows import BOOK_SECONDS
from hindsight.market.buckets import EDGE, NEAR, SIDE, quote_of, tidy, usd_per

CHANCE = 0.2  # of the mean, up or down, in what rests in one bucket
TICKS_PER_SECOND = 1000 // TICK_MS


def lean(leaning: Floats) -> Floats:
    """How much more of all that rests at the touch are bids, from -1 to 1: there, bids are exp(leaning) times asks."""
    return np.tanh(leaning / 2)


def books_of_day(
    seed: int, instrument: Instrument, day: int, closes: Ints, leaning: Floats | None, *, size: float, chosen: Ints
) -> pl.DataFrame:
    """The books at the end of the N `chosen` seconds of a UTC day, in the columns of BOOK_SECONDS but for the venue.

    `closes` and `leaning` are of all its seconds [86,400], in ticks and of unit variance.
    """
    price = closes[chosen] / 10**instrument.decimals
    bucket = np.floor(price / size + EDGE)
    inside = np.maximum(price / size - bucket, 0.0)  # how far into its bucket the price stands, from 0 to 1

    level_usd = price * usd_per(quote_of(instrument.symbol)) * instrument.level_lots * LOT
    levels = size * 10**instrument.decimals / instrument.grid
    chance = generator(seed, instrument.symbol, "book amounts", day).random((SECONDS, 2 * SIDE), dtype=np.float32)
    amounts = level_usd[:, None] * levels * (1 + CHANCE * (2 * chance[chosen] - 1))
    amounts[:, SIDE - 1] *= 1 + inside  # bids reach up to the price, across the anchor
    amounts[:, SIDE] *= 1 - inside
    if leaning is None:
        slow = mood((chosen + 1 + day * SECONDS) * TICKS_PER_SECOND - MEAN_AGE_TICKS)[:, None]
        amounts[:, :SIDE] *= 1 + slow
        amounts[:, SIDE:] *= 1 - slow
    else:
        touch_lean = lean(leaning[chosen])
        amounts[:, SIDE - 1] += level_usd * TOUCH_LEVELS * (1 + touch_lean)
        amounts[:, SIDE] += level_usd * TOUCH_LEVELS * (1 - touch_lean)

    # Of the bucket that the edge of what is near cuts, the part on the near side counts.
    bids = (1 - inside) * amounts[:, SIDE - NEAR] + amounts[:, SIDE - NEAR + 1 : SIDE].sum(axis=1)
    asks = amounts[:, SIDE : SIDE + NEAR].sum(axis=1) + inside * amounts[:, SIDE + NEAR]
    buckets, which = np.unique(bucket, return_inverse=True)
    return pl.DataFrame(
        {
            "symbol": instrument.symbol,
            "second": (chosen + day * SECONDS) * 1_000_000,
            "price": price,
            "spread": 2 / 10**instrument.decimals,
            "bucket_size": size,
            "anchor": np.array([tidy(each * size) for each in buckets.tolist()])[which],
            "amounts": amounts.round(2).astype(np.float32),
            "imbalance": ((bids - asks) / (bids + asks)).round(6),
            "snapshots": TICKS_PER_SECOND,
            "age_ms": TICK_MS,
        }
    ).cast({name: kind for name, kind in BOOK_SECONDS.items() if name not in ("venue", "venues")})
