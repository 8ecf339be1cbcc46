"""Candles in segments that were set aside as unreadable: the venue still has them, so they are fetched once more.

What such a segment held follows from what has landed around it. Once it has landed anew, or the venue has said that it
has no more, `.asked` beside the segment says so; a feed that is killed before leaves the question to the next one.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hindsight.exchange.feed.candles import StreamCandles
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.landing import Landing
from hindsight.market.streams import Stream, Window, from_ms

logger = logging.getLogger(__name__)
CLOSING_MS = 60_000  # after its close, within which a candle is taken to have landed


class Landed(NamedTuple):
    """A row of a stream, in the segment of that name. `is_first`: not a correction, nor late."""

    name: str
    open_time_ms: int
    is_first: bool


class RefusedSegments:
    """Watches landing/refused, for `streams` that land by `outbox`."""

    def __init__(self, landing: Landing, outbox: Outbox, streams: Mapping[Stream, StreamCandles]) -> None:
        self.landing, self.outbox, self.streams = landing, outbox, streams
        self._seen: set[Path] = set()  # by this process
        self._asked: dict[Path, dict[Stream, list[int]]] = {}  # open times, until they have landed
        self._is_looking = False

    async def look(self) -> None:
        """Has the candles of newly refused segments fetched, and marks the segments whose candles have landed."""
        if self._is_looking:
            return
        self._is_looking = True
        try:
            if paths := await asyncio.to_thread(self._unseen):
                landed = await asyncio.to_thread(self._landed_since, paths[0].name)
                for path in paths:
                    self._seen.add(path)
                    self._asked[path] = {stream: self._ask(path, stream, landed[stream]) for stream in self.streams}
                    logger.warning("%s was set aside: corrections in it, if there were any, may be lost", path.name)
            self._mark()
        except OSError as error:
            logger.warning("%s cannot be looked through now: %s", self.landing.refused, error)
        finally:
            self._is_looking = False

    def _unseen(self) -> list[Path]:
        paths = self.landing.set_aside("candles")
        return [path for path in paths if path not in self._seen and not _mark(path).exists()]

    def _landed_since(self, name: str) -> dict[Stream, list[Landed]]:
        """What has landed of each stream, back to before the segment of that name, as far as it is at hand."""
        landed: dict[Stream, list[Landed]] = {stream: [] for stream in self.streams}
        by_name = {str(stream): stream for stream in self.streams}
        for found, segment in self.landing.backwards("candles"):
            for row in segment.rows:
                if row["stream"] in by_name:
                    of_stream = landed[by_name[row["stream"]]]
                    of_stream.append(Landed(found, row["open_time_ms"], row["known_ms"] is None))
            if found < name and all(any(row.is_first and row.name < name for row in rows) for rows in landed.values()):
                break
        return landed

    def _ask(self, refused: Path, stream: Stream, landed: list[Landed]) -> list[int]:
        """Open times of the candles that are fetched once more, since the segment was refused."""
        asked = self.streams[stream].ask_again(held(refused.name, stream, landed))
        if asked:
            window = Window(start=from_ms(asked[0]), end=from_ms(asked[-1] + stream.step_ms))
            logger.warning("%s %s: asked for again, since %s was set aside", stream, window, refused.name)
        return asked

    def _mark(self) -> None:
        """Marks the segments whose candles have landed since."""
        for path, asked in list(self._asked.items()):
            is_open = any(self.streams[stream].is_asking_again(opens) for stream, opens in asked.items())
            if not is_open and self.outbox.is_landed("candles"):
                del self._asked[path]
                _mark(path).touch()


def held(refused: str, stream: Stream, landed: list[Landed]) -> list[int]:
    """Open times of the candles that the segment of that name must have held: those around them have landed.

    Candles of a stream land in order and none before its close. Where nothing from before the segment is at hand any
    more, it is the candle that had just closed, if one had.
    """
    step_ms, refused_ms = stream.step_ms, int(refused.partition("-")[0])
    closed_ms = refused_ms - refused_ms % step_ms
    before = max((row.open_time_ms for row in landed if row.is_first and row.name < refused), default=None)
    after = min((row.open_time_ms for row in landed if row.is_first and row.name > refused), default=closed_ms)
    if before is None:
        before = closed_ms - (2 if refused_ms - closed_ms < CLOSING_MS else 1) * step_ms
    known = {row.open_time_ms for row in landed}
    return [opened for opened in range(before + step_ms, min(after, closed_ms), step_ms) if opened not in known]


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.asked")
