"""One teacher at a time: the lock that a lesson holds for as long as it lasts, and that a word by hand waits for."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from hindsight.errors import LearnerBusy
from hindsight.market.streams import Stream
from hindsight.settings import Settings
from hindsight.store import lock

LIVE_PATIENCE_SECONDS = 5.0  # a live call does not wait for the end of a backfill


@contextmanager
def taught_by_us(settings: Settings, stream: Stream, model: str, patience_seconds: float | None) -> Iterator[None]:
    """While no other process teaches this model of this stream. Raises LearnerBusy where patience runs out."""
    settings.checkpoints_path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            lesson = settings.checkpoints_path / f"{model} {stream}.learning".replace("/", "-")
            stack.enter_context(lock.held(lesson, patience_seconds))
        except TimeoutError as error:
            raise LearnerBusy(f"{stream}: {model} is being taught by another process: {error}") from error
        yield
