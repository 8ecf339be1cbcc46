"""The process that the simulated venue trades: closes of minutes from one chain, seconds bridged between them.

This is the market with momentum, and with phi = 0 the one without any signal; the others are in simulated_signals.py.

Minutes: the log return of minute t is r_t = sigma_t * z_t. z is an AR(1) chain of unit variance with coefficient phi:
all that can be known about the next sign is the sign of phi * z_t, and it comes true with probability
1/2 + arcsin(phi) / pi (Sheppard's formula, https://en.wikipedia.org/wiki/Orthant_probability). sigma is a regime that
lasts four hours and says nothing about signs. Seconds: a Brownian bridge between two closes, so that the path inside a
minute adds nothing to what its close tells.

Chance is drawn from one generator per symbol, purpose and block of time, so that any day can be made by itself; the
only things carried from block to block are the last z, regime and log price.
"""

from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

MINUTES = 24 * 60
SECONDS = 24 * 60 * 60
DAYS_PER_BLOCK = 30
MINUTES_PER_REGIME = 240
VOLATILITY = 5e-4  # standard deviation of a 1m log return in an ordinary regime, before damping
REGIME_SPREAD = 0.4  # standard deviation of log sigma between regimes
REGIME_MEMORY = 0.8  # AR(1) coefficient from one regime to the next
QUIET = 0.1  # share of seconds without a trade
OUTAGES_PER_DAY = 1 / 3
LATE_TRADES_PER_DAY = 1 / 3
LONGEST_OUTAGE_MINUTES = 5
LONGEST_DELAY_SECONDS = 300
LEVELS_TO_PRICE = 60_000  # levels of the order book between nothing and the first price
LOT = 2.0**-10  # a power of two: volumes then add up to the same float in any order


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A symbol of the simulated venue: where its price starts, its tick (10 ** -decimals) and lots per second."""

    symbol: str
    first_price: float
    decimals: int
    lots: float

    @classmethod
    def of(cls, symbol: str) -> "Instrument":
        """The instrument traded as `symbol`; every symbol exists. Ticks are fine enough that few minutes close flat."""
        known = {"BTC": (60_000.0, 2, 600.0), "ETH": (3_000.0, 3, 5_000.0)}
        first_price, decimals, lots = known.get(symbol.partition("/")[0], (100.0, 5, 50_000.0))
        return cls(symbol=symbol, first_price=first_price, decimals=decimals, lots=lots)

    @property
    def grid(self) -> int:
        """Ticks between two levels of its order book."""
        return max(1, round(self.first_price * 10**self.decimals / LEVELS_TO_PRICE))

    @property
    def level_lots(self) -> float:
        """Lots that rest at a level on average."""
        return self.lots / 4


@dataclass(frozen=True, slots=True)
class Seconds:
    """The seconds of one UTC day as first delivered: int64 [86,400] each, prices in ticks, volume in lots."""

    open: Ints
    high: Ints
    low: Ints
    close: Ints
    lots: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class LateTrades:
    """Trades that were missing from the last second of a minute until `known_at`; they never move the close."""

    second: int  # of the UTC day
    known_at: int  # second of the UTC day, may lie in the next day
    high: int
    low: int
    lots: int


def generator(seed: int, symbol: str, purpose: str, block: int) -> np.random.Generator:
    """The random numbers of one symbol, purpose and block of time: independent of all others, the same every time."""
    digest = sha256(f"{seed} {symbol} {purpose} {block}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


class MinuteChain:
    """Closes and volatilities of the minutes of one symbol, for any day since the first."""

    def __init__(self, seed: int, phi: float, instrument: Instrument) -> None:
        self.seed, self.phi, self.instrument = seed, phi, instrument
        first = generator(seed, instrument.symbol, "first", 0).standard_normal(2)
        # What block k carries over from block k - 1: z, regime, log price. Block 0 starts in the stationary law.
        self._carried = [(float(first[0]), float(first[1]), float(np.log(instrument.first_price)))]
        self._latest: tuple[int, Ints, Floats] | None = None

    def day(self, day: int) -> tuple[Ints, Floats]:
        """Closes in ticks [1 + 1440], the first being the close before the day, and sigma [1440] of day `day`."""
        index, offset = divmod(day, DAYS_PER_BLOCK)
        if self._latest is None or self._latest[0] != index:
            while len(self._carried) <= index:
                self._block(len(self._carried) - 1)
            self._latest = (index, *self._block(index))
        _, closes, sigma = self._latest
        minutes = slice(offset * MINUTES, (offset + 1) * MINUTES)
        return closes[minutes.start : minutes.stop + 1], sigma[minutes]

    def _block(self, index: int) -> tuple[Ints, Floats]:
        """Closes [1 + minutes] and sigma of one block; remembers what the next one carries over."""
        z_before, regime_before, log_before = self._carried[index]
        noise = generator(self.seed, self.instrument.symbol, "minutes", index)
        z = _ar1(self.phi, z_before, noise.standard_normal(DAYS_PER_BLOCK * MINUTES))
        regime = _ar1(
            REGIME_MEMORY, regime_before, noise.standard_normal(DAYS_PER_BLOCK * MINUTES // MINUTES_PER_REGIME)
        )
        # Persistent returns add up to a wilder price: damped, so that phi near 1 does not send it to zero.
        damping = min(1.0, np.sqrt((1 - self.phi) / (1 + self.phi)))
        sigma = np.repeat(
            VOLATILITY * damping * np.exp(REGIME_SPREAD * regime - REGIME_SPREAD**2 / 2), MINUTES_PER_REGIME
        )
        log_price = np.cumsum(np.concatenate([[log_before], sigma * z]))
        if len(self._carried) == index + 1:
            self._carried.append((float(z[-1]), float(regime[-1]), float(log_price[-1])))
        return np.rint(np.exp(log_price) * 10**self.instrument.decimals).astype(np.int64), sigma


def _ar1(coefficient: float, before: float, noise: Floats) -> Floats:
    """An AR(1) chain of unit variance, going on from `before`."""
    # A plain loop: 43,200 steps take 3 ms, importing scipy.signal for lfilter takes 900.
    fresh = (np.sqrt(1 - coefficient**2) * noise).tolist()
    return np.array(list(accumulate(fresh, lambda last, new: coefficient * last + new, initial=before))[1:])


def seconds_of_day(seed: int, instrument: Instrument, day: int, closes: Ints, sigma: Floats) -> Seconds:
    """The seconds of one day, bridged between the closes of its minutes, which they hit exactly."""
    noise = generator(seed, instrument.symbol, "seconds", day)
    before, after = closes[:-1, None], closes[1:, None]
    elapsed = np.arange(1, 61) / 60
    walk = np.cumsum(noise.standard_normal((MINUTES, 60)), axis=1)
    bridge = walk - walk[:, -1:] * elapsed
    path = np.rint(before + (after - before) * elapsed + bridge * _volatility(closes[:-1], sigma)).astype(np.int64)

    traded = noise.random((MINUTES, 60)) >= QUIET
    traded[:, -1] = True  # or the minute would miss its close
    return traded_seconds(noise, instrument, closes[:-1], sigma, path, traded)


def traded_seconds(
    noise: np.random.Generator, instrument: Instrument, opens: Ints, sigma: Floats, path: Ints, traded: Booleans
) -> Seconds:
    """The seconds of one day whose last prices are `path` where they `traded`, both [1440, 60].

    Its minutes open at `opens` [1440] and have volatility `sigma` [1440].
    """
    before, volatility = opens[:, None], _volatility(opens, sigma)
    latest_trade = np.maximum.accumulate(np.where(traded, np.arange(1, 61), 0), axis=1)
    close = np.take_along_axis(np.concatenate([before, path], axis=1), latest_trade, axis=1)
    open_ = np.concatenate([before, close[:, :-1]], axis=1)
    above, below = (0.3 * volatility * noise.standard_exponential((2, MINUTES, 60))).astype(np.int64)
    high = np.maximum(open_, close) + np.where(traded, above, 0)
    low = np.minimum(open_, close) - np.where(traded, below, 0)
    bustle = sigma[:, None] / VOLATILITY  # wild regimes trade more
    lots = np.where(
        traded, 1 + (instrument.lots * bustle * noise.standard_exponential((MINUTES, 60))).astype(np.int64), 0
    )
    return Seconds(*(column.reshape(-1) for column in (open_, high, low, close, lots)))


def _volatility(opens: Ints, sigma: Floats) -> Floats:
    """Ticks per square root of a second, in each of M minutes [M, 1]."""
    return (sigma * opens)[:, None] / np.sqrt(60)


def outage_of_day(seed: int, instrument: Instrument, day: int) -> slice | None:
    """The seconds of the day that nobody delivered: 1..5 whole minutes on one day in three, never across midnight."""
    chance, start, length = generator(seed, instrument.symbol, "outage", day).random(3)
    if chance >= OUTAGES_PER_DAY:
        return None
    minutes = 1 + int(length * LONGEST_OUTAGE_MINUTES)
    first = int(start * (MINUTES - LONGEST_OUTAGE_MINUTES))
    return slice(first * 60, (first + minutes) * 60)


def delivered_of_day(seed: int, instrument: Instrument, day: int) -> Booleans:
    """Which seconds of the day were delivered [86,400]: all but those of its outage."""
    is_delivered = np.ones(SECONDS, dtype=np.bool_)
    outage = outage_of_day(seed, instrument, day)
    if outage is not None:
        is_delivered[outage] = False
    return is_delivered


def late_trades_of_day(seed: int, instrument: Instrument, day: int, seconds: Seconds) -> LateTrades | None:
    """The trades that came late on one day in three: in the last second of a minute, every fourth time of an hour."""
    noise = generator(seed, instrument.symbol, "late trades", day)
    chance, minute, whole_hour, delay, side, size = noise.random(6)
    if chance >= LATE_TRADES_PER_DAY:
        return None
    last_minute = int(minute * 24) * 60 + 59 if whole_hour < 0.25 else int(minute * MINUTES)
    second = last_minute * 60 + 59
    outage = outage_of_day(seed, instrument, day)
    if outage is not None and outage.start <= second < outage.stop:
        return None
    # The late trades go beyond the minute's own range on one side, both or neither.
    of_minute = slice(second - 59, second + 1)
    high, low = int(seconds.high[of_minute].max()), int(seconds.low[of_minute].min())
    beyond = 1 + int(size * (high - low) / 2)
    return LateTrades(
        second=second,
        known_at=second + 1 + 2 + int(delay**2 * (LONGEST_DELAY_SECONDS - 2)),
        high=high + beyond if side < 0.6 else int(seconds.close[second]),
        low=low - beyond if 0.4 <= side < 0.9 else int(seconds.close[second]),
        lots=1 + int(size * instrument.lots * 20),
    )
