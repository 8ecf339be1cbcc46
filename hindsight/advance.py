"""Advance: the verb of the live path. What has landed is stored, predicted from, decided, settled and learned.

Every stream's newest reference stands before any model trains, so that no prediction waits for training. What is due
follows from the tables: a call that was killed is finished by the next one, whoever makes it.
"""

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hindsight.decide import DecideReport, decide
from hindsight.errors import LearnerBusy, ModelRests, ModelTimedOut
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
from hindsight.teaching import taught_by_us
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

    Lessons of one level are waited for together, each no longer than the setting allows. Nobody waits for a model that
    has failed: those that read it, and the decision, do without it.
    """
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    landing = Landing(settings.landing_path)
    advanced = Advanced(_ingest(settings, warehouse, landing, clock))
    fresh = [stream for stream in settings.predicted_streams if stream in advanced.ingested.streams]
    teachable = told_apart(settings)
    with _lessons_on(settings, teachable, advanced, fresh, clock, leave_pivots=leave_pivots) as lessons:
        lessons.predict()
        noted = dict(advanced.failures)  # for the run that a pivot starts, and the next one, should this one be killed
        note_outcomes(warehouse, noted, (), clock())
        yield advanced
        lessons.learn()
    idle = [stream for stream in settings.predicted_streams if not leave_pivots or stream not in fresh]
    late = []
    if idle:
        with warehouse.reading() as con:
            left = left_unlearned(con, idle, settings.models)
        late = [stream for stream in idle if any(name == str(stream) for name, _ in left)]
    with _lessons_on(settings, teachable, advanced, late, clock, leave_pivots=False) as lessons:
        lessons.predict()
        lessons.learn()
    _note(warehouse, advanced, noted, clock())
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


@dataclass(slots=True, kw_only=True)
class _Lessons:
    """The lessons of every model on some streams, taken to their newest closes side by side."""

    settings: Settings
    advanced: Advanced
    clock: Callable[[], datetime]
    shared: dict[Stream, Shared]
    each: dict[tuple[Stream, str], Generator[LearnReport]] = field(default_factory=dict)
    passed: ExitStack = field(default_factory=ExitStack)  # the locks of models that are passed over

    def predict(self) -> None:
        """Until every newest reference stands, and what they say is decided upon."""
        with self.passed:
            self._step()
            self._decide()

    def learn(self) -> None:
        """What had been answered by then is settled and learned."""
        with self.passed:
            self._step()

    def _step(self) -> None:
        """Takes each lesson to its next part, those of models that read none of each other side by side."""
        taught = {model for _, model in self.each}
        for level in in_levels(name for name in self.settings.models if name in taught):
            chosen = [key for key in self.each if key[1] in level]
            with ThreadPoolExecutor(max(1, min(len(chosen), AT_ONCE))) as pool:
                for _ in pool.map(self._next, chosen):
                    pass

    def _decide(self) -> None:
        """Decides at the closes of these streams that all models have predicted from, or let pass."""
        decisions = self.advanced.decisions
        for stream, each in self.shared.items():
            try:
                report = decide(self.settings, stream, clock=self.clock, shared=each)
                decisions[stream] = decisions.get(stream, DecideReport()).and_then(report)
            except LearnerBusy as busy:
                logger.info("left out: %s", busy)
            except Exception as error:
                logger.exception("%s, decision", stream)
                self.advanced.failures[stream, MIXTURE] = error

    def _next(self, key: tuple[Stream, str]) -> None:
        """Takes one lesson to its next part; one with nothing to do leaves no report."""
        stream, model = key
        if model in _timed_out(self.advanced):  # on another stream: what hangs there, hangs here
            self.each[key].close()
            self.pass_over(stream, model)
            return
        try:
            for report in self.each[key]:
                self.advanced.lessons[key] = report
                break
        except LearnerBusy as busy:
            logger.info("left out: %s", busy)
        except ModelRests as rests:
            logger.info("left out: %s", rests)
            self.pass_over(stream, model)
        except Exception as error:
            logger.exception("%s, %s", stream, model)
            self.advanced.failures[key] = error
            self.advanced.lessons.pop(key, None)
            self.pass_over(stream, model)

    def pass_over(self, stream: Stream, model: str) -> None:
        """Nobody waits for the model any more; and nobody else makes it predict before those that read it have stored
        what they said without: it would look as if it had been in time for them."""
        try:
            self.passed.enter_context(taught_by_us(self.settings, stream, model, 0.0))
        except (LearnerBusy, OSError):
            return  # then it is waited for, as long as its deadline
        self.shared[stream].missing.add(model)


@contextmanager
def _lessons_on(
    settings: Settings,
    teachable: Teachable,
    advanced: Advanced,
    streams: Sequence[Stream],
    clock: Callable[[], datetime],
    *,
    leave_pivots: bool,
) -> Iterator[_Lessons]:
    """The lessons on these streams, none of them begun; each is over when the block ends.

    A model that cannot be taught at all fails here, and one that has failed in the call is not tried again in it.
    """
    with ExitStack() as stack:
        shared = {stream: Shared(began=clock()) for stream in streams}
        lessons = _Lessons(settings=settings, advanced=advanced, clock=clock, shared=shared)
        for stream, common in shared.items():
            advanced.failures.update({(stream, model): error for model, error in teachable.refused.items()})
            for model in settings.models:
                if (stream, model) in advanced.failures:
                    lessons.pass_over(stream, model)
                    continue
                one = learn_live(teachable.settings, stream, model, clock, leave_pivots=leave_pivots, shared=common)
                lessons.each[stream, model] = stack.enter_context(closing(one))
        yield lessons


def _timed_out(advanced: Advanced) -> set[str]:
    """The models that took too long in the call, so far: the lessons beside this one may add to them meanwhile."""
    return {model for (_, model), error in list(advanced.failures.items()) if isinstance(error, ModelTimedOut)}


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
        shared = Shared()
        advanced.failures.update({(stream, model): error for model, error in refused.items()})
        for model in teachable:
            if (stream, model) in advanced.failures or model in _timed_out(advanced):
                continue
            try:
                advanced.lessons[stream, model] = learn(loaded, stream, model, close, clock=clock, shared=shared)
            except (LearnerBusy, ModelRests) as why:
                logger.info("left out: %s", why)
            except Exception as error:
                logger.exception("%s, %s", stream, model)
                advanced.failures[stream, model] = error
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    _note(warehouse, advanced, (), clock())
    return advanced


def _note(warehouse: Warehouse, advanced: Advanced, noted: Collection[tuple[Stream, str]], at: datetime) -> None:
    """Notes in the tables what failed in a call, but for what is `noted`, and ends what was noted of models that have
    moved on in it."""
    well = [key for key, report in advanced.lessons.items() if report.until is not None]
    well += [(stream, MIXTURE) for stream, report in advanced.decisions.items() if report.until is not None]
    failures = {key: error for key, error in advanced.failures.items() if key not in noted}
    note_outcomes(warehouse, failures, [key for key in well if key not in advanced.failures], at)
