"""One part of the feed: the candles of one stream, or the trades or order book of one symbol, and how it fares."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from hindsight.errors import MessageRefused
from hindsight.exchange.feed.reasons import Reason

logger = logging.getLogger(__name__)
State = Literal["connected", "silent", "down", "filling"]
FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0  # seconds until a lost connection is tried again
LONGEST_PATIENCE = 8  # times the setting silent_seconds, for a market in which nothing happens
SHOWN = 300  # characters of a refused message in the log


@dataclass(slots=True)
class Times:
    """The clocks of this machine, and its chance: `monotonic` in seconds, `local_ms` since 1970."""

    monotonic: Callable[[], float]
    local_ms: Callable[[], int]
    generator: Random

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row: twice as long each time, give or take a half."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures, 20))
        return longest * self.generator.uniform(0.5, 1.5)


@dataclass(slots=True, eq=False)
class Part:
    """Counts what a part heard and how it fares. `name` is `<stream or symbol> candles|trades|order_book`."""

    name: str
    times: Times
    state: State = "down"
    since_ms: int = 0
    heard_at: float = 0.0  # monotonic; the last message, or the last time that it was connected anew
    last_message_ms: int | None = None
    messages: int = 0
    refused: Counter[Reason] = field(default_factory=Counter)
    reconnects: int = 0
    filled: int = 0
    corrections: int = 0
    missing: int = 0
    failures: int = 0  # in a row
    is_heard: bool = False  # since it was connected
    is_clock_doubted: bool = False  # by something that would have come from the future
    window: Callable[[], object] | None = None  # what it waits for, where it is about candles

    def __post_init__(self) -> None:
        self.since_ms, self.heard_at = self.times.local_ms(), self.times.monotonic()

    @property
    def where(self) -> str:
        """The part as the log names it, with the window that it waits for."""
        return self.name if self.window is None else f"{self.name} {self.window()}"

    def enter(self, state: State) -> None:
        if state != self.state:
            self.state, self.since_ms = state, self.times.local_ms()

    def heard(self) -> bool:
        """Counts a message; whether it is the first since the part was connected."""
        self.messages += 1
        self.heard_at, self.last_message_ms = self.times.monotonic(), self.times.local_ms()
        is_first = not self.is_heard
        if is_first:
            self.is_heard, self.failures = True, 0
            logger.info("%s: connected", self.where)
        if is_first or self.state == "silent":
            self.enter("connected")
        return is_first

    def refuse(self, refused: MessageRefused, message: object) -> None:
        """Counts a message that cannot be used; logs the first ones of each reason, then ever fewer."""
        reason = Reason(refused.reason)
        self.refused[reason] += 1
        self.is_clock_doubted |= reason == Reason.FROM_THE_FUTURE
        count = self.refused[reason]
        if count <= 3 or count & (count - 1) == 0:
            shown = message if isinstance(message, str) else json.dumps(message, default=str)
            exactly = "" if str(refused) == reason else f": {refused}"
            logger.warning("%s: refused (%s%s, %d so far): %s", self.where, reason, exactly, count, shown[:SHOWN])

    def lost(self, error: object) -> None:
        """The connection is gone."""
        level = logging.WARNING if self.is_heard or self.failures == 0 else logging.DEBUG
        logger.log(level, "%s: connection lost, trying again: %s", self.where, error)
        self.failures += 1
        self.reconnects += 1
        self.is_heard = False
        self.enter("down")

    def is_silent(self, silent_seconds: float) -> bool:
        """Whether nothing came for longer than is usual; the more often in vain, the longer that is."""
        patience = silent_seconds * min(LONGEST_PATIENCE, 2 ** max(0, self.failures - 1))
        return self.times.monotonic() - self.heard_at > patience

    def shown(self) -> dict[str, object]:
        """The part as it stands in feed.json."""
        now = self.times.local_ms()
        return {
            "state": self.state,
            "since_ms": self.since_ms,
            "last_message_ms": self.last_message_ms,
            "age_ms": None if self.last_message_ms is None else now - self.last_message_ms,
            "messages": self.messages,
            "refused": dict(self.refused),
            "reconnects": self.reconnects,
            "filled": self.filled,
            "corrections": self.corrections,
            "missing": self.missing,
        }


async def keep_connected(part: Part, watch: Callable[[], Awaitable[object]], lost: Callable[[], None]) -> None:
    """Calls `watch` for ever: it returns after a message, or not at all, and raises when the connection is lost."""
    while True:
        try:
            await watch()
            continue
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error: BaseException = cancelled  # ccxt cancels what waits for a connection that it closes
        except Exception as failed:  # whatever a venue's own code in ccxt may raise
            error = failed
        part.lost(f"{type(error).__name__}: {error}")
        lost()
        await asyncio.sleep(part.times.backoff(part.failures - 1))
        part.heard_at = part.times.monotonic()
