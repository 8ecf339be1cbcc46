"""Work that goes on side by side until it is told to stop, or until some of it fails."""

import asyncio
import logging
from collections.abc import Coroutine

from hindsight.errors import HomeUnwritable, VenueUnavailable

logger = logging.getLogger(__name__)
Work = Coroutine[None, None, object]


class Beside:
    """Runs what it is given. An error that nobody foresaw sets `stop`: the feed ends, and is then started anew."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self.failure: BaseException | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        self._quiet: set[asyncio.Task[object]] = set()

    def start(self, work: Work) -> asyncio.Task[object]:
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def start_quietly(self, work: Work) -> None:
        """For work that may fail now, and is done again before long."""
        self._quiet.add(self.start(work))

    async def cancel(self, but: asyncio.Task[object]) -> None:
        """Ends everything but one task."""
        others = [task for task in self._tasks if task is not but]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _ended(self, task: asyncio.Task[object]) -> None:
        is_quiet = task in self._quiet
        self._tasks.discard(task)
        self._quiet.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if is_quiet and isinstance(error, VenueUnavailable | HomeUnwritable):
            logger.warning("%s", error)
            return
        self.failure = self.failure or error
        self.stop.set()
