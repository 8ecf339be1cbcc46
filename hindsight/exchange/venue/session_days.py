"""The trades of recorded sessions, and the seconds that they add up to."""

from datetime import timedelta
from functools import lru_cache

import numpy as np
import polars as pl

from hindsight.exchange.simulated_market import SECONDS, Seconds
from hindsight.exchange.venue.market import Listing
from hindsight.exchange.venue.rolled_up import rolled_up
from hindsight.exchange.venue.seconds import DAY_MS, MINUTE_MS, Day, MinuteTrades
from hindsight.exchange.venue.session_files import TRADE, SessionFiles
from hindsight.market.streams import TIMEFRAMES

DECIMALS = 8  # Binance's, for prices and amounts
COLUMNS = pl.Schema({"id": pl.Int64, "time": pl.Int64, "price": pl.Int64, "units": pl.Int64, "is_maker": pl.Boolean})


class SessionDays:
    """A DaySource over the trades of recorded sessions, for the whole seconds in which all symbols were recorded."""

    units_per_lot = 1

    def __init__(self, files: dict[str, SessionFiles], listings: dict[str, Listing]) -> None:
        self.listings = listings
        self.timeframes = {name: step // timedelta(milliseconds=1) for name, step in TIMEFRAMES.items()}
        self._trades = {id_: _table(each) for id_, each in files.items()}
        first = max(table["time"][0] for table in self._trades.values())
        last = min(table["time"][-1] for table in self._trades.values())
        self.opening_ms, self._closing_ms = -(-first // 1000) * 1000, last // 1000 * 1000
        self.day = lru_cache(maxsize=2 * len(files))(self._day)

    @property
    def closing_ms(self) -> int | None:
        return self._closing_ms

    def start_ms(self, present_ms: int) -> int:
        return self.opening_ms

    def delivered(self, symbol: str, timeframe: str, day: int) -> pl.DataFrame:
        return rolled_up(self, self.day(symbol, day), day, self.listings[symbol], timeframe)

    def trades(self, symbol: str, minute: int) -> MinuteTrades:
        table = self._trades[symbol]
        start, end = (int(table["time"].search_sorted(edge * MINUTE_MS)) for edge in (minute, minute + 1))
        _, time, price, units, is_maker = (column.to_numpy() for column in table[start:end])
        in_day = time - minute * MINUTE_MS // DAY_MS * DAY_MS
        return MinuteTrades(in_day, in_day, price, units, is_maker)

    def first_trade_id(self, symbol: str, minute: int) -> int:
        table = self._trades[symbol]
        return int(table["id"][0]) + int(table["time"].search_sorted(minute * MINUTE_MS))

    def minute_of_trade(self, symbol: str, trade_id: int) -> int:
        table = self._trades[symbol]
        place = min(max(trade_id - int(table["id"][0]), 0), len(table) - 1)
        return int(table["time"][place]) // MINUTE_MS

    def _day(self, symbol: str, day: int) -> Day:
        """The seconds of one day; those without a trade repeat the price before them."""
        table = self._trades[symbol].filter(pl.col("time") // DAY_MS == day)
        second = pl.col("time") % DAY_MS // 1000
        traded = table.group_by(second.alias("second"), maintain_order=True).agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            lots=pl.col("units").sum(),
        )
        every = pl.DataFrame({"second": np.arange(SECONDS)}).join(
            traded, on="second", how="left", maintain_order="left"
        )
        before = self._trades[symbol].filter(pl.col("time") < day * DAY_MS)["price"]
        every = every.with_columns(pl.col("close").forward_fill().fill_null(before[-1] if len(before) else 0))
        every = every.with_columns(
            *(pl.col(name).fill_null(pl.col("close")) for name in ("open", "high", "low")), pl.col("lots").fill_null(0)
        )
        moment_ms = np.arange(SECONDS) * 1000 + day * DAY_MS
        return Day(
            seconds=Seconds(*(every[name].to_numpy() for name in ("open", "high", "low", "close", "lots"))),
            is_delivered=(moment_ms >= self.opening_ms) & (moment_ms < self._closing_ms),
            late=None,
        )


def _table(files: SessionFiles) -> pl.DataFrame:
    """The trades of a session, by id."""
    rows = [
        (each["t"], each["T"], _whole(each["p"]), _whole(each["q"]), each["m"])
        for _, each in files.lines(TRADE)
        if isinstance(each, dict)
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row").sort("id")


def _whole(text: object) -> int:
    return round(float(str(text)) * 10**DECIMALS)
