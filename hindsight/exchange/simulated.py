"""The simulated venue: a seeded market whose predictability is known, served like an exchange.

Every timeframe is added up from the same seconds, so all of them agree to the bit, as first delivered and as corrected.
A run of 1..5 minutes is missing about every third day (in all timeframes), and about as often some trades of the last
second of a minute come late: the candles that had closed by then get a revision. Closes are never revised.

    from hindsight.exchange.simulated import SimulatedVenue
    SimulatedVenue(seed=7, phi=0.3).optimal_accuracy    # 0.597: nobody predicts the sign of the next 1m return better
    SimulatedVenue(seed=7, phi=0.3, signal="lead").signal_timeframe    # 1s: there it is, see simulated_signals.py
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from hindsight.errors import SettingRefused
from hindsight.exchange.simulated_books import books_of_day
from hindsight.exchange.simulated_market import (
    LONGEST_DELAY_SECONDS,
    LOT,
    SECONDS,
    Booleans,
    Instrument,
    Ints,
    LateTrades,
    MinuteChain,
    Seconds,
    delivered_of_day,
    late_trades_of_day,
    seconds_of_day,
)
from hindsight.exchange.simulated_signals import TIMEFRAMES, Signal, leaning_of_day, optimum, told_seconds_of_day
from hindsight.market.book_rows import BOOK_SECONDS
from hindsight.market.buckets import bucket_size
from hindsight.market.candles import CANDLES
from hindsight.market.streams import EPOCH, Stream, Window

OPENING = datetime(2024, 1, 1, tzinfo=UTC)  # the venue's first instant; there are no candles before it
FRAME_ROWS = 250_000
OPENING_DAY = (OPENING - EPOCH).days


class SimulatedVenue:
    """A deterministic market: the same seed, phi and signal give the same market, in whatever pieces it is asked for.

    `phi` is the correlation between a return and what tells it; `sizes` are widths of order-book buckets, by base.
    """

    def __init__(
        self, seed: int, phi: float, signal: Signal = "momentum", sizes: Mapping[str, float] | None = None
    ) -> None:
        if not -1 < phi < 1:
            raise SettingRefused(f"setting simulated_phi = {phi}: expected a number between -1 and 1, both excluded")
        self.seed, self.phi, self.sizes = seed, phi, dict(sizes or {})
        self.signal: Signal = signal
        self._chains: dict[str, MinuteChain] = {}

    @property
    def optimal_accuracy(self) -> float:
        """The share of signs of the next return that the best prediction gets right, in candles of signal_timeframe.

        Under lead this is true of every symbol but BTC, of which nothing is known beforehand.
        """
        return optimum(self.signal, self.phi)

    @property
    def signal_timeframe(self) -> str | None:
        """The timeframe in which the signal is planted; None where there is none."""
        return TIMEFRAMES[self.signal]

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        """First deliveries closed by the window's end, and corrections recorded in it; the end is the venue's clock."""
        _check(stream, window)
        pending: list[pl.DataFrame] = []
        # A correction may be recorded after the midnight that ends its candle's day.
        reaching_back = window.start - timedelta(seconds=LONGEST_DELAY_SECONDS)
        first_day, last_day = (reaching_back - EPOCH).days, (window.end - EPOCH - timedelta(microseconds=1)).days
        for day in range(max(first_day, OPENING_DAY), last_day + 1):
            frame = self._day(stream, day).filter(
                pl.when(pl.col("revision") == 0)
                .then((pl.col("open_time") >= window.start) & (pl.col("recorded_at") <= window.end))
                .otherwise((pl.col("recorded_at") > window.start) & (pl.col("recorded_at") <= window.end))
            )
            if sum(map(len, pending)) + len(frame) > FRAME_ROWS:
                yield pl.concat(pending)
                pending = []
            if len(frame):
                pending.append(frame)
        if pending:
            yield pl.concat(pending)

    def order_book(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        """The order book of the stream's market at the end of each delivered second of the window, in BOOK_SECONDS.

        A frame holds the seconds of a day that have ended by the window's end.
        """
        _check(stream, window)
        instrument, second = Instrument.of(stream.symbol), timedelta(seconds=1)
        size = bucket_size(stream.symbol, instrument.first_price, self.sizes)
        first, end = -((EPOCH - window.start) // second), (window.end - EPOCH) // second
        for day in range(max(first // SECONDS, OPENING_DAY), -(-end // SECONDS)):
            chosen = np.arange(max(first - day * SECONDS, 0), min(end - day * SECONDS, SECONDS))
            chosen = chosen[delivered_of_day(self.seed, instrument, day)[chosen]]
            if len(chosen):
                closes = self.seconds(stream.symbol, day).close
                leaning = leaning_of_day(self.seed, stream.symbol, day) if self.signal == "imbalance" else None
                rows = books_of_day(self.seed, instrument, day, closes, leaning, size=size, chosen=chosen)
                venue = pl.lit(stream.venue)
                yield rows.with_columns(venue=venue, venues=pl.concat_list(venue)).select(BOOK_SECONDS.names())

    def seconds(self, symbol: str, day: int) -> Seconds:
        """The seconds of one UTC day since 1970, also of those that are not delivered."""
        instrument = Instrument.of(symbol)
        if symbol not in self._chains:
            phi = self.phi if self.signal == "momentum" else 0.0
            self._chains[symbol] = MinuteChain(self.seed, phi, instrument)
        closes, sigma = self._chains[symbol].day(day - OPENING_DAY)
        if self.signal in ("lead", "imbalance"):
            return told_seconds_of_day(self.signal, self.seed, instrument, day, self.phi, closes, sigma)
        return seconds_of_day(self.seed, instrument, day, closes, sigma)

    def _day(self, stream: Stream, day: int) -> pl.DataFrame:
        """Every delivery of the candles that open on one UTC day, in the columns of CANDLES."""
        instrument, seconds = Instrument.of(stream.symbol), self.seconds(stream.symbol, day)
        per_candle = stream.step // timedelta(seconds=1)
        is_delivered = delivered_of_day(self.seed, instrument, day)
        opens, columns = add_up(seconds, is_delivered, per_candle)
        recorded_at = opens + per_candle
        revision = np.zeros(len(opens), dtype=np.int32)

        late = late_trades_of_day(self.seed, instrument, day, seconds)
        if late is not None:
            at = int(np.searchsorted(opens, late.second, side="right")) - 1
            corrected = _with_late_trades(columns[:, at], late)
            if late.known_at <= recorded_at[at]:
                columns[:, at] = corrected
            else:
                opens, recorded_at = np.insert(opens, at + 1, opens[at]), np.insert(recorded_at, at + 1, late.known_at)
                columns, revision = np.insert(columns, at + 1, corrected, axis=1), np.insert(revision, at + 1, 1)

        prices = columns[:4] / 10**instrument.decimals  # correctly rounded: exactly the float that the decimals name
        return pl.DataFrame(
            {
                "open_time": (opens + day * SECONDS) * 1_000_000,
                **dict(zip(("open", "high", "low", "close"), prices, strict=True)),
                "volume": columns[4] * LOT,
                "revision": revision,
                "recorded_at": (recorded_at + day * SECONDS) * 1_000_000,
            }
        ).cast(CANDLES)


def _check(stream: Stream, window: Window) -> None:
    if not stream.venue.startswith("simulated"):
        raise SettingRefused(f"{stream}: the simulated venue serves streams of a venue named simulated only")
    if window.end <= OPENING:
        raise SettingRefused(
            f"{stream} {window}: the simulated venue opened on {OPENING:%Y-%m-%d}. Ask for a later window, or set"
            " source to archive:DIR or ccxt:VENUE for real candles"
        )


def add_up(seconds: Seconds, is_delivered: Booleans, per_candle: int) -> tuple[Ints, Ints]:
    """Candles of `per_candle` seconds of a day: their opening seconds [N] and open, high, low, close, lots [5, N].

    Seconds that were not delivered [86,400] are left out; candles without any other are missing.
    """
    shape = (-1, per_candle)
    opens = np.arange(0, SECONDS, per_candle)
    high, low, lots = seconds.high, seconds.low, seconds.lots
    if not is_delivered.all():
        high, low, lots = (
            np.where(is_delivered, high, 0),
            np.where(is_delivered, low, low.max() + 1),
            np.where(is_delivered, lots, 0),
        )
    present = is_delivered.reshape(shape)
    first = opens + present.argmax(axis=1)
    last = opens + per_candle - 1 - present[:, ::-1].argmax(axis=1)
    columns = np.stack(
        [
            seconds.open[first],
            high.reshape(shape).max(axis=1),
            low.reshape(shape).min(axis=1),
            seconds.close[last],
            lots.reshape(shape).sum(axis=1),
        ]
    )
    delivered = present.any(axis=1)
    return opens[delivered], columns[:, delivered]


def _with_late_trades(candle: Ints, late: LateTrades) -> Ints:
    """One candle (open, high, low, close, lots) with the late trades in it."""
    open_, high, low, close, lots = candle.tolist()
    return np.array([open_, max(high, late.high), min(low, late.low), close, lots + late.lots])
