"""Write what a piece of history has come to: its references as soon as they stand, all else in one transaction.

A transaction holds everything that became known or was done at the closes of a piece, and the watermark: a kill loses
the piece at hand and nothing else.
"""

import logging
import math
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb
import numpy as np
import polars as pl

from hindsight.configured import schema_of
from hindsight.inference.evidence import MINIMUM_BLOCKS
from hindsight.inference.labels import PIVOT_TARGETS, Labels
from hindsight.inference.records import candle_records, pivot_records, reference_records, settled_between, trend_records
from hindsight.market.streams import from_ms, to_ms
from hindsight.piece import Piece, Subject
from hindsight.promote import Champion, is_look, look, promotion_record
from hindsight.retain import Needed, latest_snapshot, retain, save_snapshots
from hindsight.store.hidden_tables import append_hidden
from hindsight.store.inference_tables import (
    add_refusals,
    append,
    learners_of,
    move_watermark,
    note_schema,
    predicted_until,
)
from hindsight.store.promotion_tables import append_promotion
from hindsight.store.timings import Stage, note
from hindsight.store.training_tables import replace_scores
from hindsight.training.checkpoints import not_finite, remove
from hindsight.training.graphs import graphs_for
from hindsight.training.learner import Learner, copy_of
from hindsight.training.loop import Snapshot
from hindsight.training.memory import Memory
from hindsight.training.models.registry import may_read, model_of
from hindsight.training.scores import score_days
from hindsight.training.step import LOSS_PARTS
from hindsight.training.step_records import drift_records, step_records

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class LearnReport:
    """What one call did. Seconds are wall time; `seconds_inside` is forward, backward and optimizer alone, on
    a GPU until they are under way."""

    until: datetime | None = None  # the last close that was predicted from
    closes: int = 0
    predicted: int = 0
    settled: int = 0  # candle outcomes
    graded: int = 0  # trends, expired ones included
    steps: int = 0
    loss_sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LOSS_PARTS, 0.0))
    loss_steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOSS_PARTS, 0))  # that asked for it
    seconds: float = 0.0
    seconds_inside: float = 0.0

    @property
    def losses(self) -> dict[str, float]:
        """Mean training loss by part, over the steps that asked for it: of a trend most do not."""
        return {part: total / max(self.loss_steps[part], 1) for part, total in self.loss_sums.items()}


def publish(subject: Subject, learner: Learner, report: LearnReport, piece: Piece) -> None:
    """Stores the references made so far, before anything is learned from the close that they were made at."""
    references = _references(subject, piece, str(learner.device))
    with subject.warehouse.writing() as con:
        _append_references(con, subject, piece, references)
        _note(con, subject, "predicted", references["made_at"].to_list())
    report.predicted += len(references)
    report.until = from_ms(piece.end * subject.stream.step_ms)
    piece.stored |= piece.memory.made


def write(subject: Subject, learner: Learner, report: LearnReport, piece: Piece, end: int, *, newest: bool) -> None:
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
        evicted = retain(con, settings, stream, model, saved, until, serves, _needed(piece, end))
        replace_scores(con, model, stream, scores)
        move_watermark(con, model, stream, from_ms(first * stream.step_ms), until)
        # Whoever reads this model sees that it works through a backlog, also where nothing was learned. A close that
        # was published when it was the newest is noted already.
        if not newest and not piece.stored[end - 1 - memory.first_row]:
            _note(con, subject, "predicted", [until])
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
        report.loss_steps[part] += sum(step.loss[part] != 0 for step in piece.learned.steps)


def _note(con: duckdb.DuckDBPyConnection, subject: Subject, stage: Stage, closes: list[datetime]) -> None:
    if subject.clock is not None:
        note(con, subject.stream, subject.model, stage, closes, subject.clock())


