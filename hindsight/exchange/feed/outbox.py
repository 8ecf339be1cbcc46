"""Rows on their way to the landing: gathered for a moment, written in a thread, kept and tried again on a full disk."""

import asyncio
import logging
from contextlib import suppress
from functools import cache

from hindsight.errors import HomeUnwritable
from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.part import Times
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import KINDS, Kind, Row
from hindsight.market.streams import Stream

logger = logging.getLogger(__name__)
# Candles wait only for others that close at the same instant. Books go with them.
PATIENCE: dict[Kind, float] = {"candles": 0.003, "order_book": 0.25, "trades": 1.0}  # seconds
# Rows kept while the disk is full. Beyond it the oldest books and trades are lost; without room for candles the feed
# ends, and REST gives them back to the next one.
MOST: dict[Kind, int] = {"candles": 500_000, "order_book": 20_000, "trades": 500_000}
MOST_AT_ONCE = 20_000  # rows of a segment
LONGEST_WAIT = 10.0


class Outbox:
    """Takes rows with `add`, never waits for the disk, and lands them in the order taken, kind by kind."""

    def __init__(self, landing: Landing, clock: VenueClock, times: Times) -> None:
        self.landing, self.clock, self.times = landing, clock, times
        self.failures = 0  # in a row, of writing
        self.lost: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._rows: dict[Kind, list[Row]] = {kind: [] for kind in KINDS}
        self._unwritten: dict[Kind, int] = dict.fromkeys(KINDS, 0)  # rows, those being written among them
        self._due: dict[Kind, float] = {}
        self._woken = asyncio.Event()
        self._is_ending = False
        self._overfull: HomeUnwritable | None = None

    def add(self, kind: Kind, rows: list[Row]) -> None:
        """Takes rows to be landed soon."""
        if not rows:
            return
        kept = self._rows[kind]
        kept.extend(rows)
        self._unwritten[kind] += len(rows)
        if len(kept) > MOST[kind]:
            self._overflow(kind)
        if kind not in self._due:
            self._due[kind] = asyncio.get_running_loop().time() + (
                PATIENCE[kind] if not self.failures else LONGEST_WAIT
            )
            self._woken.set()

    def is_landed(self, kind: Kind) -> bool:
        """Whether every row that was taken is on disk."""
        return not self._unwritten[kind]

    def end(self) -> None:
        """Has `run` write what there is, and return."""
        self._is_ending = True
        self._woken.set()

    async def run(self) -> None:
        """Writes what is due, until `end`. Raises HomeUnwritable where the disk has been full for too long."""
        loop = asyncio.get_running_loop()
        while not self._is_ending:
            self._woken.clear()
            wait = min(self._due.values(), default=loop.time() + 60) - loop.time()
            if wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                continue
            now = loop.time()
            due: list[Kind] = [kind for kind in KINDS if self._due.get(kind, now + 1) <= now]
            if "candles" in due and self._rows["order_book"] and "order_book" not in due:
                due.append("order_book")
            for kind in due:
                await self._write(kind)
        is_written = True
        while is_written and any(self._rows.values()):  # rows may come in while others are written
            is_written = all([await self._write(kind) for kind in KINDS])
        if left := sum(map(len, self._rows.values())):
            logger.error("%d rows could not be written before the end: the disk is full", left)
        if self._overfull is not None:
            raise self._overfull

    async def _write(self, kind: Kind) -> bool:
        """Whether a segment of the oldest rows was written. They are nobody else's meanwhile."""
        rows = self._rows[kind][:MOST_AT_ONCE]
        del self._rows[kind][:MOST_AT_ONCE]
        self._due.pop(kind, None)
        if not rows:
            return True
        try:
            # A venue's clock that is behind must not make a candle land before its close.
            now_ms = max(self.clock.now_ms(), max(map(_known_ms, rows)) if kind == "candles" else 0)
            await asyncio.to_thread(self.landing.write, kind, rows, now_ms, self.times.local_ms())
        except HomeUnwritable as error:
            self._rows[kind][:0] = rows
            self._failed(error)
            return False
        finally:
            if self._rows[kind]:
                self._due.setdefault(kind, self._retry_at())
        self._unwritten[kind] -= len(rows)
        if self.failures:
            logger.warning("the landing can be written again; nothing of what was kept in memory is lost")
            self.failures = 0
            self._due.update({each: 0.0 for each in KINDS if self._rows[each]})
        return True

    def _retry_at(self) -> float:
        wait = min(LONGEST_WAIT, self.times.backoff(self.failures)) if self.failures else 0.0
        return asyncio.get_running_loop().time() + wait

    def _failed(self, error: HomeUnwritable) -> None:
        self.failures += 1
        if self.failures == 1 or self.failures % 20 == 0:
            kept = ", ".join(f"{len(rows)} {kind}" for kind, rows in self._rows.items() if rows)
            logger.error("%s (kept in memory: %s rows)", error, kept)

    def _overflow(self, kind: Kind) -> None:
        if kind == "candles":  # `run` ends with it, and the feed with `run`
            self._overfull = HomeUnwritable(
                f"{MOST[kind]} candles wait for {self.landing.folder} to become writable. Make room and start the feed"
                " again: it fetches them from the venue"
            )
            self.end()
            return
        # A tenth at once: the list moves up each time.
        count = MOST[kind] // 10
        self.lost[kind] += count
        logger.error("the disk has been full for long: the oldest %d rows of %s are lost", count, kind)
        del self._rows[kind][:count]
        self._unwritten[kind] -= count


def _known_ms(row: Row) -> int:
    """The instant from which a candle's row could be known, by the market."""
    return row["known_ms"] or row["open_time_ms"] + _step_ms(row["stream"])


@cache
def _step_ms(stream: str) -> int:
    return Stream.parse(stream).step_ms
