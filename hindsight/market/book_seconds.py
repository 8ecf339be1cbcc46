"""Books of one symbol, as up to ten a second come from each venue, into rows that saw nothing after their second."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from hindsight.market.book_rows import BookSecond
from hindsight.market.buckets import SIDE, amounts_around, bucket_of, imbalance_around, tidy
from hindsight.market.depth import Depth, Side, Unusable, read_depth

SECOND_MS = 1000
# Bucket widths around a venue's own mid that are kept; the mid of several venues lies some way off it.
KEPT_ALONE, KEPT_AMONG_OTHERS = SIDE + 1, SIDE + 6
Refusal = Unusable | Literal["out of order", "from the future"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSource:
    """A venue whose books count, until they are older than `age_limit_ms`, at so many US dollars per unit of quote."""

    name: str
    age_limit_ms: int
    quote_to_usd: float

    def __post_init__(self) -> None:
        if not (self.age_limit_ms > 0 and 0 < self.quote_to_usd < math.inf):
            raise ValueError(f"age limit and rate of a book source must be positive, found {self}")


@dataclass(slots=True)
class _Track:
    """One source: the book that counts now, and the last one of every second that is still to come."""

    source: BookSource
    conversion: float  # from the source's quote currency to the row's
    current: Depth | None = None
    pending: list[Depth] = field(default_factory=list)
    snapshots: Counter[int] = field(default_factory=Counter)  # by end of the second
    newest_ms: int = 0
    reach: tuple[float, float] | None = None


class BookSeconds:
    """Takes books in with `add`, gives rows out with `rows`. Reads no clock and keeps nothing of what it is given.

    `refused` counts by source and reason what was not used: crossed, malformed or empty books, those out of order or
    from the future, and, as "stale", the seconds that a dead book was left out of. `late` counts the books whose second
    had been given out already; they count for the seconds after it.
    """

    def __init__(
        self, *, symbol: str, venue: str, bucket_size: float, sources: Iterable[BookSource], quote_to_usd: float
    ) -> None:
        if not (0 < bucket_size < math.inf and 0 < quote_to_usd < math.inf):
            raise ValueError(f"bucket size and rate must be positive, found {bucket_size} and {quote_to_usd}")
        self.symbol, self.venue, self.bucket_size = symbol, venue, bucket_size
        self._tracks = {
            source.name: _Track(source=source, conversion=source.quote_to_usd / quote_to_usd) for source in sources
        }
        self._kept = (KEPT_ALONE if len(self._tracks) == 1 else KEPT_AMONG_OTHERS) * bucket_size
        self._end_ms: int | None = None  # of the next second to be given out
        self.refused = {name: Counter[str]() for name in self._tracks}
        self.late = Counter[str]()

    def add(
        self,
        source: str,
        event_ms: int,
        bids: Side,
        asks: Side,
        *,
        reach: tuple[float, float] | None = None,
        is_fresh: bool = False,
        latest_ms: int | None = None,
    ) -> Refusal | None:
        """Takes in how a venue's book stood at `event_ms`; the reason where it is refused, None where it is accepted.

        After `latest_ms` nothing can have happened yet.

        Every order between the two prices of `reach` is in the book. Without it, the first book, and every one that
        `is_fresh` (the first after a snapshot), tells by its deepest orders how far it is known.
        """
        track = self._tracks[source]
        if latest_ms is not None and event_ms > latest_ms:
            found = "from the future"
        elif event_ms < track.newest_ms:
            found = "out of order"
        else:
            rate = track.source.quote_to_usd
            found = read_depth(
                event_ms, bids, asks, kept=self._kept, quote_to_usd=rate, conversion=track.conversion, reach=reach
            )
        if not isinstance(found, Depth):
            self.refused[source][found] += 1
            return found
        if reach is None:
            if is_fresh or track.reach is None:
                track.reach = (bids[-1][0], asks[-1][0])
            found = found.known_within(*(price * track.conversion for price in track.reach))
        self._keep(track, found)
        return None

    def rows(self, until_ms: int) -> list[BookSecond]:
        """A row for every second that ended at or before `until_ms`, was not asked for yet, and has a book."""
        rows = []
        while self._end_ms is not None and self._end_ms <= until_ms:
            end_ms = self._end_ms
            row = self._second(end_ms)
            if row is not None:
                rows.append(row)
            self._end_ms += SECOND_MS
            if row is None:
                ends = [_end_of(track.pending[0].event_ms) for track in self._tracks.values() if track.pending]
                self._skip_to(min(ends, default=until_ms + 1), until_ms)
        return rows

    def _keep(self, track: _Track, depth: Depth) -> None:
        track.newest_ms = depth.event_ms
        end_ms = _end_of(depth.event_ms)
        if self._end_ms is None:
            self._end_ms = end_ms
        if end_ms < self._end_ms:
            self.late[track.source.name] += 1
        else:
            track.snapshots[end_ms] += 1
        if track.pending and _end_of(track.pending[-1].event_ms) == end_ms:
            track.pending[-1] = depth
        else:
            track.pending.append(depth)

    def _second(self, end_ms: int) -> BookSecond | None:
        """The row of the second that ends at `end_ms`, from the last book of each source before that instant."""
        used: list[tuple[str, Depth]] = []
        snapshots = 0
        for name, track in self._tracks.items():
            while track.pending and track.pending[0].event_ms < end_ms:
                track.current = track.pending.pop(0)
            snapshots += track.snapshots.pop(end_ms, 0)
            if track.current is None:
                continue
            if end_ms - track.current.event_ms <= track.source.age_limit_ms:
                used.append((name, track.current))
            else:
                self.refused[name]["stale"] += 1
        if not used:
            return None
        depths = [depth for _, depth in used]
        bid, ask = max(depth.bid[0] for depth in depths), min(depth.ask[0] for depth in depths)
        price = tidy((bid + ask) / 2)
        return BookSecond(
            symbol=self.symbol,
            venue=self.venue,
            second_ms=end_ms - SECOND_MS,
            price=price,
            spread=_apart(bid, ask),
            bucket_size=self.bucket_size,
            anchor=tidy(bucket_of(price, self.bucket_size) * self.bucket_size),
            amounts=amounts_around(depths, price, self.bucket_size),
            imbalance=imbalance_around(depths, price, self.bucket_size),
            snapshots=snapshots,
            age_ms=end_ms - max(depth.event_ms for depth in depths),
            venues=[name for name, _ in used],
        )

    def _skip_to(self, end_ms: int, until_ms: int) -> None:
        """Passes over seconds in which every book is dead, however many they are, up to one that ends at `end_ms`."""
        assert self._end_ms is not None
        seconds = max(0, (min(end_ms - 1, until_ms) - self._end_ms) // SECOND_MS + 1)
        for name, track in self._tracks.items():
            self.refused[name]["stale"] += seconds if track.current is not None else 0
        self._end_ms += seconds * SECOND_MS


def _apart(bid: float, ask: float) -> float:
    """How far the ask is above the bid, to seven digits: beyond them is the noise of the subtraction."""
    return float(f"{tidy(ask) - tidy(bid):.7g}")


def _end_of(event_ms: int) -> int:
    """The end of the second that an event happened in; an event at the end itself belongs to the next second."""
    return event_ms // SECOND_MS * SECOND_MS + SECOND_MS