def _references(subject: Subject, piece: Piece, device: str) -> pl.DataFrame:
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
    con: duckdb.DuckDBPyConnection, subject: Subject, piece: Piece, references: pl.DataFrame
) -> None:
    """Stores references that `_references` has made, the hidden states beside them, and the shape of their frames."""
    if references.is_empty():
        return
    settings, stream, model = subject.settings, subject.stream, subject.model
    at = np.flatnonzero(piece.memory.made & ~piece.stored)
    append(con, "inference_references", stream, [references])
    readers = [name for name in {*settings.models, *learners_of(con, stream)} if may_read(name, model)]
    said = [each for name in readers if (each := predicted_until(con, name, stream)) is not None]
    hidden, passed = piece.memory.hidden[at], max(said, default=None)
    append_hidden(con, model, stream, references["made_at"], hidden, subject.now, passed)
    shape = piece.market.blocks.shape
    note_schema(con, schema_of(settings, stream, model), str(shape), model_of(model).text)


def _look(subject: Subject, learner: Learner, piece: Piece, end: int, snapshots: list[Snapshot]) -> pl.DataFrame | None:
    """Holds the learner against the champion where that is due at the close of row `end` − 1: the row of `promotions`.

    A learner that is to serve does so from the next close on, and its weights join the snapshots.
    """
    settings, stream, model = subject.settings, subject.stream, subject.model
    if not is_look(end, settings) or learner.number == learner.born_at:
        return None
    evidence = None
    if subject.champion is not None:
        evidence = look(settings, piece.memory, piece.market.labels, subject.champion, end)
        if evidence.blocks < MINIMUM_BLOCKS:
            logger.warning(
                "%s of %s: a look found %d blocks of the %d that it needs; promote_every is to be 51 trend_ttl or more",
                model, stream, evidence.blocks, MINIMUM_BLOCKS,
            )  # fmt: skip
    is_sound = not not_finite(dict(learner.average.named_parameters()))
    is_promoted = is_sound and (evidence is None or evidence.is_better)
    if subject.champion is None and not is_promoted:
        return None
    record = promotion_record(
        model,
        schema_of(settings, stream, model),
        from_ms(end * stream.step_ms),
        subject.champion,
        learner.number,
        evidence,
        is_promoted=is_promoted,
    )
    if is_promoted:
        subject.champion = Champion(checkpoint_id=learner.number, since_row=end - 1)
        learner.serving = copy_of(learner.average)
        learner.serving_id = learner.number
        learner.graphs = graphs_for(learner.device)  # nothing of the weights that served before stays on a device
        snapshots[:] = [taken for taken in snapshots if taken.number != learner.number]
        taken = latest_snapshot(learner, end - 1, piece.market.labels, piece.memory, settings.score_window)
        snapshots.append(taken)
    return record


def _needed(piece: Piece, end: int) -> Needed | None:
    """The checkpoints that references name whose trend is neither graded nor expired; None where there are none."""
    memory, trend = piece.memory, piece.market.labels.trend
    pending = memory.made & (trend.settled >= end)
    if not pending.any():
        return None
    return Needed(int(memory.checkpoint[pending].min()), frozenset(memory.served_by[pending].tolist()))


def _refused(subject: Subject, piece: Piece, first: int, end: int) -> pl.DataFrame:
    """What was missing at the closes of rows [first, end) at which a reference was due and none could be made."""
    rows = piece.there.rows
    due = (rows >= first) & (rows < end) & ((rows + 1) % subject.settings.predict_every == 0)
    asked = replace(piece.there, rows=rows[due], have=piece.there.have[due])
    return asked.refusals(subject.stream.step_ms)


def _outcomes(subject: Subject, labels: Labels, memory: Memory, first: int, end: int) -> list[pl.DataFrame]:
    """The outcomes that became known at the closes of rows [first, end), candles before pivots."""
    model, stream, predicted, norm = subject.model, subject.stream, memory.predictions, memory.norm_params
    at = settled_between(labels.candle.settled, memory.made, first, end)
    frames = [candle_records(model, stream, labels, at, predicted, norm)]
    for kind in range(len(PIVOT_TARGETS)):
        at = settled_between(labels.pivot.settled[:, kind], memory.made, first, end)
        if len(at):  # at most closes no pivot is confirmed
            frames.append(pivot_records(model, stream, labels, kind, at, predicted, norm))
    return frames
