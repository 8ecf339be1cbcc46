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

from hindsight.decide import DecideReport, decide
from hindsight.errors import LearnerBusy, ModelRests
from hindsight.exchange.landing import Landing
from hindsight.inference.shape import frame_shape
from hindsight.ingest import Ingested, ingest
from hindsight.learn import learn, learn_live
from hindsight.lessons import Teachable, told_apart
from hindsight.market.streams import EPOCH, Stream
from hindsight.recall_blocks import A_MINUTE, BOOK_PATIENCE, Shared
from hindsight.settings import Settings
from hindsight.store.book_tables import newest_book
from hindsight.store.failure_tables import MIXTURE, note_outcomes
from hindsight.store.inference_tables import left_unlearned
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_levels
from hindsight.write import LearnReport

logger = logging.getLogger(__name__)
PAUSE = timedelta(milliseconds=50)
AT_ONCE = 2  # lessons: they share the processors, and take turns at the warehouse


@dataclass(frozen=True, slots=True)
class Advanced:
    """How far a call has come: what was taken up, and the report of every lesson by stream and model."""

    ingested: Ingested = field(default_factory=lambda: Ingested({}, {}, 0, []))
    lessons: dict[tuple[Stream, str], LearnReport] = field(default_factory=dict)
    decisions: dict[Stream, DecideReport] = field(default_factory=dict)
    failures: dict[tuple[Stream, str], Exception] = field(default_factory=dict)  # by stream and model, or "mixture"


def advance(settings: Settings, clock: Callable[[], datetime], *, leave_pivots: bool) -> Iterator[Advanced]:
    """Yields the same record twice: when the newest references stand, and when everything is done.

    The failure of one lesson stops no other one; it stands in `failures`, and is noted in the tables until its model
    succeeds again. With `leave_pivots`, what a level-2 pivot has just confirmed is left to the run that this pivot
    starts. Streams without new candles come last: a killed run may have left something of theirs. `clock` shows the
    venue's time. Raises SettingRefused, once the candles are stored, for models that are unknown or read each other in
    a circle.

    Lessons of one level are waited for together, each batch of a model no longer than the setting allows. Nobody waits
    for one that has failed: those that read it and the decision do without it.
    """
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    landing = Landing(settings.landing_path)
    advanced = Advanced(_ingest(settings, warehouse, landing, clock))
    fresh = [stream for stream in settings.predicted_streams if stream in advanced.ingested.streams]
    shared = {stream: Shared() for stream in fresh}
    teachable = told_apart(settings)
    with _lessons(teachable, advanced, shared, clock, leave_pivots=leave_pivots) as lessons:
        _step(settings, advanced, shared, lessons)
        _decide(settings, advanced, shared, clock)
        yield advanced
        _step(settings, advanced, shared, {key: each for key, each in lessons.items() if key in advanced.lessons})
    idle = [stream for stream in settings.predicted_streams if not leave_pivots or stream not in fresh]
    late = []
    if idle:
        with warehouse.reading() as con:
            left = left_unlearned(con, idle, settings.models)
        late = [stream for stream in idle if any(name == str(stream) for name, _ in left)]
    shared = {stream: Shared(missing=_failed(advanced, stream)) for stream in late}
    with _lessons(teachable, advanced, shared, clock, leave_pivots=False) as lessons:
        _step(settings, advanced, shared, lessons)
        _decide(settings, advanced, shared, clock)
        _step(settings, advanced, shared, lessons)
    _note(warehouse, advanced, clock())
    yield advanced


def _ingest(settings: Settings, warehouse: Warehouse, landing: Landing, clock: Callable[[], datetime]) -> Ingested:
    """Takes up what has landed, and where frames hold the book, its last second as well, which may be on its way."""
    taken = ingest(warehouse, landing, clock, max_gap=settings.max_gap)
    closed = {stream: one.closed for stream, one in taken.streams.items() if one.closed is not None}
    waiting = {
        stream: closed[stream]
        for stream in settings.predicted_streams
        if stream in closed
        and frame_shape(settings.frame, stream, lookback=settings.lookback, warmup=settings.warmup).book
    }
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
    teachable: Teachable,
    advanced: Advanced,
    shared: Mapping[Stream, Shared],
    clock: Callable[[], datetime],
    *,
    leave_pivots: bool,
) -> Iterator[dict[tuple[Stream, str], Generator[LearnReport]]]:
    """The lessons of every model on these streams that is not missing, none of them begun; each is over when the block
    ends. A model that cannot be taught at all fails here.
    """
    for stream, each in shared.items():
        each.missing.update(teachable.refused)
        advanced.failures.update({(stream, model): error for model, error in teachable.refused.items()})
    with ExitStack() as stack:
        yield {
            (stream, model): stack.enter_context(
                closing(learn_live(teachable.settings, stream, model, clock, leave_pivots=leave_pivots, shared=each))
            )
            for stream, each in shared.items()
            for model in teachable.models
            if model not in each.missing
        }


