"""Candles from trades: where a venue has none of a timeframe, and to check those that it has.

Trade ids count up by one at the venue. So ids without a hole prove that nothing is missing between two trades, and that
a candle between them in which there is none was quiet.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream

TRADES = pl.Schema(
    {"trade_id": pl.Int64, "time": TIME, "price": pl.Float64, "amount": pl.Float64, "side": pl.String}  # taker's side
)
UNITS = 100_000_000  # venues count amounts in hundred-millionths of a whole, and sums of those are exact
SURE = 2**50 / UNITS  # trades times wholes, up to which a sum of floats is less than half a unit from the exact one
BLOCK = 2**18  # times that are looked at together: what is made of them stays in the cache
LACKING = "expected trades that each have a time, a price and an amount, found some without"
FROM_TRADES = pl.Schema({"open_time": TIME} | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64))


def trade_frame(rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """Landed rows of trades of one market in the columns of TRADES, by id, each id once."""
    schema = {name: kind for name, kind in TRADES.items() if name != "time"} | {"time_ms": pl.Int64}
    frame = pl.DataFrame(list(rows), schema=schema).with_columns(time=(pl.col("time_ms") * 1000).cast(TIME))
    return frame.select(TRADES.names()).unique("trade_id").sort("trade_id")


def candles_from_trades(trades: pl.DataFrame, stream: Stream) -> pl.DataFrame:
    """open_time and OHLCV of every candle in which there is a trade; whether any are missing is not asked.

    Takes the columns of TRADES, by id. A trade on an edge belongs to the candle that opens there. Raises ValueError
    where a time is missing, or a price or an amount is not a finite number.
    """
    if trades.is_empty():
        return FROM_TRADES.to_frame()
    price, amount = trades["price"].to_numpy(), trades["amount"].to_numpy()
    if trades["time"].null_count() or not np.isfinite(amount.sum()):
        raise ValueError(LACKING)
    step_us = stream.step_ms * 1000
    time = trades["time"].to_numpy().view(np.int64)
    first = _changes(time, step_us)
    if (np.diff(time[first] // step_us) < 0).any():  # by id is not by time where a venue's clocks disagree
        order = np.argsort(time // step_us, kind="stable")
        time, price, amount = time[order], price[order], amount[order]
        first = _changes(time, step_us)
    last = np.append(first[1:], len(time)) - 1
    high, low = np.maximum.reduceat(price, first), np.minimum.reduceat(price, first)
    if not (np.isfinite(high) & np.isfinite(low)).all():
        raise ValueError(LACKING)
    columns = (time[first] // step_us * step_us, price[first], high, low, price[last], _sums(amount, first))
    named = zip(FROM_TRADES.items(), columns, strict=True)
    return pl.DataFrame([pl.Series(name, values).cast(kind) for (name, kind), values in named])


def _changes(time: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Where a time lies in another step than that before it, the first one included."""
    found = [np.zeros(1, np.int64)]
    for start in range(0, len(time) - 1, BLOCK):
        nth = time[start : start + BLOCK + 1] // step
        found.append(np.flatnonzero(nth[1:] != nth[:-1]) + start + 1)
    return np.concatenate(found)


def _sums(amount: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sums from each of `first` up to the next one, exact of amounts that are hundred-millionths."""
    added = np.add.reduceat(amount, first)
    is_sure = np.diff(first, append=len(amount)) * added < SURE
    rounded = np.rint(added * UNITS) / UNITS
    return rounded if is_sure.all() else np.where(is_sure, rounded, _counted(amount, first))


def _counted(amount: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same for sums of any size: wholes and hundred-millionths are counted apart, which no float rounds."""
    wholes = np.floor(amount)
    whole, parts = np.add.reduceat(wholes, first), np.add.reduceat(np.rint((amount - wholes) * UNITS), first)
    units = whole * UNITS + parts
    return np.where(units < 2**53, units / UNITS, whole + parts / UNITS)


def whole_candles(trades: pl.DataFrame, stream: Stream) -> pl.DataFrame:
    """open_time and OHLCV of the candles that the ids prove whole, quiet ones among them, with volume 0.

    Not proven are the candle of the first trade and that of the last, and those that a hole in the ids touches, from
    the trade before it to the trade after it. A quiet candle stands at the close before it.
    """
    if trades.is_empty():
        return FROM_TRADES.to_frame()
    placed = trades.select("trade_id", open_time=_open_time(stream))
    first, last = placed["open_time"].min(), placed["open_time"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    grid = pl.datetime_range(first, last, stream.step, eager=True).cast(TIME).to_frame("open_time")
    holes = placed.with_columns(before=pl.col("open_time").shift(1)).filter(pl.col("trade_id").diff() > 1)
    edges = pl.DataFrame(
        {"before": [first, last], "open_time": [first, last]}, schema={"before": TIME, "open_time": TIME}
    )
    unproven = pl.concat([holes.select("before", "open_time"), edges]).select(
        first=pl.min_horizontal("before", "open_time"), last=pl.max_horizontal("before", "open_time")
    )
    touched = grid.join_where(unproven, pl.col("open_time") >= pl.col("first"), pl.col("open_time") <= pl.col("last"))
    flat = pl.col("close").fill_null(strategy="forward")
    filled = grid.join(candles_from_trades(trades, stream), on="open_time", how="left").sort("open_time")
    return (
        filled.with_columns(close=flat)
        .with_columns(pl.col("open", "high", "low").fill_null(pl.col("close")), pl.col("volume").fill_null(0.0))
        .join(touched, on="open_time", how="anti")
        .sort("open_time")
        .cast(FROM_TRADES)
    )


def _open_time(stream: Stream) -> pl.Expr:
    """The open time of the candle that a trade belongs to."""
    step_us = stream.step_ms * 1000
    return (pl.col("time").to_physical() // step_us * step_us).cast(TIME)
