"""Candles in segments that were set aside as unreadable: the venue still has them, so they are fetched once more."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from hindsight.errors import SegmentUnreadable
from hindsight.exchange.landing import Landing
from hindsight.market.streams import Stream, Window, from_ms

logger = logging.getLogger(__name__)
SEGMENTS_READ = 3000  # back from the newest, to find what was landed around a segment
Ask = Callable[[int, int], None]


class RefusedSegments:
    """Watches landing/refused. `ask` of each stream is told between which open times its candles are lost."""

    def __init__(self, landing: Landing, ask: Mapping[Stream, Ask]) -> None:
        self.landing, self.ask = landing, ask
        self._is_looking = False

    async def look(self) -> None:
        """Has the candles of every refused segment fetched that was not seen yet; its name with .asked marks it."""
        if self._is_looking:
            return
        self._is_looking = True
        try:
            for path in await asyncio.to_thread(self._unseen):
                around = await asyncio.to_thread(self._around, path)
                for stream, (start_ms, end_ms) in around.items():
                    window = Window(start=from_ms(start_ms), end=from_ms(end_ms))
                    logger.warning("%s %s: asked for again, since %s was set aside", stream, window, path.name)
                    self.ask[stream](start_ms, end_ms)
                path.with_name(f"{path.name}.asked").touch()
        except OSError as error:
            logger.warning("%s cannot be looked through now: %s", self.landing.refused, error)
        finally:
            self._is_looking = False

    def _unseen(self) -> list[Path]:
        paths = sorted(self.landing.refused.glob("*-candles.jsonl"))
        return [path for path in paths if not path.with_name(f"{path.name}.asked").exists()]

    def _around(self, refused: Path) -> dict[Stream, tuple[int, int]]:
        """The open times [start, end) of each stream between what was landed before a segment and after it.

        Candles of a stream land in order, so what lies between is what the segment held, none closed after its time.
        Where nothing from before is at hand any more, that is the last candle that had closed.
        """
        refused_ms = int(refused.name.partition("-")[0])
        before: dict[str, int] = {}
        after: dict[str, int] = {}
        for path, _ in zip(self.landing.names_backwards("candles"), range(SEGMENTS_READ), strict=False):
            try:
                rows = [row for row in self.landing.read(path).rows if row["known_ms"] is None]
            except (OSError, SegmentUnreadable):
                continue
            for row in reversed(rows):
                name, opened = row["stream"], row["open_time_ms"]
                if path.name > refused.name:
                    after[name] = min(opened, after.get(name, opened))
                else:
                    before[name] = max(opened, before.get(name, opened))
            if path.name < refused.name and all(str(stream) in before for stream in self.ask):
                break
        found = {}
        for stream in self.ask:
            name, step_ms = str(stream), stream.step_ms
            start_ms = before.get(name, refused_ms - refused_ms % step_ms - 2 * step_ms) + step_ms
            end_ms = min(after.get(name, refused_ms), refused_ms)
            if start_ms + step_ms <= end_ms:
                found[stream] = (start_ms, end_ms)
        return found
