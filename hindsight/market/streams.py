"""Streams, timeframes and half-open windows: the addresses of everything in the market.

A stream is one venue + symbol + timeframe. A window is [start, end) in UTC. Candles are addressed by `open_time`, and
known at `close_time = open_time + timeframe`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

TIMEFRAMES = {
    "1s": timedelta(seconds=1),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One venue + symbol + timeframe, written `binance ETH/USDT 1m`."""

    venue: str
    symbol: str
    timeframe: str

    def __post_init__(self) -> None:
        if self.timeframe not in TIMEFRAMES:
            raise ValueError(f"timeframe {self.timeframe!r} is not one of {', '.join(TIMEFRAMES)}")
        if "/" not in self.symbol:
            raise ValueError(f"symbol {self.symbol!r} is not written BASE/QUOTE, like ETH/USDT")

    def __str__(self) -> str:
        return f"{self.venue} {self.symbol} {self.timeframe}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The stream written `venue BASE/QUOTE timeframe`. Raises ValueError for anything else."""
        parts = text.split(" ")
        if len(parts) != 3:
            raise ValueError(f"stream {text!r} is not written 'venue BASE/QUOTE timeframe'")
        return cls(venue=parts[0], symbol=parts[1], timeframe=parts[2])

    @property
    def symbol_in_paths(self) -> str:
        """The symbol as files and folders are named after it."""
        return self.symbol.replace("/", "-").replace(":", "_")

    @property
    def step(self) -> timedelta:
        """How long one candle lasts."""
        return TIMEFRAMES[self.timeframe]

    @property
    def step_ms(self) -> int:
        """How long one candle lasts, in milliseconds."""
        return self.step // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The half-open interval [start, end) in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta(0) or self.end.utcoffset() != timedelta(0):
            raise ValueError(f"window bounds must be aware UTC datetimes, found {self.start!r} and {self.end!r}")
        # London in winter has the offset of UTC too, but steps of time would follow its clock into summer.
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))
        if self.end < self.start:
            raise ValueError(f"window ends before it starts: {self.start} .. {self.end}")

    def __str__(self) -> str:
        shape = "%Y-%m-%d %H:%M:%S" if self.start.second or self.end.second else "%Y-%m-%d %H:%M"
        return f"[{self.start:{shape}}, {self.end:{shape}})"

    def months(self) -> Iterator["Window"]:
        """The window cut at the first instants of UTC months, in order."""
        start = self.start
        while start < self.end:
            end = min(next_month(start), self.end)
            yield Window(start=start, end=end)
            start = end


def next_month(moment: datetime) -> datetime:
    """The first instant of the UTC month after `moment`'s."""
    year, month = divmod(moment.year * 12 + moment.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime; exact, without going through a float."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def from_ms(milliseconds: int) -> datetime:
    """The UTC datetime that lies `milliseconds` after 1970."""
    return EPOCH + timedelta(milliseconds=int(milliseconds))


def floor_to(moment: datetime, step: timedelta) -> datetime:
    """The last multiple of `step` (counted from 1970) at or before `moment`."""
    return moment - (moment - EPOCH) % step
