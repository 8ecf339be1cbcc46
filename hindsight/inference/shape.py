"""The shape of a frame: which blocks it has, of which markets, how long. One shape serves every model of a stream.

| block | what |
|---|---|
| candles | per market and timeframe the last `length` closed ones, with indicators; the predicted stream comes first |
| book | the last `book` seconds of the predicted market's order book |
| pivots | the newest `pivots` of each level and side |
| outputs, hidden | what the models that this one reads said of the close before, and what they know at this one |

Symbols, timeframes and lengths are part of the schema hash: changing one starts a new lineage of weights.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from hindsight.market.streams import TIMEFRAMES, Stream

STANDARD = ("own", "1s", "1m", "1h", "1d", "BTC/USDT 1s", "book", "pivots")
_ENTRY = re.compile(r"(?:(?P<symbol>[A-Z0-9]+/[A-Z0-9:]+) )?(?P<name>\w+)(?:=(?P<length>\d+))?")
PIVOTS_KEPT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleBlock:
    """`length` closed candles of one market in one timeframe."""

    symbol: str
    timeframe: str
    length: int

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}"

    @property
    def step_ms(self) -> int:
        """How long one candle lasts, in milliseconds."""
        return int(TIMEFRAMES[self.timeframe].total_seconds() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Another model that this one reads, the width of its hidden state, and for how long after a close it is waited."""

    model: str
    width: int
    deadline_ms: int = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameShape:
    """The blocks of a frame. `warmup` candles before the first visible one have to be there as well."""

    candles: tuple[CandleBlock, ...]
    warmup: int = 300
    book: int = 0
    pivots: int = PIVOTS_KEPT
    reads: tuple[Read, ...] = ()

    def __post_init__(self) -> None:
        if not self.candles or min(block.length for block in self.candles) < 2:
            raise ValueError(f"expected blocks of at least two candles, found {list(map(str, self.candles))}")

    def __str__(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`."""
        fields = json.loads(text)
        candles = tuple(CandleBlock(**block) for block in fields.pop("candles"))
        return cls(candles=candles, reads=tuple(Read(**read) for read in fields.pop("reads")), **fields)

    @property
    def own(self) -> CandleBlock:
        """The block of the predicted stream."""
        return self.candles[0]

    @property
    def reach(self) -> int:
        """Candles of the predicted stream that a reference addresses: those that warm the indicators, then the seen."""
        return self.warmup + self.own.length

    def streams(self, venue: str) -> list[Stream]:
        """The streams that the candles come from."""
        return [Stream(venue=venue, symbol=block.symbol, timeframe=block.timeframe) for block in self.candles]


def frame_shape(
    entries: Iterable[str], stream: Stream, *, lookback: int, warmup: int, reads: Sequence[Read] = ()
) -> FrameShape:
    """The shape that the setting `frame` asks for, of frames that predict `stream`.

    An entry is `own`, a timeframe (`1h`, of the predicted market), `SYMBOL TIMEFRAME`, `book` or `pivots`, each with
    `=LENGTH` where that is not the lookback (of pivots: 4). Raises ValueError for any other.
    """
    lengths: dict[tuple[str, str], int] = {(stream.symbol, stream.timeframe): lookback}
    book, pivots = 0, 0
    for entry in STANDARD if tuple(entries) == ("standard",) else entries:
        found = _ENTRY.fullmatch(entry)
        symbol, name, length = found.group("symbol", "name", "length") if found else (None, "", None)
        count = int(length) if length else lookback
        if name in TIMEFRAMES or (name == "own" and symbol is None):
            timeframe = stream.timeframe if name == "own" else name
            market = (symbol or stream.symbol, timeframe)
            lengths[market] = count if length or market not in lengths else lengths[market]
        elif name == "book" and symbol is None:
            book = count
        elif name == "pivots" and symbol is None:
            pivots = int(length or PIVOTS_KEPT)
        else:
            raise ValueError(
                f"frame: expected own, a timeframe ({', '.join(TIMEFRAMES)}), SYMBOL TIMEFRAME, book or pivots,"
                f" each with =LENGTH or without, found {entry!r}"
            )
    return FrameShape(
        candles=tuple(
            CandleBlock(symbol=symbol, timeframe=timeframe, length=length)
            for (symbol, timeframe), length in lengths.items()
        ),
        warmup=warmup,
        book=book,
        pivots=pivots,
        reads=tuple(reads),
    )
