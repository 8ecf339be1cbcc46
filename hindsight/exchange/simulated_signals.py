"""Signals: what can be known beforehand in the simulated market. One of them is planted at a time.

| signal | what tells the sign of the next return | of which candles |
|---|---|---|
| momentum | the return before | 1m, of every symbol |
| lead | the return of BTC, LEAD_SECONDS before | 1s, of every symbol but BTC |
| imbalance | the order book at the end of the second before | 1s, of every symbol |
| none | nothing | |

What tells and what is told are Gaussian with correlation rho: the sign of rho times the one is that of the other with
probability 1/2 + arcsin(|rho|) / pi (Sheppard's formula, https://en.wikipedia.org/wiki/Orthant_probability), and no
prediction is right more often.

Under lead and imbalance the second s returns sigma * (rho * told(s) + sqrt(1 - rho^2) * own(s)), both independent from
one second to the next, so that a symbol's own past tells nothing. Every second trades. A day is bridged between the
midnights of a chain without momentum: the ends of a bridge being independent of it, what comes out is a random walk.
"""

import math
from typing import Literal

import numpy as np

from hindsight.exchange.simulated_market import (
    MINUTES,
    SECONDS,
    Floats,
    Instrument,
    Ints,
    Seconds,
    generator,
    traded_seconds,
)

Signal = Literal["momentum", "lead", "imbalance", "none"]
LEADER = "BTC"
LEAD_SECONDS = 2
LEAN_SECONDS = 1
TIMEFRAMES: dict[Signal, str | None] = {"momentum": "1m", "lead": "1s", "imbalance": "1s", "none": None}


def optimum(signal: Signal, rho: float) -> float:
    """The share of signs of the next return that the best prediction gets right; for rho < 0 it bets on reversal."""
    return 0.5 if signal == "none" else 0.5 + math.asin(abs(rho)) / math.pi


def own_of_day(seed: int, symbol: str, day: int) -> Floats:
    """What nothing tells beforehand of the returns of a day's seconds: unit variance [86,400]."""
    return generator(seed, symbol, "walk", day).standard_normal(SECONDS)


def leaning_of_day(seed: int, symbol: str, day: int) -> Floats:
    """Where the order book leans in each second of a day, bids being above zero: unit variance [86,400]."""
    return generator(seed, symbol, "leaning", day).standard_normal(SECONDS)


def returns_of_day(signal: Signal, seed: int, symbol: str, day: int, rho: float) -> Floats:
    """The returns of a day's seconds under lead or imbalance, in units of their sigma [86,400]."""
    base, _, quote = symbol.partition("/")
    own = own_of_day(seed, symbol, day)
    if signal == "imbalance":
        told, told_before = (leaning_of_day(seed, symbol, each) for each in (day, day - 1))
        lag = LEAN_SECONDS
    elif base != LEADER:
        told, told_before = (own_of_day(seed, f"{LEADER}/{quote}", each) for each in (day, day - 1))
        lag = LEAD_SECONDS
    else:
        return own
    return rho * np.concatenate([told_before[-lag:], told[:-lag]]) + math.sqrt(1 - rho**2) * own


def told_seconds_of_day(
    signal: Signal, seed: int, instrument: Instrument, day: int, rho: float, closes: Ints, sigma: Floats
) -> Seconds:
    """The seconds of one day under lead or imbalance, between the first and the last of a chain's closes."""
    volatility = np.repeat(sigma / math.sqrt(60), 60)
    walk = np.cumsum(volatility * returns_of_day(signal, seed, instrument.symbol, day, rho))
    before, after = np.log(closes[0]), np.log(closes[-1])
    variance = np.cumsum(volatility**2)
    bridged = walk + (after - before - walk[-1]) * (variance / variance[-1])
    path = np.rint(np.exp(before + bridged)).astype(np.int64).reshape(MINUTES, 60)

    opens = np.concatenate([closes[:1], path[:-1, -1]])
    noise = generator(seed, instrument.symbol, "seconds", day)
    return traded_seconds(noise, instrument, opens, sigma, path, np.ones(path.shape, dtype=np.bool_))
