"""Advance: the verb of the live path. What has landed is stored, predicted from, decided, settled and learned.

Every stream's newest reference stands before any model trains, so that no prediction waits for training. What is due
follows from the tables: a call that was killed is finished by the next one, whoever makes it.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hindsight.configured import shape_of
from hindsight.decide import DecideReport, decide
from hindsight.errors import LearnerBusy
from hindsight.exchange.landing import Landing
from hindsight.ingest import Ingested, ingest
from hindsight.learn import learn, learn_live
from hindsight.market.streams import EPOCH, Stream
from hindsight.recall_blocks import A_MINUTE, BOOK_PATIENCE, Shared
from hindsight.settings import Settings
from hindsight.store.book_tables import newest_book
from hindsight.store.inference_tables import left_unlearned
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_levels, in_order
from hindsight.write import LearnReport

logger = logging.getLogger(__name__)
PAUSE = timedelta(milliseconds=50)
AT_ONCE = 2  # lessons: they share the processors, and take turns at the warehouse
MIXTURE = "mixture"  # stands for the decision where a model is named


@dataclass(frozen=True, slots=True)
class Advanced:
    """How far a call has come: what was taken up, and the report of every lesson by stream and model."""

    ingested: Ingested = field(default_factory=lambda: Ingested({}, {}, 0, []))
    lessons: dict[tuple[Stream, str], LearnReport] = field(default_factory=dict)
    decisions: dict[Stream, DecideReport] = field(default_factory=dict)
    failures: dict[tuple[Stream, str], Exception] = field(default_factory=dict)  # by stream and model, or "mixture"


def advance(settings: Settings, clock: Callable[[], datetime], *, leave_pivots: bool) -> Iterator[Advanced]:
    """Yields the same record twice: when the newest references stand, and when everything is done.

    The failure of one lesson stops no other one; it stands in `failures`. With `leave_pivots`, what a level-2 pivot
    has just confirmed is left to the run that this pivot starts. Streams without new candles come last: a killed run
    may have left something of theirs. `clock` shows the venue's time.
    """
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    landing = Landing(settings.landing_path)
    advanced = Advanced(_ingest(settings, warehouse, landing, clock))
    fresh = [stream for stream in settings.predicted_streams if stream in advanced.ingested.streams]
    shared = {stream: Shared() for stream in fresh}
    with _lessons(settings, shared, clock, leave_pivots=leave_pivots) as lessons:
        _step(settings, advanced, lessons)
        _decide(settings, advanced, shared, clock)
        yield advanced
        _step(settings, advanced, {key: lesson for key, lesson in lessons.items() if key in advanced.lessons})
    idle = [stream for stream in settings.predicted_streams if not leave_pivots or stream not in fresh]
    late = []
    if idle:
        with warehouse.reading() as con:
            left = left_unlearned(con, idle, settings.models)
        late = [stream for stream in idle if any(name == str(stream) for name, _ in left)]
    shared = {stream: Shared() for stream in late}
    with _lessons(settings, shared, clock, leave_pivots=False) as lessons:
        _step(settings, advanced, lessons)
        _decide(settings, advanced, shared, clock)
        _step(settings, advanced, lessons)
    yield advanced


def _ingest(settings: Settings, warehouse: Warehouse, landing: Landing, clock: Callable[[], datetime]) -> Ingested:
    """Takes up what has landed, and where frames hold the book, its last second as well, which may be on its way."""
    taken = ingest(warehouse, landing, clock, max_gap=settings.max_gap)
    closed = {stream: one.closed for stream, one in taken.streams.items() if one.closed is not None}
    with_book = [each for each in settings.predicted_streams if shape_of(settings, each, settings.models[0]).book]
    waiting = {stream: closed[stream] for stream in with_book if stream in closed}
    patience = BOOK_PATIENCE * settings.venue_speed
    for _ in range(int(BOOK_PATIENCE / PAUSE) if waiting else 0):
        with warehouse.reading() as con:
            newest = {each: newest_book(con, each, at - A_MINUTE) or EPOCH for each, at in waiting.items()}
        waiting = {stream: at for stream, at in waiting.items() if newest[stream] < at}
        if not waiting or clock() >= max(waiting.values()) + patience:
            break
        time.sleep(PAUSE.total_seconds())
        taken = taken.and_then(ingest(warehouse, landing, clock, max_gap=settings.max_gap))
    return taken


@contextmanager
def _lessons(
    settings: Settings, shared: Mapping[Stream, Shared], clock: Callable[[], datetime], *, leave_pivots: bool
) -> Iterator[dict[tuple[Stream, str], Generator[LearnReport]]]:
    """The lessons of every model on these streams, none of them begun; each is over when the block ends."""
    with ExitStack() as stack:
        yield {
            (stream, model): stack.enter_context(
                closing(learn_live(settings, stream, model, clock, leave_pivots=leave_pivots, shared=each))
            )
            for stream, each in shared.items()
            for model in in_order(settings.models)
        }


def learn_from_pivots(
    settings: Settings, pivots: Iterable[tuple[Stream, datetime]], clock: Callable[[], datetime]
) -> Advanced:
    """Takes every model to the closes at which these level-2 pivots were confirmed; again, it changes nothing.

    Pivots of streams that nobody predicts are passed over.
    """
    advanced = Advanced()
    for stream, close in pivots:
        if stream not in settings.predicted_streams:
            continue
        shared = Shared()
        for model in in_order(settings.models):
            try:
                advanced.lessons[stream, model] = learn(settings, stream, model, close, clock=clock, shared=shared)
            except LearnerBusy as busy:
                logger.info("left out: %s", busy)
            except Exception as error:
                logger.exception("%s, %s", stream, model)
                advanced.failures[stream, model] = error
    return advanced


def _decide(
    settings: Settings, advanced: Advanced, shared: Mapping[Stream, Shared], clock: Callable[[], datetime]
) -> None:
    """Decides at the closes of these streams that all models have predicted from, or let pass."""
    for stream, each in shared.items():
        try:
            advanced.decisions[stream] = decide(settings, stream, clock=clock, tape=each.tape)
        except LearnerBusy as busy:
            logger.info("left out: %s", busy)
        except Exception as error:
            logger.exception("%s, decision", stream)
            advanced.failures[stream, MIXTURE] = error


def _step(settings: Settings, advanced: Advanced, lessons: Mapping[tuple[Stream, str], Iterator[LearnReport]]) -> None:
    """Takes each lesson to its next part, those of models that read none of each other side by side."""
    for level in in_levels(settings.models):
        chosen = [(key, lesson) for key, lesson in lessons.items() if key[1] in level]
        with ThreadPoolExecutor(max(1, min(len(chosen), AT_ONCE))) as pool:
            for _ in pool.map(lambda each: _next(advanced, *each), chosen):
                pass


def _next(advanced: Advanced, key: tuple[Stream, str], lesson: Iterator[LearnReport]) -> None:
    """Takes one lesson to its next part; one with nothing to do leaves no report."""
    try:
        for report in lesson:
            advanced.lessons[key] = report
            break
    except LearnerBusy as busy:
        logger.info("left out: %s", busy)
    except Exception as error:
        logger.exception("%s, %s", *key)
        advanced.failures[key] = error
        advanced.lessons.pop(key, None)
