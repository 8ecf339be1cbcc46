"""Computing indicators and five levels of pivots over two years of candles: arithmetic alone, no tables."""

import time
from typing import Any

import polars as pl

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import CANDLES_EACH, ETH, TWO_YEARS, new_folder, settings_in
from benchmarks.sampling import Samples, take_turns, timed
from hindsight.exchange.sources import open_source
from hindsight.market.candles import accept
from hindsight.market.indicators import compute
from hindsight.market.pivots import PivotState, advance

LIMIT = 2.0


def measure(repeats: int) -> Figure:
    """Indicators, then pivots, of 1,051,120 candles, with compiled code warm; and the first run of a new machine."""
    candles = two_years_of_candles()
    values = compute(candles, TWO_YEARS, ETH.step)
    turning = candles.join(values.select("open_time", "atr_14"), on="open_time", maintain_order="left")
    samples = take_turns(
        repeats,
        {
            "indicators": lambda: timed(lambda: compute(candles, TWO_YEARS, ETH.step)),
            "pivots": lambda: timed(lambda: advance(PivotState.initial(), turning, ETH.step, 3)),
        },
        warm_ups=("indicators", "pivots"),
    )
    both = sum(each.median for each in samples.values())
    first = fresh.run(first_run, environment={"NUMBA_CACHE_DIR": str(new_folder("numba"))}).result
    return Figure(
        name="indicators + pivots of 1,051,120 candles",
        goal=f"{LIMIT:g} s of compute",
        measured=f"{both:.2f} s",
        ratio=f"{both / LIMIT:.2f} of the limit",
        is_reached=both <= LIMIT,
        samples=samples,
        notes=(
            f"minimum {_total(samples, 'minimum'):.2f} s, processor {_total(samples, 'processor'):.2f} s",
            f"in a new process that has to compile the pivot rule first: indicators {first['indicators']:.2f} s, "
            f"pivots {first['pivots']:.2f} s",
        ),
    )


def two_years_of_candles() -> pl.DataFrame:
    """Every candle of ETH/USDT 1m, 2022 and 2023, as accepted at the door."""
    frames = open_source(settings_in(new_folder("unused"))).candles(ETH, TWO_YEARS)
    candles, _ = accept(pl.concat(list(frames)), ETH)
    if len(candles) != CANDLES_EACH:
        raise RuntimeError(f"expected {CANDLES_EACH:,} candles, found {len(candles):,}")
    return candles


def first_run() -> dict[str, Any]:
    """Seconds of the first indicators and the first pivots of this process."""
    candles = two_years_of_candles()
    started = time.perf_counter()
    values = compute(candles, TWO_YEARS, ETH.step)
    indicators = time.perf_counter() - started
    turning = candles.join(values.select("open_time", "atr_14"), on="open_time", maintain_order="left")
    started = time.perf_counter()
    advance(PivotState.initial(), turning, ETH.step, 3)
    return {"indicators": indicators, "pivots": time.perf_counter() - started}


def _total(samples: dict[str, Samples], of: str) -> float:
    return sum(getattr(each, of) for each in samples.values())
