"""Trades into candles, trade by trade, in the part of Python that numba compiles: arrays, numbers and loops."""

import numpy as np

UNITS = 100_000_000  # to a whole: venues count amounts in hundred-millionths, and sums of those are exact
EXACT = 2**53 // UNITS  # wholes up to which a float holds every hundred-millionth


def add_up(
    time_us: np.ndarray,
    price: np.ndarray,
    amount: np.ndarray,
    step_us: int,
    opened_us: np.ndarray,
    figures: np.ndarray,
) -> int:
    """How many candles there are trades in; −1 where a trade belongs to an earlier candle than the one before it.

    Written: `opened_us` [n], and `figures` [5, n] = open, high, low, close, volume.
    """
    found = at = 0
    while at < len(time_us):
        opens = time_us[at] // step_us * step_us
        if found > 0 and opens < opened_us[found - 1]:
            return -1
        first = at
        high = low = price[at]
        whole, parts = 0.0, 0
        while at < len(time_us) and opens <= time_us[at] < opens + step_us:
            high = max(high, price[at])
            low = min(low, price[at])
            wholes = np.floor(amount[at])
            whole += wholes
            parts += int(np.rint((amount[at] - wholes) * UNITS))
            at += 1
        whole += parts // UNITS
        parts %= UNITS
        opened_us[found] = opens
        figures[0, found] = price[first]
        figures[1, found] = high
        figures[2, found] = low
        figures[3, found] = price[at - 1]
        figures[4, found] = (whole * UNITS + parts) / UNITS if whole < EXACT else whole + parts / UNITS
        found += 1
    return found
