"""Plays the streams that somebody listens to, each by the venue's clock, and hands every message to all who listen."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

from hindsight.exchange.venue.clock import Clock
from hindsight.exchange.venue.faults import Fault
from hindsight.exchange.venue.market import Event, Market, Pace
from hindsight.exchange.venue.misbehaviour import Faults

log = logging.getLogger(__name__)
LATE_SECONDS = 0.05  # a forming candle that is later than this is outdated: leave it out
AT_ONCE = 50  # messages without a pause after which others get their turn


class Listener(Protocol):
    """A connection that takes part in streams."""

    def offer(self, stream: str, text: str) -> None: ...

    def suffer(self, fault: Fault) -> None:
        """The connection closes, or falls silent."""
        ...


class Broadcast:
    """One task per stream, from the first who subscribes to the last who leaves."""

    def __init__(self, market: Market, clock: Clock, faults: Faults) -> None:
        self.market, self.clock, self.faults = market, clock, faults
        self.sent: Counter[str] = Counter()
        self._listeners: dict[str, set[Listener]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def join(self, stream: str, listener: Listener) -> None:
        """Raises NotListed for a stream that the market does not have."""
        if stream not in self._tasks:
            events = self._events(stream)
            self._listeners[stream] = set()
            self._tasks[stream] = asyncio.create_task(self._play(stream, events), name=stream)
        self._listeners[stream].add(listener)

    def leave(self, stream: str, listener: Listener) -> None:
        listeners = self._listeners.get(stream, set())
        listeners.discard(listener)
        if not listeners and stream in self._tasks:
            self._tasks.pop(stream).cancel()
            self._listeners.pop(stream, None)

    def listeners(self, stream: str) -> set[Listener]:
        return self._listeners.get(stream, set())

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _events(self, stream: str) -> Iterator[Event]:
        symbol, _, channel = stream.partition("@")
        timeframe_ms = self.market.timeframes.get(channel.removeprefix("kline_"), 60_000)
        pace = Pace.at(self.clock.speed, timeframe_ms)
        return self.market.events(symbol.upper(), channel, self.clock.now_ms(), pace)

    async def _play(self, stream: str, events: Iterator[Event]) -> None:
        try:
            without_pause = 0
            for event in events:
                seconds = self.clock.seconds_until(event.at_ms)
                if event.is_forming and seconds < -LATE_SECONDS:
                    continue
                without_pause = 0 if seconds > 0 else without_pause + 1
                if seconds > 0 or without_pause >= AT_ONCE:
                    await asyncio.sleep(max(0.0, seconds))
                outcome = self.faults.on_message(stream, event.message)
                for seconds_later, text in outcome.texts:
                    self._send(stream, text, seconds_later)
                if outcome.ends is not None:
                    for listener in tuple(self._listeners.get(stream, ())):
                        listener.suffer(outcome.ends)
        except Exception:
            log.exception("the stream %s ended", stream)

    def _send(self, stream: str, text: str, seconds_later: float) -> None:
        if seconds_later > 0:
            asyncio.get_running_loop().call_later(seconds_later, self._send, stream, text, 0.0)
            return
        self.sent[stream] += 1
        for listener in tuple(self._listeners.get(stream, ())):
            listener.offer(stream, text)
