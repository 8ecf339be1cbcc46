"""Candles of any timeframe, added up from a recorded day's seconds."""

from datetime import timedelta

import polars as pl

from hindsight.exchange.simulated import add_up
from hindsight.exchange.venue.market import Listing
from hindsight.exchange.venue.seconds import DAY_MS, Day, DaySource
from hindsight.market.candles import CANDLES, PRICES, TIME, first_delivery
from hindsight.market.streams import Stream


def rolled_up(source: DaySource, made: Day, day: int, listing: Listing, timeframe: str) -> pl.DataFrame:
    """The candles of one day in the columns of CANDLES: those that lie between a recording's first and last instant."""
    stream = Stream(venue="binance", symbol=listing.symbol, timeframe=timeframe)
    opens, columns = add_up(made.seconds, made.is_delivered, stream.step // timedelta(seconds=1))
    scale = 10**listing.amount_decimals
    frame = pl.DataFrame(
        {
            "open_time": (opens * 1000 + day * DAY_MS) * 1000,
            **dict(zip(PRICES, columns[:4] / 10**listing.price_decimals, strict=True)),
            "volume": [units / scale for units in columns[4].tolist()],  # of whole numbers, however large, exact
        }
    )
    frame = first_delivery(frame.with_columns(pl.col("open_time").cast(TIME)), stream).cast(CANDLES)
    opened_ms, closed_ms = (pl.col(name).to_physical() // 1000 for name in ("open_time", "recorded_at"))
    closing_ms = source.closing_ms
    return frame.filter(opened_ms >= source.opening_ms, True if closing_ms is None else closed_ms <= closing_ms)
