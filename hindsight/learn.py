"""Advance one model of one stream: predict, settle, learn, and write what came of it. Backfill and live are this verb.

What is due follows from the tables: a watermark says how far the model has come, and the market's tables how far it can
go. History is taken in pieces of CHUNK candles; each ends in one transaction that holds its references, outcomes, trend
validations, training steps, checkpoints and scores, and the watermark. A kill loses the piece at hand and nothing else.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import duckdb
import torch

from hindsight.configured import cadence_of, hyperparameters, replay_of, schema_of, shape_of, without_gpu
from hindsight.errors import ModelRests, SettingRefused
from hindsight.inference.labels import TrendRule
from hindsight.market.streams import Stream, to_ms
from hindsight.patience import Beat, in_time
from hindsight.piece import CHUNK, Clock, Piece, Subject, end_of_piece, pieces, recall_piece
from hindsight.promote import champion_of
from hindsight.recall import recall_lineage, relive
from hindsight.recall_blocks import Shared, known_until
from hindsight.settings import Settings
from hindsight.store.failure_tables import timed_out_at
from hindsight.store.inference_tables import learned_until, predicted_until
from hindsight.store.market_tables import pivot_mark
from hindsight.store.training_tables import newest_hyperparameters, newest_step
from hindsight.store.warehouse import Warehouse
from hindsight.teaching import LIVE_PATIENCE_SECONDS, taught_by_us
from hindsight.training.engine import alone
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.loop import lesson
from hindsight.write import LearnReport, publish, write

REST_FACTOR = 10  # a model that took too long rests for so many times of what it may take
Progress = Callable[[int, int], None]
T = TypeVar("T")


def learn(
    settings: Settings,
    stream: Stream,
    model: str,
    until: datetime,
    progress: Progress | None = None,
    clock: Clock | None = None,
    shared: Shared | None = None,
) -> LearnReport:
    """Takes `model` from where it stands to `until`, or as far as pivots are recorded. Doing it again changes nothing.

    `progress` is called with the closes done and the closes to do. References whose target has not closed yet by the
    venue's `clock` are live; without a clock all are backfill. `shared` is that of the stream's models that are taught
    one after the other. One learner per model and stream at a time: another caller waits until this one is done, and
    then finds nothing left.
    """
    report, given = LearnReport(), (stream, model, until, progress, clock, shared)
    try:
        return _learn(settings, report, *given)
    except RuntimeError as error:
        settings = without_gpu(settings, f"{model} of {stream}", error)
    return _learn(settings, report, *given)  # what it had written stands, and the rest is taken up from there


def _learn(
    settings: Settings,
    report: LearnReport,
    stream: Stream,
    model: str,
    until: datetime,
    progress: Progress | None,
    clock: Clock | None,
    shared: Shared | None,
) -> LearnReport:
    started = time.perf_counter()
    with _lesson(settings, stream, model, until, clock, shared) as (subject, learner, due, begin, last):
        if learner is None:
            return report
        for piece in due:
            first, end = piece.first, piece.end
            _advance(subject, learner, piece, first, end)
            write(subject, learner, report, piece, end, newest=end == last)
            if progress:
                progress(end - begin, last - begin)
    report.seconds, report.seconds_inside = time.perf_counter() - started, learner.seconds_inside
    return report


def learn_live(
    settings: Settings, stream: Stream, model: str, clock: Clock, *, leave_pivots: bool, shared: Shared | None = None
) -> Generator[LearnReport]:
    """The same in two parts, as far as pivots are recorded: the first item comes when the newest reference stands, the
    second when what had been answered by then is settled and learned. So no prediction waits for the training of
    another stream.

    With `leave_pivots`, what a level-2 pivot has confirmed at the newest close is left to whom that pivot wakes: the
    close is done with the next call of either function. Of a long history one piece is learned a call, and no newest
    reference is made until it is done: the other streams wait for this one. Raises LearnerBusy as `learn` does with a
    clock.
    """
    report, is_newest_made = LearnReport(), False
    try:
        for _ in _learn_live(settings, report, stream, model, clock, shared, leave_pivots=leave_pivots):
            yield report
            is_newest_made = True
        return
    except RuntimeError as error:
        settings = without_gpu(settings, f"{model} of {stream}", error)
    for _ in _learn_live(settings, report, stream, model, clock, shared, leave_pivots=leave_pivots):
        if not is_newest_made:
            yield report
    if is_newest_made:
        yield report


def _learn_live(
    settings: Settings,
    report: LearnReport,
    stream: Stream,
    model: str,
    clock: Clock,
    shared: Shared | None,
    *,
    leave_pivots: bool,
) -> Generator[LearnReport]:
    started = time.perf_counter()
    with _lesson(settings, stream, model, datetime.max.replace(tzinfo=UTC), clock, shared) as (
        subject,
        learner,
        due,
        _,
        last,
    ):
        if learner is None:
            return
        for piece in due:
            first, end = piece.first, piece.end
            newest = end == last
            _advance(subject, learner, piece, first, end - newest, ahead=int(newest))
            if newest:
                publish(subject, learner, report, piece)
                yield report
                if leave_pivots and end - 1 in piece.market.l2_rows:
                    end -= 1
                else:
                    _advance(subject, learner, piece, end - 1, end)
            if end > first:
                write(subject, learner, report, piece, end, newest=newest)
            if last - end > CHUNK:
                break
    report.seconds, report.seconds_inside = time.perf_counter() - started, learner.seconds_inside
    yield report


@contextmanager
def _lesson(
    settings: Settings, stream: Stream, model: str, until: datetime, clock: Clock | None, shared: Shared | None
) -> Iterator[tuple[Subject, Learner | None, Iterator[Piece], int, int]]:
    """While nobody else teaches this model: the subject, its weights (None where nothing is due), the pieces that are
    due and the rows [begin, last) of all of them together.
    """
    torch.set_num_threads(settings.threads)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    subject = Subject(settings=settings, stream=stream, model=model, clock=clock, warehouse=warehouse, shared=shared)
    settings.checkpoints_path.mkdir(parents=True, exist_ok=True)
    with taught_by_us(settings, stream, model, LIVE_PATIENCE_SECONDS if clock else None):
        lineage, serving, piece = None, None, None
        with warehouse.reading() as con:
            begin, last = _due(con, subject, until)
            if begin < last:
                _let_rest(con, subject)
                _hold_to_rule(con, model, stream, hyperparameters(settings).trend_rule)
                number, _ = newest_step(con, model, stream)
                lineage = recall_lineage(con, settings, model, stream, number)
                subject.champion = champion_of(con, model, stream, schema_of(settings, stream, model))
                if subject.champion is not None:
                    serving = recall_lineage(con, settings, model, stream, subject.champion.checkpoint_id)
                piece = recall_piece(con, subject, begin, end_of_piece(settings, begin, last))
        learner = _watched(subject, partial(relive, lineage)) if lineage else None
        if learner and serving:
            learner.serving, learner.serving_id = _watched(subject, partial(relive, serving)).average, serving.number
        yield subject, learner, pieces(subject, piece, last), begin, last


def _let_rest(con: duckdb.DuckDBPyConnection, subject: Subject) -> None:
    """Raises ModelRests for a live call where the model has timed out a moment ago, on whichever stream: it would hold
    up every close."""
    now, settings = subject.now, subject.settings
    last = timed_out_at(con, subject.model) if now else None
    if now is None or last is None:
        return
    again = last + timedelta(seconds=REST_FACTOR * settings.model_timeout_seconds * settings.venue_speed)
    if now < again:
        raise ModelRests(f"{subject.model} timed out at {last:%F %T}: it is tried again from {again:%F %T} on")


def _hold_to_rule(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, rule: TrendRule) -> None:
    """Raises SettingRefused where trends were graded by another rule: half of them would be graded twice, or never."""
    recorded = newest_hyperparameters(con, model, stream)
    held = Hyperparameters(**json.loads(recorded)).trend_rule if recorded else rule
    if held != rule:
        raise SettingRefused(
            f"settings flat_fraction = {rule.flat_fraction}, trend_ttl = {rule.trend_ttl}: the trends of {model} on"
            f" {stream} are graded by {held.flat_fraction} and {held.trend_ttl}. Set them back, or name another"
            " HINDSIGHT_HOME"
        )


def _due(con: duckdb.DuckDBPyConnection, subject: Subject, until: datetime) -> tuple[int, int]:
    """The rows [first, last) whose closes are due: after the watermark, up to `until`, and to where all that their
    frames ask for is known, or was when they were predicted from."""
    stream, model, settings = subject.stream, subject.model, subject.settings
    mark = pivot_mark(con, stream)
    done = learned_until(con, model, stream)
    shape, reached = shape_of(settings, stream, model), done[1] if done else None
    known = known_until(con, settings, stream, shape, subject.now, reached, subject.shared)
    if mark is None or known is None:
        return 0, 0
    known = max(known, predicted_until(con, model, stream) or known)
    first = to_ms(done[1] if done else mark.since) // stream.step_ms
    return first, max(first, to_ms(min(until, known)) // stream.step_ms)


def _advance(subject: Subject, learner: Learner, piece: Piece, first: int, end: int, ahead: int = 0) -> None:
    whole = lesson(
        learner,
        piece.market.blocks,
        piece.market.labels,
        piece.memory,
        first,
        end,
        piece.market.l2_rows,
        cadence=cadence_of(subject.settings),
        replay=replay_of(subject.settings),
        snapshot=tensors_of,
        prove=piece.proof,
        ahead=ahead,
        into=piece.learned,
    )
    _watched(subject, partial(alone, learner, whole))


def _watched(subject: Subject, work: Callable[[Beat | None], T]) -> T:
    """What comes of a model's work; live, as long as it goes on. In a backfill nobody else waits."""
    if subject.clock is None:
        return work(None)

    def with_threads(beat: Beat) -> T:
        torch.set_num_threads(subject.settings.threads)  # each thread of ours has its own number
        return work(beat)

    return in_time(with_threads, subject.settings.model_timeout_seconds, f"{subject.model} of {subject.stream}")
