"""Advance one model of one stream: predict, settle, learn, and write what came of it. Backfill and live are this verb.

What is due follows from the tables: a watermark says how far the model has come, and the market's tables how far it can
go. History is taken in pieces of CHUNK candles; each ends in one transaction that holds its references, outcomes, trend
validations, training steps, checkpoints and scores, and the watermark. A kill loses the piece at hand and nothing else.
"""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import duckdb
import numpy as np
import polars as pl
import torch

from hindsight.configured import cadence_of, hyperparameters, replay_of, schema_of, shape_of
from hindsight.errors import LearnerBusy, SettingRefused
from hindsight.inference.completeness import Completeness
from hindsight.inference.labels import PIVOT_TARGETS, Labels, TrendRule
from hindsight.inference.records import candle_records, pivot_records, reference_records, settled_between, trend_records
from hindsight.market.streams import Stream, from_ms, to_ms
from hindsight.promote import Champion, champion_of, is_look, look, promotion_record
from hindsight.recall import Market, Proof, recall_lineage, recall_market, recall_memory, relive
from hindsight.recall_blocks import known_until
from hindsight.retain import latest_snapshot, retain, save_snapshots
from hindsight.settings import Settings
from hindsight.store import lock
from hindsight.store.hidden_tables import append_hidden
from hindsight.store.inference_tables import add_refusals, append, learned_until, move_watermark, note_schema
from hindsight.store.market_tables import pivot_mark
from hindsight.store.promotion_tables import append_promotion
from hindsight.store.timings import Stage, note
from hindsight.store.training_tables import newest_hyperparameters, newest_step, replace_scores
from hindsight.store.warehouse import Warehouse
from hindsight.training.checkpoints import remove
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.loop import Learned, Snapshot, learn_rows
from hindsight.training.memory import Memory
from hindsight.training.models.registry import model_of
from hindsight.training.scores import score_days
from hindsight.training.step import LOSS_PARTS, Hyperparameters
from hindsight.training.step_records import drift_records, step_records

CHUNK = 2880  # candles; cut on the time grid, so that no result depends on where a run began
LIVE_PATIENCE_SECONDS = 5.0  # a live call does not wait for the end of a backfill
Progress = Callable[[int, int], None]
Clock = Callable[[], datetime]


@dataclass(slots=True, kw_only=True)
class LearnReport:
    """What one call did. Seconds are wall time; `seconds_inside` is forward, backward and optimizer alone."""

    until: datetime | None = None  # the last close that was predicted from
    closes: int = 0
    predicted: int = 0
    settled: int = 0  # candle outcomes
    graded: int = 0  # trends, expired ones included
    steps: int = 0
    loss_sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LOSS_PARTS, 0.0))
    seconds: float = 0.0
    seconds_inside: float = 0.0

    @property
    def losses(self) -> dict[str, float]:
        """Mean training loss over the steps, by part."""
        return {part: total / max(self.steps, 1) for part, total in self.loss_sums.items()}


@dataclass(slots=True, kw_only=True)
class _Subject:
    """Who learns what, and which checkpoint serves meanwhile."""

    settings: Settings
    stream: Stream
    model: str
    clock: Clock | None
    warehouse: Warehouse
    champion: Champion | None = None
    proven: set[int] = field(default_factory=set)  # rows whose reference was held against its digest in this call
    refused: set[int] = field(default_factory=set)  # and those that no longer match

    @property
    def now(self) -> datetime | None:
        """The venue's time, for a live call."""
        return self.clock() if self.clock else None


@dataclass(slots=True, kw_only=True)
class _Piece:
    """The closes of rows [first, end) while they are learned: what the tables know, and what is to be written."""

    first: int
    end: int
    market: Market
    memory: Memory
    proof: Proof
    there: Completeness
    stored: np.ndarray  # [N] the reference stands in the table
    learned: Learned = field(default_factory=Learned)


