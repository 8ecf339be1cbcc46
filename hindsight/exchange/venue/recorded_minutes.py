"""Recorded 1m candles as a market: what the file says about each minute, and a made-up path inside it.

    minutes_market(Path("../shared/data/candles"), "binance", ("ETH/USDT", "BTC/USDT"))

The path inside a minute is synthetic: from the open to one extreme, to the other, to the close (the low first in a
minute that rises), in straight lines whose corners fall on other seconds each time. So are the seconds' volumes, the
trades and the order book. Candles of a minute and longer are the recorded ones, added up; 1s candles are synthetic.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from hindsight.exchange.archive import Archive
from hindsight.exchange.simulated_market import MINUTES, SECONDS, Floats, Ints, Seconds, generator
from hindsight.exchange.venue.book import SyntheticBook
from hindsight.exchange.venue.made_up_trades import TRADES_PER_MINUTE, trades_of_minute
from hindsight.exchange.venue.market import Listing
from hindsight.exchange.venue.rolled_up import rolled_up
from hindsight.exchange.venue.seconds import DAY_MS, MINUTE_MS, Day, MinuteTrades
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.market.candles import CANDLES, PRICES
from hindsight.market.streams import EPOCH, TIMEFRAMES, Stream, Window

EVER = Window(start=datetime(1980, 1, 1, tzinfo=UTC), end=datetime(2200, 1, 1, tzinfo=UTC))
MOST_DECIMALS = 10
LARGEST = 2.0**62  # of the units of a day's volume
LEAST_UNITS = 16  # of a second, where a minute's volume is enough for that: one for each trade
LEVELS_TO_PRICE = 60_000  # levels of the book between nothing and the first price


class RecordedMinutes:
    """A DaySource over an archive's 1m candles, from where all symbols have begun to where the first one ends."""

    units_per_lot = 1

    def __init__(self, archive: Archive, venue: str, symbols: Sequence[str]) -> None:
        self.archive = archive
        self.streams = {
            symbol.replace("/", ""): Stream(venue=venue, symbol=symbol, timeframe="1m") for symbol in symbols
        }
        surveys = {id_: _survey(archive, stream) for id_, stream in self.streams.items()}
        self.listings = {id_: listing for id_, (listing, _) in surveys.items()}
        self.timeframes = {name: step // timedelta(milliseconds=1) for name, step in TIMEFRAMES.items()}
        opened = {id_: frame["open_time"].to_physical().to_numpy() // 1000 for id_, (_, frame) in surveys.items()}
        self.opening_ms = int(max(each[0] for each in opened.values()))
        self._closing_ms = int(min(each[-1] for each in opened.values())) + MINUTE_MS
        self.first_prices = {id_: float(frame["open"][0]) for id_, (_, frame) in surveys.items()}
        self._quiet = {
            id_: opened[id_][(frame["volume"] == 0).to_numpy()] // MINUTE_MS for id_, (_, frame) in surveys.items()
        }
        self.day = lru_cache(maxsize=3 * len(symbols))(self._day)

    @property
    def closing_ms(self) -> int | None:
        return self._closing_ms

    def start_ms(self, present_ms: int) -> int:
        return self.opening_ms

    def delivered(self, symbol: str, timeframe: str, day: int) -> pl.DataFrame:
        if timeframe == "1m":
            return self._minutes(symbol, day)
        return rolled_up(self, self.day(symbol, day), day, self.listings[symbol], timeframe)

    def trades(self, symbol: str, minute: int) -> MinuteTrades:
        day, in_day = divmod(minute, MINUTES)
        noise = generator(0, symbol, "trades", minute)
        return trades_of_minute(self.day(symbol, day), in_day, self.units_per_lot, noise)

    def first_trade_id(self, symbol: str, minute: int) -> int:
        quiet = int(np.searchsorted(self._quiet[symbol], minute))  # ids do not jump over what is known to be quiet
        return (minute - self.opening_ms // MINUTE_MS - quiet) * TRADES_PER_MINUTE + 1

    def minute_of_trade(self, symbol: str, trade_id: int) -> int:
        wanted = (trade_id - 1) // TRADES_PER_MINUTE + self.opening_ms // MINUTE_MS
        minute = wanted
        while (found := wanted + int(np.searchsorted(self._quiet[symbol], minute))) != minute:
            minute = found
        return minute

    def _minutes(self, symbol: str, day: int) -> pl.DataFrame:
        start = EPOCH + timedelta(days=day)
        frames = self.archive.candles(self.streams[symbol], Window(start=start, end=start + timedelta(days=1)))
        frame = pl.concat([pl.DataFrame(schema=CANDLES), *frames])
        opened = pl.col("open_time").to_physical() // 1000
        return frame.filter(opened >= self.opening_ms, opened < self._closing_ms)

    def _day(self, symbol: str, day: int) -> Day:
        """The seconds of one day, made up inside its minutes."""
        listing, frame = self.listings[symbol], self._minutes(symbol, day)
        minutes = (frame["open_time"].to_physical().to_numpy() // 1000 - day * DAY_MS) // MINUTE_MS
        open_, high, low, close = (
            np.rint(frame[name].to_numpy() * 10**listing.price_decimals).astype(np.int64) for name in PRICES
        )
        units = np.rint(frame["volume"].to_numpy() * 10.0**listing.amount_decimals).astype(np.int64)
        noise = generator(0, symbol, "path", day)
        path = _path(open_, high, low, close, noise)
        opens = np.concatenate([open_[:, None], path[:, :-1]], axis=1)
        columns = [opens, np.maximum(opens, path), np.minimum(opens, path), path, _shared(units, noise)]
        filled = [np.zeros((MINUTES, 60), dtype=np.int64) for _ in columns]
        for whole, column in zip(filled, columns, strict=True):
            whole[minutes] = column
        is_delivered = np.zeros((MINUTES, 60), dtype=np.bool_)
        is_delivered[minutes] = True
        seconds = Seconds(*(column.reshape(SECONDS) for column in filled))
        return Day(seconds=seconds, is_delivered=is_delivered.reshape(SECONDS), late=None)


def minutes_market(folder: Path, venue: str, symbols: Sequence[str]) -> SecondsMarket:
    """The 1m candles of an archive as a market. Raises ArchiveUnreadable where it has none of a symbol."""
    minutes = RecordedMinutes(Archive(folder), venue, symbols)
    books = {}
    for number, (id_, listing) in enumerate(minutes.listings.items(), start=1):
        ticks = round(minutes.first_prices[id_] * 10**listing.price_decimals)
        units = round(10_000 / minutes.first_prices[id_] * 10**listing.amount_decimals)  # of a level: 10,000 in quote
        grid = max(1, ticks // LEVELS_TO_PRICE)
        books[id_] = SyntheticBook(grid=grid, mean_units=max(1, units), salt=7919 * number)
    return SecondsMarket(minutes, books)


def _survey(archive: Archive, stream: Stream) -> tuple[Listing, pl.DataFrame]:
    """The finest steps of an archive's numbers, and the open times, opens and volumes of all its candles."""
    frames = list(archive.candles(stream, EVER))
    prices = max(_decimals(frame[name].to_numpy()) for frame in frames for name in PRICES)
    frame = pl.concat([frame.select("open_time", "open", "volume") for frame in frames])
    volumes = frame["volume"].to_numpy()
    # Fine enough that small volumes can be cut into trades, coarse enough that a day's volume is a whole number.
    room = int(math.log10(LARGEST / (volumes.max() * MINUTES + 1)))
    amounts = min(max(_decimals(volumes), min(MOST_DECIMALS, room)), max(room, 0))
    return Listing(symbol=stream.symbol, price_decimals=prices, amount_decimals=amounts), frame


def _decimals(values: Floats) -> int:
    """How many decimals it takes to write all of `values` down, MOST_DECIMALS at most."""
    return next(
        (places for places in range(MOST_DECIMALS) if (np.rint(values * 10**places) / 10**places == values).all()),
        MOST_DECIMALS,
    )


def _path(open_: Ints, high: Ints, low: Ints, close: Ints, noise: np.random.Generator) -> Ints:
    """The last price of each second of M minutes [M, 60]: straight to one extreme, to the other, and to the close."""
    rises = close >= open_
    first, second = np.where(rises, low, high)[:, None], np.where(rises, high, low)[:, None]
    corner = noise.integers([8, 32], [24, 52], size=(len(open_), 2))
    early, late = corner[:, :1], corner[:, 1:]
    now = np.arange(60)[None, :]
    start, end = open_[:, None], close[:, None]
    path = np.where(
        now <= early,
        start + (first - start) * ((now + 1) / (early + 1)),
        np.where(
            now <= late,
            first + (second - first) * ((now - early) / (late - early)),
            second + (end - second) * ((now - late) / (59 - late)),
        ),
    )
    return np.rint(path).astype(np.int64)


def _shared(units: Ints, noise: np.random.Generator) -> Ints:
    """The volume of M minutes, cut into whole units for their seconds [M, 60]."""
    least = np.minimum(LEAST_UNITS, units // 60)
    weight = np.cumsum(noise.standard_exponential((len(units), 60)), axis=1)
    reached = (weight / weight[:, -1:] * (units - 60 * least)[:, None]).astype(np.int64)
    reached[:, -1] = units - 60 * least
    return least[:, None] + np.diff(reached, axis=1, prepend=0)
