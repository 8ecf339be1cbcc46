"""Trades to candles of 1s, 1m and 1h, against freqtrade's converter and Polars' group_by_dynamic."""

from decimal import Decimal
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.figure import Figure
from benchmarks.homes import CANDLES, new_folder
from benchmarks.peers.environments import Environment, Ours
from benchmarks.peers.turns import Side, check, in_turns

# An environment of its own: what else is compared with freqtrade needs more packages.
FREQTRADE = Environment(name="freqtrade-converter", requirements=("freqtrade==2026.9",))
POLARS = Environment(name="polars", requirements=("polars==2.1.0", "numpy==2.4.6"))
RECORDED = CANDLES.parent / "order_book" / "ethusdt_trades_binance_spot_20240808T2354.parquet"
TIMEFRAMES = {"1s": 1000, "1m": 60_000, "1h": 3_600_000}
SYNTHETIC, LOOPS = 5_000_000, 100
SUMMED = 1e-9  # volumes: sums of floats in other orders, ours exact


def measure(repeats: int) -> list[Figure]:
    """A long tape that is made up, and the recorded one, which is short and taken many times over."""
    folder = new_folder("trades")
    folder.mkdir()
    made_up = folder / "synthetic.parquet"
    _made_up(SYNTHETIC).write_parquet(made_up)
    return [
        _measured(repeats, made_up, 1, f"{SYNTHETIC:,} synthetic trades"),
        _measured(repeats, RECORDED, LOOPS, f"the recorded trades, {LOOPS} times"),
    ]


def _measured(repeats: int, file: Path, loops: int, what: str) -> Figure:
    given = {"trades": str(file), "timeframes": list(TIMEFRAMES), "loops": loops}
    sides = {
        "Hindsight": Side(environment=Ours(), contender="hindsight_trades", given=given),
        "Polars, group_by_dynamic": Side(environment=POLARS, contender="polars_trades", given=given),
        "freqtrade, trades_to_ohlcv": Side(environment=FREQTRADE, contender="freqtrade_trades", given=given),
    }
    check(sides["Polars, group_by_dynamic"].answer(), sides, sides, relative=SUMMED)
    if file == RECORDED:
        check(_plainly(pl.read_parquet(file)), sides, sides, relative=SUMMED)
    taken = in_turns(repeats, sides)
    ours, polars, freqtrade = taken.samples.values()
    trades = pl.scan_parquet(file).select(pl.len()).collect().item() * loops * len(TIMEFRAMES)
    speeds = [trades / each.median / 1e6 for each in (ours, polars, freqtrade)]
    times = polars.median / ours.median
    return Figure(
        name=f"trades → candles {', '.join(TIMEFRAMES)}: {what}",
        goal="at least Polars",
        measured="{:.1f} M/s, Polars {:.1f} M/s, freqtrade {:.1f} M/s".format(*speeds),
        ratio=f"{times:.2f}× Polars, {freqtrade.median / ours.median:.2f}× freqtrade",
        is_reached=times >= 1,
        samples=taken.samples,
        notes=(
            "a trade counts once for each timeframe; trades are in memory, in one piece and in order, each side in the "
            "frame that it works on",
            f"minimum: {polars.minimum / ours.minimum:.2f}× Polars; processor: "
            f"{polars.processor / ours.processor:.2f}×",
            "the candles are the same to 1e-9: our volumes are exact sums of hundred-millionths, theirs of floats, in "
            "which the last digits hang on the order",
            "ours looks whether the frame is in the order of time, and that nothing in it is missing; Polars is told",
            *taken.footprint,
        ),
    )


def _made_up(count: int) -> pl.DataFrame:
    """Synthetic trades in the columns of the recorded ones: 10 a second in bursts, a walk of cents, mostly small."""
    chance = np.random.default_rng(0)
    waits = chance.exponential(100, count) * (chance.random(count) < 0.5) * 2  # every second one in the same instant
    return pl.DataFrame(
        {
            "ts_ms": 1_723_161_600_000 + np.cumsum(waits).astype(np.int64),
            "price": (260_000 + np.cumsum(chance.integers(-1, 2, count))) / 100,
            "qty": np.ceil(chance.lognormal(6, 2, count)) / 10_000,
            "side": np.where(chance.random(count) < 0.5, "buy", "sell"),
            "trade_id": np.arange(1, count + 1),
        }
    )


def _plainly(trades: pl.DataFrame) -> np.ndarray:
    """Open time and OHLCV, trade by trade."""
    rows = list(trades.select("ts_ms", "price", "qty").iter_rows())
    found = []
    for step_ms in TIMEFRAMES.values():
        for opened, each in groupby(rows, key=lambda row, step_ms=step_ms: row[0] // step_ms * step_ms):
            group = list(each)
            prices = [price for _, price, _ in group]
            volume = float(sum(Decimal(str(amount)) for *_, amount in group))
            found.append((opened, prices[0], max(prices), min(prices), prices[-1], volume))
    return np.array(found)
