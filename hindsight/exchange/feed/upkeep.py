"""What nobody else looks after: silence, sleep, the clocks, the ends of seconds, the heartbeat, the archive."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hindsight.exchange.feed.beside import Beside
from hindsight.exchange.feed.books import SymbolBooks
from hindsight.exchange.feed.connection import Connection
from hindsight.exchange.feed.heartbeat import write_heartbeat
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part, Times
from hindsight.exchange.feed.refused import RefusedSegments
from hindsight.exchange.packs import pack
from hindsight.exchange.venue_time import venue_clock
from hindsight.market.streams import to_ms

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.05
ASLEEP_SECONDS = 10.0  # between two ticks: the machine slept, or this process was stopped
BEAT_SECONDS, SILENCE_SECONDS, REFUSED_SECONDS, CLOCK_SECONDS, PACK_SECONDS = 1.0, 0.5, 2.0, 30.0, 60.0
DOUBT_SECONDS = 3.0  # between two looks at a clock that messages contradict
PACK_AFTER_MS = 900_000  # an hour is packed so long after it has ended


@dataclass(frozen=True, slots=True)
class Watched:
    """What is behind a part with a socket. `is_behind` asks whether the venue has more than the socket told."""

    venue: Connection
    lose: Callable[[], None]  # told that the socket is gone
    is_behind: Callable[[], Awaitable[bool]] | None = None


class Upkeep:
    """Knows every part, connection and book; `main` is the connection whose clock the heartbeat shows."""

    def __init__(self, main: Connection, outbox: Outbox, home: Path, times: Times, silent_seconds: float) -> None:
        self.main, self.outbox, self.path, self.times = main, outbox, home / "feed.json", times
        self.silent_seconds = silent_seconds
        self.started_ms = times.local_ms()
        main.clock.guess(to_ms(venue_clock(self.path, times.local_ms)()))
        self.parts: dict[Part, Watched] = {}
        self.made: list[Part] = []  # parts without a socket of their own
        self.connections = {main.name: main}
        self.books: list[SymbolBooks] = []
        self.refused: RefusedSegments | None = None  # that hold candles, once there is a feed to fetch them again
        self._is_clock_due = False
        self._asked_clocks_at = 0.0

    def lost(self, part: Part) -> None:
        """A part's socket is gone."""
        self.parts[part].lose()
        self._is_clock_due = True  # whatever ended it may have moved the clocks apart

    async def run(self, beside: Beside) -> None:
        """Looks after everything, for ever."""
        now = self.times.monotonic()
        actions = {self.beat: BEAT_SECONDS}
        shared = {self._sync_clocks: CLOCK_SECONDS, self._pack: PACK_SECONDS, self._restart_silent: SILENCE_SECONDS}
        shared[self._look_for_refused] = REFUSED_SECONDS
        due = {action: now for action in actions} | {action: now + every for action, every in shared.items()}
        while True:
            before = now
            await asyncio.sleep(TICK_SECONDS)
            now = self.times.monotonic()
            if now - before > ASLEEP_SECONDS:
                self._wake(now - before)
            for books in self.books:
                books.give()
            if self._is_clock_due:
                self._is_clock_due, due[self._sync_clocks] = False, now
            if any(venue.is_clock_doubted for venue in self.connections.values()):
                due[self._sync_clocks] = min(due[self._sync_clocks], self._asked_clocks_at + DOUBT_SECONDS)
            for action, every in actions.items():
                if now >= due[action]:
                    due[action] = now + every
                    action()
            for action, every in shared.items():
                if now >= due[action]:
                    due[action] = now + every
                    action(beside)

    def beat(self) -> None:
        """Replaces feed.json."""
        lost = {str(kind): count for kind, count in self.outbox.lost.items() if count}
        write_heartbeat(self.path, self.started_ms, self.main.clock, self.times, [*self.parts, *self.made], lost)

    def _wake(self, seconds: float) -> None:
        logger.warning("asleep for %.0f s: every connection is made anew, and the time in between fetched", seconds)
        for part in self.parts:
            part.heard_at = self.times.monotonic()
            self.lost(part)
        for venue in self.connections.values():
            venue.restart_all()

    def _restart_silent(self, beside: Beside) -> None:
        now = self.times.monotonic()
        for part, watched in self.parts.items():
            if part.is_silent(self.silent_seconds):
                beside.start_quietly(self._restart(part, watched, now - part.heard_at))
                part.heard_at = now

    async def _restart(self, part: Part, watched: Watched, seconds: float) -> None:
        """Connects a silent part anew, unless the venue has no more to say: others may hear over the same socket."""
        part.enter("silent")
        before = (part.messages, part.reconnects)
        is_behind = watched.is_behind is None or await watched.is_behind()
        if (part.messages, part.reconnects) != before:
            return
        if not is_behind:
            part.enter("connected")
            logger.info("%s: silent for %.0f s, and so is the venue", part.where, seconds)
        else:
            logger.warning("%s: silent for %.0f s, connecting anew", part.where, seconds)
            watched.venue.restart(part)

    def _sync_clocks(self, beside: Beside) -> None:
        self._asked_clocks_at = self.times.monotonic()
        for venue in self.connections.values():
            if venue.exchange.markets:
                beside.start_quietly(venue.sync_clock())

    def _look_for_refused(self, beside: Beside) -> None:
        if self.refused is not None:
            beside.start_quietly(self.refused.look())

    def _pack(self, beside: Beside) -> None:
        if self.main.clock.is_synced:
            before_ms = self.main.clock.now_ms() - PACK_AFTER_MS
            beside.start_quietly(asyncio.to_thread(pack, self.outbox.landing, before_ms))