def learn(
    settings: Settings,
    stream: Stream,
    model: str,
    until: datetime,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> LearnReport:
    """Takes `model` from where it stands to `until`, or as far as pivots are recorded. Doing it again changes nothing.

    `progress` is called with the closes done and the closes to do. References whose target has not closed yet by the
    venue's `clock` are live; without a clock all are backfill. One learner per model and stream at a time: another
    caller waits until this one is done, and then finds nothing left.
    """
    report, started = LearnReport(), time.perf_counter()
    with _lesson(settings, stream, model, until, clock) as (subject, learner, pieces, begin, last):
        if learner is None:
            return report
        for piece in pieces:
            first, end = piece.first, piece.end
            _advance(subject, learner, piece, first, end)
            _write(subject, learner, report, piece, end, newest=end == last)
            if progress:
                progress(end - begin, last - begin)
    report.seconds, report.seconds_inside = time.perf_counter() - started, learner.seconds_inside
    return report


def learn_live(
    settings: Settings, stream: Stream, model: str, clock: Clock, *, leave_pivots: bool
) -> Generator[LearnReport]:
    """The same in two parts, as far as pivots are recorded: the first item comes when the newest reference stands, the
    second when what had been answered by then is settled and learned. So no prediction waits for the training of
    another stream.

    With `leave_pivots`, what a level-2 pivot has confirmed at the newest close is left to whom that pivot wakes: the
    close is done with the next call of either function. Of a long history one piece is learned a call, and no newest
    reference is made until it is done: the other streams wait for this one. Raises LearnerBusy as `learn` does with a
    clock.
    """
    report, started = LearnReport(), time.perf_counter()
    with _lesson(settings, stream, model, datetime.max.replace(tzinfo=UTC), clock) as (
        subject,
        learner,
        pieces,
        _,
        last,
    ):
        if learner is None:
            return
        for piece in pieces:
            first, end = piece.first, piece.end
            newest = end == last
            _advance(subject, learner, piece, first, end - newest, ahead=int(newest))
            if newest:
                _publish(subject, learner, report, piece)
                yield report
                if leave_pivots and end - 1 in piece.market.l2_rows:
                    end -= 1
                else:
                    _advance(subject, learner, piece, end - 1, end)
            if end > first:
                _write(subject, learner, report, piece, end, newest=newest)
            if last - end > CHUNK:
                break
    report.seconds, report.seconds_inside = time.perf_counter() - started, learner.seconds_inside
    yield report


@contextmanager
def _lesson(
    settings: Settings, stream: Stream, model: str, until: datetime, clock: Clock | None
) -> Iterator[tuple[_Subject, Learner | None, Iterator[_Piece], int, int]]:
    """While nobody else teaches this model: the subject, its weights (None where nothing is due), the pieces that are
    due and the rows [begin, last) of all of them together.
    """
    torch.set_num_threads(settings.threads)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    subject = _Subject(settings=settings, stream=stream, model=model, clock=clock, warehouse=warehouse)
    settings.checkpoints_path.mkdir(parents=True, exist_ok=True)
    with _taught_by_us(settings, stream, model, LIVE_PATIENCE_SECONDS if clock else None):
        lineage, serving, piece = None, None, None
        with warehouse.reading() as con:
            begin, last = _due(con, subject, until)
            if begin < last:
                _hold_to_rule(con, model, stream, hyperparameters(settings).trend_rule)
                number, _ = newest_step(con, model, stream)
                lineage = recall_lineage(con, settings, model, stream, number)
                subject.champion = champion_of(con, model, stream, schema_of(settings, stream, model))
                if subject.champion is not None:
                    serving = recall_lineage(con, settings, model, stream, subject.champion.checkpoint_id)
                piece = _recall_piece(con, subject, begin, _end_of_piece(settings, begin, last))
        learner = relive(lineage) if lineage else None
        if learner and serving:
            learner.serving, learner.serving_id = relive(serving).average, serving.number
        yield subject, learner, _pieces(subject, piece, last), begin, last


@contextmanager
def _taught_by_us(settings: Settings, stream: Stream, model: str, patience_seconds: float | None) -> Iterator[None]:
    """While no other process teaches this model of this stream. Raises LearnerBusy where patience runs out."""
    with ExitStack() as stack:
        try:
            lesson = settings.checkpoints_path / f"{model} {stream}.learning".replace("/", "-")
            stack.enter_context(lock.held(lesson, patience_seconds))
        except TimeoutError as error:
            raise LearnerBusy(f"{stream}: {model} is being taught by another process: {error}") from error
        yield


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


def _due(con: duckdb.DuckDBPyConnection, subject: _Subject, until: datetime) -> tuple[int, int]:
    """The rows [first, last) whose closes are due: after the watermark, up to `until`, and to where all that their
    frames ask for is known."""
    stream, model, settings = subject.stream, subject.model, subject.settings
    mark = pivot_mark(con, stream)
    known = known_until(con, settings, stream, shape_of(settings, stream, model), subject.now)
    if mark is None or known is None:
        return 0, 0
    done = learned_until(con, model, stream)
    first = to_ms(done[1] if done else mark.since) // stream.step_ms
    return first, max(first, to_ms(min(until, known)) // stream.step_ms)


def _end_of_piece(settings: Settings, first: int, last: int) -> int:
    """A piece ends on the grid, and where the challenger is held against the champion."""
    return min(*((first // grid + 1) * grid for grid in (CHUNK, settings.promote_every)), last)


def _pieces(subject: _Subject, piece: _Piece | None, last: int) -> Iterator[_Piece]:
    """The pieces from `piece` on, each brought back when the one before it is written."""
    while piece is not None:
        yield piece
        first, piece = piece.end, None  # the arrays go before the next ones come
        if first < last:
            with subject.warehouse.reading() as con:
                piece = _recall_piece(con, subject, first, _end_of_piece(subject.settings, first, last))


def _recall_piece(con: duckdb.DuckDBPyConnection, subject: _Subject, first: int, end: int) -> _Piece:
    """The rows [first, end) as the tables stand."""
    settings, stream, model = subject.settings, subject.stream, subject.model
    market = recall_market(con, settings, model, stream, shape_of(settings, stream, model), first, end)
    memory, proof, there = recall_memory(con, model, stream, market, first)
    proof.carry(memory, subject.proven, subject.refused)
    return _Piece(
        first=first, end=end, market=market, memory=memory, proof=proof, there=there, stored=memory.made.copy()
    )


def _advance(subject: _Subject, learner: Learner, piece: _Piece, first: int, end: int, ahead: int = 0) -> None:
    learn_rows(
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


def _publish(subject: _Subject, learner: Learner, report: LearnReport, piece: _Piece) -> None:
    """Stores the references made so far, before anything is learned from the close that they were made at."""
    references = _references(subject, piece, str(learner.device))
    with subject.warehouse.writing() as con:
        _append_references(con, subject, piece, references)
        _note(con, subject, "predicted", references["made_at"].to_list())
    report.predicted += len(references)
    report.until = from_ms(piece.end * subject.stream.step_ms)
    piece.stored |= piece.memory.made


def _write(subject: _Subject, learner: Learner, report: LearnReport, piece: _Piece, end: int, *, newest: bool) -> None:
    """Everything that became known or was done at the closes of rows [piece.first, end), in one transaction."""
    settings, stream, model, first = subject.settings, subject.stream, subject.model, piece.first
    market, memory, schema = piece.market, piece.memory, schema_of(settings, stream, model)
    snapshots = list(piece.learned.snapshots)
    if newest and learner.trained_row is not None and learner.number % settings.snapshot_every:
        row = learner.trained_row
        snapshots.append(latest_snapshot(learner, row, market.labels, memory, settings.score_window))
    promotion = _look(subject, learner, piece, end, snapshots)
    saved = save_snapshots(settings, stream, model, learner, snapshots, schema)
    references = _references(subject, piece, str(learner.device))
    outcomes = _outcomes(subject, market.labels, memory, first, end)
    at = settled_between(market.labels.trend.settled, memory.made, first, end)
    trends = trend_records(model, stream, market.labels, at, memory.predictions)
    steps = step_records(model, stream, learner, piece.learned.steps, schema)
    experience = learner.objective.records(learner, model, stream, market.labels, memory, first, end)
    drifts = drift_records(model, stream, piece.learned.drifts)
    scores = score_days(market.blocks.own, memory, market.labels, first, end, settings.trend_ttl, stream, model)

    until = from_ms(end * stream.step_ms)
    refused = _refused(subject, piece, first, end)
    with subject.warehouse.writing() as con:
        _append_references(con, subject, piece, references)
        add_refusals(con, model, stream, refused)
        append(con, "outcomes", stream, outcomes)
        append(con, "trend_validations", stream, [trends])
        append(con, "training_steps", stream, [steps])
        append(con, "drifts", stream, [drifts])
        for table, records in experience.items():
            append(con, table, stream, [records])
        if promotion is not None:
            append_promotion(con, stream, promotion)
        serves = subject.champion.checkpoint_id if subject.champion else None
        evicted = retain(con, settings, stream, model, saved, until, serves, _needed_from(piece, end))
        replace_scores(con, model, stream, scores)
        move_watermark(con, model, stream, from_ms(first * stream.step_ms), until)
        _note(con, subject, "trained", steps["event_time"].unique().to_list())
    for file in evicted:
        remove(settings.checkpoints_path / file)
    subject.proven.update(piece.proof.rows(memory))
    subject.refused.update(np.flatnonzero(~memory.trusted) + memory.first_row)

    report.until = from_ms(piece.end * stream.step_ms)
    report.closes += end - first
    report.predicted += len(references)
    report.settled += len(outcomes[0])
    report.graded += len(trends)
    report.steps += len(piece.learned.steps)
    for part in LOSS_PARTS:
        report.loss_sums[part] += sum(step.loss[part] for step in piece.learned.steps)


def _note(con: duckdb.DuckDBPyConnection, subject: _Subject, stage: Stage, closes: list[datetime]) -> None:
    if subject.clock is not None:
        note(con, subject.stream, subject.model, stage, closes, subject.clock())


def _references(subject: _Subject, piece: _Piece, device: str) -> pl.DataFrame:
    """The references of a piece that are not stored yet, with the digest of what each of them saw."""
    memory, settings, stream = piece.memory, subject.settings, subject.stream
    at = np.flatnonzero(memory.made & ~piece.stored)
    rows = at + memory.first_row
    # The candle that a reference aims at closes one candle after it is made.
    is_live = (rows + 2) * stream.step_ms > (to_ms(subject.clock()) if subject.clock else math.inf)
    return reference_records(
        subject.model,
        stream,
        rows,
        memory.norm_params[at],
        memory.predictions[at],
        memory.served[at],
        memory.served_by[at],
        memory.extras[at],
        memory.checkpoint[at],
        piece.market.blocks.shape.reach,
    ).with_columns(
        schema_hash=pl.lit(schema_of(settings, stream, subject.model)),
        digest=pl.Series(piece.market.blocks.digests(rows), dtype=pl.UInt64),
        device=pl.lit(device),
        mode=pl.Series(np.where(is_live, "live", "backfill"), dtype=pl.String),
    )


def _append_references(
    con: duckdb.DuckDBPyConnection, subject: _Subject, piece: _Piece, references: pl.DataFrame
) -> None:
    """Stores references that `_references` has made, the hidden states beside them, and the shape of their frames."""
    if references.is_empty():
        return
    settings, stream, model = subject.settings, subject.stream, subject.model
    at = np.flatnonzero(piece.memory.made & ~piece.stored)
    append(con, "inference_references", stream, [references])
    append_hidden(con, model, stream, references["made_at"], piece.memory.hidden[at], subject.now)
    shape = piece.market.blocks.shape
    note_schema(con, schema_of(settings, stream, model), str(shape), str(model_of(model).config))


def _look(
    subject: _Subject, learner: Learner, piece: _Piece, end: int, snapshots: list[Snapshot]
) -> pl.DataFrame | None:
    """Holds the learner against the champion where that is due at the close of row `end` − 1: the row of `promotions`.

    A learner that is to serve does so from the next close on, and its weights join the snapshots.
    """
    settings, stream, model = subject.settings, subject.stream, subject.model
    if not is_look(end, settings) or learner.number == learner.born_at:
        return None
    evidence = None
    if subject.champion is not None:
        evidence = look(settings, piece.memory, piece.market.labels, subject.champion, end)
    record = promotion_record(
        model,
        schema_of(settings, stream, model),
        from_ms(end * stream.step_ms),
        subject.champion,
        learner.number,
        evidence,
    )
    if evidence is None or evidence.is_better:
        subject.champion = Champion(checkpoint_id=learner.number, since_row=end - 1)
        learner.serving = deepcopy(learner.average)
        learner.serving_id = learner.number
        snapshots[:] = [taken for taken in snapshots if taken.number != learner.number]
        taken = latest_snapshot(learner, end - 1, piece.market.labels, piece.memory, settings.score_window)
        snapshots.append(taken)
    return record


def _needed_from(piece: _Piece, end: int) -> int:
    """The oldest checkpoint that a pending reference names: those from it on stay."""
    memory, trend = piece.memory, piece.market.labels.trend
    pending = memory.made & (trend.settled >= end)
    return int(memory.checkpoint[pending].min()) if pending.any() else 0


def _refused(subject: _Subject, piece: _Piece, first: int, end: int) -> pl.DataFrame:
    """What was missing at the closes of rows [first, end) at which a reference was due and none could be made."""
    rows = piece.there.rows
    due = (rows >= first) & (rows < end) & ((rows + 1) % subject.settings.predict_every == 0)
    asked = replace(piece.there, rows=rows[due], have=piece.there.have[due])
    return asked.refusals(subject.stream.step_ms)


def _outcomes(subject: _Subject, labels: Labels, memory: Memory, first: int, end: int) -> list[pl.DataFrame]:
    """The outcomes that became known at the closes of rows [first, end), candles before pivots."""
    model, stream, predicted, norm = subject.model, subject.stream, memory.predictions, memory.norm_params
    at = settled_between(labels.candle.settled, memory.made, first, end)
    frames = [candle_records(model, stream, labels, at, predicted, norm)]
    for kind in range(len(PIVOT_TARGETS)):
        at = settled_between(labels.pivot.settled[:, kind], memory.made, first, end)
        frames.append(pivot_records(model, stream, labels, kind, at, predicted, norm))
    return frames
