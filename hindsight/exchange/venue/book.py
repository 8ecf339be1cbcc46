"""A made-up order book around a price: a function of price and time alone, so that nothing needs to be remembered.

A touch level stands one tick on each side of the last trade. Beyond it, levels stand on a grid, DEPTH of them on each
side; each is renewed every 10 to 36 seconds, at its own time. Amounts lean towards one side with a slow mood, so that
imbalance is not mere noise. Where the book is told how to lean, it does so at the touch levels, which are large then,
and anew in each second; there is no mood. Time counts in ticks of 100 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hindsight.exchange.simulated_market import Floats, Ints

TICK_MS = 100
DEPTH = 1000  # levels on each side
UPDATES_PER_TICK = 16  # ids that pass in one tick
MEAN_AGE_TICKS = 114  # since a level was renewed
TOUCH_LEVELS = 200  # levels' worth that the touch of a leaning book holds on average, on each side
Hashes = NDArray[np.uint64]
Levels = list[tuple[int, int]]  # price in ticks of the market, amount in units; 0 removes


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticBook:
    """Levels `grid` price ticks apart, of `mean_units` on average; `salt` tells one symbol's from another's.

    `lean` says how much more of all that rests at the touch are bids in the second of a tick, from -1 to 1.
    """

    grid: int
    mean_units: int
    salt: int
    lean: Callable[[int], float] | None = None

    def snapshot(self, price: int, tick: int, limit: int) -> tuple[Levels, Levels]:
        """The best `limit` bids and asks at one tick, best first."""
        below, above = self._first_below(price), self._first_above(price)
        bids = np.arange(below, price // self.grid - DEPTH - 1, -1)[: limit - 1]
        asks = np.arange(above, price // self.grid + DEPTH + 1)[: limit - 1]
        return (
            [
                self._touch(price, tick, 1),
                *zip((bids * self.grid).tolist(), self._amounts(bids, tick, 1), strict=True),
            ],
            [
                self._touch(price, tick, -1),
                *zip((asks * self.grid).tolist(), self._amounts(asks, tick, -1), strict=True),
            ],
        )

    def changes(self, path: list[int], first_tick: int, last_tick: int) -> tuple[Levels, Levels]:
        """What turns any book of [first_tick, last_tick) into that of last_tick, for the prices of all those ticks."""
        price, lowest, highest = path[-1], min(path), max(path)
        levels = np.arange(lowest // self.grid - DEPTH, highest // self.grid + DEPTH + 1)
        at = levels * self.grid
        renewed = self._epochs(levels, first_tick) != self._epochs(levels, last_tick)
        crossed = (at >= lowest - 1) & (at <= highest + 1)
        edge = (levels < highest // self.grid - DEPTH) | (levels > lowest // self.grid + DEPTH)
        is_touched, has_moved = renewed | crossed | edge, crossed | edge
        touched, has_moved = levels[is_touched], has_moved[is_touched]
        sides = []
        for side in (1, -1):
            standing = (touched <= self._first_below(price)) if side == 1 else (touched >= self._first_above(price))
            standing &= np.abs(touched - price // self.grid) <= DEPTH
            gone = touched[~standing & has_moved]
            changed = {old - side: 0 for old in path[:-1]}
            changed |= dict.fromkeys((gone * self.grid).tolist(), 0)
            stays = touched[standing]
            changed |= zip((stays * self.grid).tolist(), self._amounts(stays, last_tick, side), strict=True)
            changed |= [self._touch(price, last_tick, side)]
            sides.append(sorted(changed.items(), reverse=side == 1))
        return sides[0], sides[1]

    def best(self, price: int, tick: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The best bid and the best ask at one tick."""
        return self._touch(price, tick, 1), self._touch(price, tick, -1)

    def _first_below(self, price: int) -> int:
        return (price - 2) // self.grid

    def _first_above(self, price: int) -> int:
        return -((-price - 2) // self.grid)

    def _touch(self, price: int, tick: int, side: int) -> tuple[int, int]:
        """The best bid (side 1) or the best ask (-1) around a price."""
        best = price - side
        chance = int(_mixed(np.array([best * 1_000_003 + tick // 10 + self.salt]))[0] % 1000)
        units = 1 + self.mean_units * (100 + chance) // 400
        if self.lean is not None:
            units += int(self.mean_units * TOUCH_LEVELS * (1 + side * self.lean(tick)))
        return best, units

    def _epochs(self, levels: Ints, tick: int) -> Ints:
        period, phase = self._rhythm(levels)
        return (tick + phase) // period

    def _rhythm(self, levels: Ints) -> tuple[Ints, Ints]:
        chance = _mixed(levels + self.salt)
        return 100 + (chance & np.uint64(255)).astype(np.int64), (chance >> np.uint64(20)).astype(np.int64) % 1024

    def _amounts(self, levels: Ints, tick: int, side: int) -> list[int]:
        period, phase = self._rhythm(levels)
        epochs = (tick + phase) // period
        renewed = epochs * period - phase
        lean = side * (mood(renewed) if self.lean is None else 0.0)
        chance = (_mixed(levels * 1_000_003 + epochs * side + self.salt) % np.uint64(1000)).astype(np.float64) / 1000
        return (1 + self.mean_units * (0.25 + 1.5 * chance) * (1 + lean)).astype(np.int64).tolist()


def mood(ticks: Ints) -> Floats:
    """How much more of all that rests are bids, from -0.5 to 0.5, at each tick since 1970."""
    return 0.3 * np.sin(ticks * (2 * np.pi / 970)) + 0.2 * np.sin(ticks * (2 * np.pi / 13_900))


def _mixed(numbers: Ints) -> Hashes:
    """Bits that look random and depend on the number only. Source: https://prng.di.unimi.it/splitmix64.c"""
    bits = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
