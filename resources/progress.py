"""Where a run tells how far it is: nowhere by default; the command line listens through a queue."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

Listener = Callable[[str, str, int, int], None]  # (stream, stage, done, total); a total of 0 is not known


def silence(stream: str, stage: str, done: int, total: int) -> None:
    """Hears nothing."""


class Progress:
    """Hears of every stage of a run and of the closes done in it."""

    def __init__(self, listener: Listener = silence) -> None:
        self._listener = listener

    def enter(self, stage: str, covered: Iterable[Any]) -> None:
        """Says that `stage` begins for each stream covered."""
        for each in covered:
            self._listener(str(each.stream), stage, 0, 0)

    def of(self, stream: object, stage: str) -> Callable[[int, int], None]:
        """What to call with (done, total) on the way through `stage`."""
        return partial(self._listener, str(stream), stage)