def _failed(advanced: Advanced, stream: Stream) -> set[str]:
    """The models that have failed on this stream in the call: they are not tried again in it."""
    return {model for other, model in advanced.failures if other == stream}


def learn_from_pivots(
    settings: Settings, pivots: Iterable[tuple[Stream, datetime]], clock: Callable[[], datetime]
) -> Advanced:
    """Takes every model to the closes at which these level-2 pivots were confirmed; again, it changes nothing.

    Pivots of streams that nobody predicts are passed over.
    """
    advanced, (loaded, teachable, refused) = Advanced(), told_apart(settings)
    for stream, close in pivots:
        if stream not in settings.predicted_streams:
            continue
        shared = Shared(missing=set(refused))
        advanced.failures.update({(stream, model): error for model, error in refused.items()})
        for model in teachable:
            try:
                advanced.lessons[stream, model] = learn(loaded, stream, model, close, clock=clock, shared=shared)
            except LearnerBusy as busy:
                logger.info("left out: %s", busy)
            except ModelRests as rests:
                logger.info("left out: %s", rests)
                shared.missing.add(model)
            except Exception as error:
                logger.exception("%s, %s", stream, model)
                advanced.failures[stream, model] = error
                shared.missing.add(model)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    _note(warehouse, advanced, clock())
    return advanced


def _note(warehouse: Warehouse, advanced: Advanced, at: datetime) -> None:
    """Notes in the tables what failed in a call, and ends what was noted of models that have moved on in it."""
    well = [key for key, report in advanced.lessons.items() if report.until is not None]
    well += [(stream, MIXTURE) for stream, report in advanced.decisions.items() if report.until is not None]
    note_outcomes(warehouse, advanced.failures, [key for key in well if key not in advanced.failures], at)


def _decide(
    settings: Settings, advanced: Advanced, shared: Mapping[Stream, Shared], clock: Callable[[], datetime]
) -> None:
    """Decides at the closes of these streams that all models have predicted from, or let pass."""
    for stream, each in shared.items():
        try:
            report = decide(settings, stream, clock=clock, tape=each.tape, missing=each.missing)
            advanced.decisions[stream] = advanced.decisions.get(stream, DecideReport()).and_then(report)
        except LearnerBusy as busy:
            logger.info("left out: %s", busy)
        except Exception as error:
            logger.exception("%s, decision", stream)
            advanced.failures[stream, MIXTURE] = error


def _step(
    settings: Settings,
    advanced: Advanced,
    shared: Mapping[Stream, Shared],
    lessons: Mapping[tuple[Stream, str], Iterator[LearnReport]],
) -> None:
    """Takes each lesson to its next part, those of models that read none of each other side by side."""
    taught = {model for _, model in lessons}
    for level in in_levels(name for name in settings.models if name in taught):
        chosen = [(key, lesson) for key, lesson in lessons.items() if key[1] in level]
        with ThreadPoolExecutor(max(1, min(len(chosen), AT_ONCE))) as pool:
            for _ in pool.map(lambda each: _next(advanced, shared[each[0][0]], *each), chosen):
                pass


def _next(advanced: Advanced, shared: Shared, key: tuple[Stream, str], lesson: Iterator[LearnReport]) -> None:
    """Takes one lesson to its next part; one with nothing to do leaves no report."""
    try:
        for report in lesson:
            advanced.lessons[key] = report
            break
    except LearnerBusy as busy:
        logger.info("left out: %s", busy)
    except ModelRests as rests:
        logger.info("left out: %s", rests)
        shared.missing.add(key[1])
    except Exception as error:
        logger.exception("%s, %s", *key)
        advanced.failures[key] = error
        advanced.lessons.pop(key, None)
        shared.missing.add(key[1])
