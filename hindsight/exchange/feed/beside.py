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

    def start(self, work: Work) -> asyncio.Task[object]:
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def start_quietly(self, work: Work) -> None:
        """For work that may fail now, and is done again before long."""
        self.start(_quietly(work))

    async def cancel(self, but: asyncio.Task[object]) -> None:
        """Ends everything but one task."""
        others = [task for task in self._tasks if task is not but]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error
            self.stop.set()


async def _quietly(work: Work) -> None:
    try:
        await work
    except (VenueUnavailable, HomeUnwritable) as error:
        logger.warning("%s", error)
