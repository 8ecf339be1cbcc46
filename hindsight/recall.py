"""Bring back what a learner knew: the market as labels and tape, its references as arrays, its weights at any step.

Everything comes from the tables. The weights after a step are the nearest kept checkpoint plus the steps since,
re-lived from their records (DESIGN §8), so no prediction depends on a file that may have been evicted.
"""

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb
import numpy as np
import polars as pl
import torch

from hindsight.configured import device_of, drift_rule, hyperparameters, shape_of
from hindsight.errors import CheckpointUnreadable, SchemaMismatch
from hindsight.inference.blocks import GATHERED, Blocks
from hindsight.inference.completeness import SCALE, Completeness, completeness
from hindsight.inference.drift import first_row_needed
from hindsight.inference.labels import PIVOT_TARGETS, Labels, TrendRule, label
from hindsight.inference.normalisation import norm_params
from hindsight.inference.predictions import SERVED, SERVED_UNIT, WIDTH, trend_predicted
from hindsight.inference.records import predictions_of
from hindsight.inference.references import made_at_ms, schema_hash
from hindsight.inference.shape import FrameShape
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.patience import Beat
from hindsight.recall_blocks import Shared, recall_blocks
from hindsight.settings import Settings
from hindsight.store.inference_tables import oldest_pending, read_references
from hindsight.store.market_tables import pivot_mark
from hindsight.store.tape_changes import pivots_for
from hindsight.store.training_tables import first_step, kept_checkpoints, newest_step, read_steps, times_used
from hindsight.store.warehouse import Warehouse
from hindsight.training.checkpoints import Tensors, load, not_finite
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, new_learner, restore
from hindsight.training.loop import train
from hindsight.training.memory import Memory
from hindsight.training.models.registry import Model, model_of
from hindsight.training.replay import Draw
from hindsight.training.resident import on_device
from hindsight.training.scores import first_scored

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the tables know of some closes: blocks, labels, and at which of them L2 pivots were confirmed."""

    blocks: Blocks
    labels: Labels
    l2_rows: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Market(Known):
    """The same for a stretch of events, reaching back as far as anything looks that happens there.

    References made before row `trainable_row` are still judged, but no step of the stretch trains on them. At the close
    of row `learned_row` the last candle step was taken; None before the first.
    """

    trainable_row: int
    learned_row: int | None


def recall_market(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    model: str,
    stream: Stream,
    shape: FrameShape,
    first: int,
    end: int,
    rule: TrendRule | None = None,
    shared: Shared | None = None,
) -> Market:
    """The market around the events at the closes of rows [first, end), reaching back as far as anything looks that
    happens there: replay, the next candle step, pending references, the score of a checkpoint, the scores of a day.
    How far that is follows from `first` and `end` alone, and what is found does not depend on them.

    Trends are told apart by `rule`, which is that of the settings where none is given.
    """
    mark = pivot_mark(con, stream)
    assert mark is not None, "learning starts after pivots"
    step_ms, origin_row = stream.step_ms, to_ms(mark.since) // stream.step_ms
    _, last_candle_step = newest_step(con, model, stream)
    learned_row = to_ms(last_candle_step) // step_ms - 1 if last_candle_step else None
    replayed_row = first - max(settings.replay_window, settings.trend_ttl)
    trainable_row = max(origin_row, min(replayed_row, origin_row if learned_row is None else learned_row))
    judged_row = first - settings.score_window
    settled_all = oldest_pending(con, stream, from_ms(judged_row * step_ms), PIVOT_TARGETS)
    pending_row = to_ms(settled_all) // step_ms - 1 if settled_all else origin_row
    scored_row = first_scored(first, end, settings.trend_ttl, stream)
    looked_row = end - settings.promote_every if end % settings.promote_every == 0 else first
    drift_row = first_row_needed(first, drift_rule(settings)) if settings.retrain_steps else first
    held_row = first - settings.predict_every  # whose position is held at the first close
    judged_from = judged_row - max(settings.trend_ttl, settings.predict_every)  # made then, answered since
    start = min(drift_row, trainable_row, judged_from, pending_row, scored_row, looked_row)
    start = max(origin_row, min(start, held_row))
    known = recall_stretch(con, settings, stream, shape, start, end, rule, shared)
    return Market(
        blocks=known.blocks,
        labels=known.labels,
        l2_rows=known.l2_rows,
        trainable_row=trainable_row,
        learned_row=learned_row,
    )


def recall_stretch(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    shape: FrameShape,
    start: int,
    end: int,
    rule: TrendRule | None = None,
    shared: Shared | None = None,
) -> Known:
    """What the tables know of the closes of rows [start, end); trends by `rule`, or that of the settings."""
    shared, rule = shared or Shared(), rule or hyperparameters(settings).trend_rule
    span = Window(start=from_ms(start * stream.step_ms), end=from_ms(end * stream.step_ms))
    blocks = recall_blocks(con, settings, stream, shape, start, end, shared)
    pivots = shared.once("pivots", lambda: pivots_for(con, stream, span))
    labels = shared.once(rule, lambda: label(start, blocks.own.first_known(start, end), pivots, stream.step_ms, rule))
    l2 = pivots.filter(pl.col("level") == 2)["confirmed_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1
    return Known(blocks=blocks, labels=labels, l2_rows=l2)


@dataclass(slots=True, kw_only=True)
class Proof:
    """Holds a reference against its digest the first time that it is to be trained on. Arrays stand beside `Memory`."""

    name: str
    digests: np.ndarray  # [N]
    proven: np.ndarray  # [N]

    def __call__(self, blocks: Blocks, memory: Memory, at: np.ndarray) -> np.ndarray:
        """Whether the references at these positions resolve to what they saw; the others are reported, once."""
        doubtful = at[~self.proven[at]]
        if len(doubtful):
            rows = doubtful + memory.first_row
            reachable = rows - blocks.shape.own.length + 1 >= blocks.own.first_row
            matches = np.zeros(len(rows), np.bool_)
            matches[reachable] = blocks.digests(rows[reachable]) == self.digests[doubtful[reachable]]
            self.proven[doubtful] = True
            memory.trusted[doubtful] = matches
            if not matches.all():
                logger.error(
                    "%s: %d references no longer match their digest, first %s; they are not trained on",
                    self.name,
                    int((~matches).sum()),
                    from_ms((int(rows[~matches][0]) + 1) * blocks.own.step_ms),
                )
        return memory.trusted[at]

    def carry(self, memory: Memory, proven: set[int], refused: set[int]) -> None:
        """Takes over what is known by row: `refused` are not trusted; what is not stored yet has nothing to prove."""
        rows = np.arange(memory.first_row, memory.first_row + len(memory.made))
        self.proven |= ~memory.made | np.isin(rows, list(proven))
        memory.trusted &= ~np.isin(rows, list(refused))

    def rows(self, memory: Memory) -> list[int]:
        """The rows of the references that have been proven."""
        return (np.flatnonzero(self.proven) + memory.first_row).tolist()


def new_memory(kind: Model, blocks: Blocks, labels: Labels, first: int) -> tuple[Memory, Completeness]:
    """A memory beside `labels` in which no reference is made yet, and what can be predicted from row `first` on."""
    start, count = labels.first_row, len(labels.candle.settled)
    memory = Memory(
        first_row=start,
        predictable=np.zeros(count, np.bool_),
        norm_params=np.full((count, 4), np.nan, np.float32),
        made=np.zeros(count, np.bool_),
        trusted=np.ones(count, np.bool_),
        predictions=np.full((count, WIDTH), np.nan, np.float32),
        hidden=np.full((count, kind.config.width), np.nan, np.float16),
        extras=np.full((count, len(kind.extras)), np.nan, np.float32),
        served=np.full((count, len(SERVED)), np.nan, np.float32),
        served_by=np.full(count, -1, np.int32),
        trend=np.zeros(count, np.int8),
        checkpoint=np.zeros(count, np.int32),
        uses=np.zeros(count, np.int16),
        trained_as_candle=start,
    )
    return memory, _mark_predictable(memory, blocks, max(first, start), kind.optional)


def recall_memory(
    con: duckdb.DuckDBPyConnection, model: str, stream: Stream, market: Market, first: int
) -> tuple[Memory, Proof, Completeness]:
    """The references made so far as arrays beside `market.labels`, and what can be predicted from row `first` on."""
    start, count = market.labels.first_row, len(market.labels.candle.settled)
    kind, shape = model_of(model), market.blocks.shape
    memory, there = new_memory(kind, market.blocks, market.labels, first)
    proof = Proof(name=f"{model} of {stream}", digests=np.zeros(count, np.uint64), proven=np.zeros(count, np.bool_))
    since, until = (from_ms(row * stream.step_ms) for row in (start, start + count))
    references = read_references(con, model, stream, Window(start=since, end=until))
    if len(references):
        at = references["made_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1 - start
        memory.made[at] = True
        memory.norm_params[at] = references["norm_params"].to_numpy()
        memory.predictions[at] = predictions_of(references)
        memory.trend[at] = trend_predicted(memory.predictions[at])
        memory.checkpoint[at] = references["checkpoint_id"].to_numpy()
        proof.digests[at] = references["digest"].to_numpy()
        served = references["serving_id"].is_not_null().to_numpy()
        if served.any():
            memory.served_by[at[served]] = references.filter(served)["serving_id"].to_numpy()
            memory.served[at[served]] = references.filter(served)["served"].to_numpy() / np.float32(SERVED_UNIT)
        # What another shape saw is not what this one would: it is judged, and not trained on.
        same = (references["schema_hash"] == schema_hash(kind.text, shape)).to_numpy()
        memory.trusted[at], proof.proven[at] = same, ~same
        if kind.extras and same.any():
            said = references.filter(same)["extras"].explode().to_numpy()
            memory.extras[at[same]] = said.reshape(-1, len(kind.extras))
    _recall_uses(con, model, stream, memory, since)
    if market.learned_row is not None:
        settled = int(np.searchsorted(market.labels.candle.settled, market.learned_row, side="right"))
        memory.trained_as_candle = start + settled
    return memory, proof, there


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What brings back the weights after step `number`: a checkpoint, if one can be read, and the steps since."""

    model: str
    stream: Stream
    number: int
    born_at: int
    hyper: Hyperparameters
    device: torch.device
    shape: FrameShape
    learner: Learner
    stretches: list["_Stretch"]


def recall_weights(
    warehouse: Warehouse,
    settings: Settings,
    model: str,
    stream: Stream,
    number: int,
    shape: FrameShape | None = None,
) -> Learner:
    """The learner as it stood after training step `number`: the nearest readable checkpoint, and the steps since.

    The warehouse is open while the records are read, and no longer when the steps are lived again. For `shape` see
    `recall_lineage`.
    """
    with warehouse.reading() as con:
        lineage = recall_lineage(con, settings, model, stream, number, shape)
    return relive(lineage)


def recall_lineage(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    model: str,
    stream: Stream,
    number: int,
    shape: FrameShape | None = None,
) -> Lineage:
    """The nearest checkpoint at or before step `number`, and the records of the steps since.

    Of frames of `shape`, which is that of the settings where none is given: older lineages had others. A checkpoint
    that cannot be read, that is not finite, or that is of another schema, is refused by name and the next older one is
    tried.
    """
    shape = shape or shape_of(settings, stream, model)
    schema = schema_hash(model_of(model).text, shape)
    hyper, device = hyperparameters(settings), device_of(settings)
    learner, base = None, 0
    for base, file in kept_checkpoints(con, model, stream, number):
        try:
            learner = new_learner(model, hyper, device, shape)
            restore(learner, _finite(load(settings.checkpoints_path / file, schema), file), base)
            break
        except (SchemaMismatch, CheckpointUnreadable) as refusal:
            logger.warning("%s: %s", stream, refusal)
            learner, base = None, 0  # without any, the lineage is lived again from its first step
    stretches: list[_Stretch] = []
    if base < number:
        steps = read_steps(con, model, stream, base, number).filter(pl.col("schema_hash") == schema)
        stretches += [_stretch(con, settings, model, stream, shape, part) for part in _by_hyperparameters(steps)]
    if learner is None:
        learner = new_learner(model, stretches[0].hyper if stretches else hyper, device, shape)
    born = first_step(con, model, stream, schema)
    return Lineage(
        model=model,
        stream=stream,
        number=number,
        born_at=number if born is None else born - 1,
        hyper=hyper,
        device=device,
        shape=shape,
        learner=learner,
        stretches=stretches,
    )


def _finite(tensors: Tensors, file: str) -> Tensors:
    """The tensors themselves. Raises CheckpointUnreadable where a number of them is none: nothing comes of those."""
    if broken := not_finite(tensors):
        raise CheckpointUnreadable(
            f"checkpoint {file} cannot be used: its {broken[0]} is not finite. Delete it: the weights are brought back"
            " from an earlier snapshot and the training steps since"
        )
    return tensors


def relive(lineage: Lineage, beat: Beat | None = None) -> Learner:
    """The learner of a lineage, its steps lived again; tells of each one that is done."""
    learner = lineage.learner
    learner.born_at = lineage.born_at
    for stretch in lineage.stretches:
        for _ in _relive(learner, lineage.model, lineage.stream, stretch):
            if beat:
                beat()
    learner.number, learner.hyper = lineage.number, lineage.hyper
    return learner


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """Consecutive steps on record that were taken with the same hyperparameters, and the market they learned from."""

    hyper: Hyperparameters
    steps: pl.DataFrame
    event_rows: np.ndarray
    market: Market
    memory: Memory  # beside the labels of `market`


def _by_hyperparameters(steps: pl.DataFrame) -> list[pl.DataFrame]:
    run = pl.col("hyperparameters").rle_id()
    return steps.with_columns(run=run).partition_by("run", maintain_order=True) if len(steps) else []


def _stretch(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    model: str,
    stream: Stream,
    shape: FrameShape,
    steps: pl.DataFrame,
) -> _Stretch:
    """Everything that living `steps` again needs of the tables."""
    hyper = Hyperparameters(**json.loads(steps["hyperparameters"][0]))
    event_rows = steps["event_time"].dt.epoch("ms").to_numpy() // stream.step_ms - 1
    used = np.concatenate([steps[name].explode().drop_nulls().to_numpy() for name in ("settled", "replayed")])
    made_rows = made_at_ms(model, stream, used.astype(np.uint64)) // stream.step_ms - 1
    first, end = int(min(made_rows.min(), event_rows.min())), int(event_rows.max()) + 1
    market = recall_market(con, settings, model, stream, shape, first, end, rule=hyper.trend_rule)
    memory, _, _ = recall_memory(con, model, stream, market, end)
    return _Stretch(hyper=hyper, steps=steps, event_rows=event_rows, market=market, memory=memory)


def _relive(learner: Learner, model: str, stream: Stream, stretch: _Stretch) -> Iterator[None]:
    """Takes the steps of `stretch` again, exactly as they are on record, one at a time."""
    learner.hyper, market = stretch.hyper, stretch.market
    seen = on_device(market.blocks, learner.device)
    for event_row, step in zip(stretch.event_rows.tolist(), stretch.steps.iter_rows(named=True), strict=True):
        settled, replayed = (
            made_at_ms(model, stream, np.array(step[name], np.uint64)) // stream.step_ms - 1
            for name in ("settled", "replayed")
        )
        drawn = Draw(
            rows=replayed,
            high=step["replayed_high"],
            weight_normal=step["weight_normal"],
            weight_high=step["weight_high"],
        )
        learner.number = step["step"] - 1
        train(learner, seen, market.labels, stretch.memory, settled, drawn, event_row, step["trigger"])
        yield


def _recall_uses(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, memory: Memory, since: datetime) -> None:
    used = times_used(con, model, stream, since)
    at = made_at_ms(model, stream, used["inference_id"].to_numpy()) // stream.step_ms - 1 - memory.first_row
    inside = (at >= 0) & (at < len(memory.uses))
    memory.uses[at[inside]] = used["uses"].to_numpy()[inside]


def _mark_predictable(memory: Memory, blocks: Blocks, first: int, optional: Collection[str]) -> Completeness:
    """Which closes from row `first` on have a whole frame with a scale, and its parameters."""
    there = completeness(blocks, np.arange(first, memory.first_row + len(memory.made)), optional)
    candidates = there.rows[there.whole]
    for part in np.array_split(candidates, max(1, -(-len(candidates) // GATHERED))):
        if len(part):
            params = norm_params(blocks.own.gather(part, blocks.shape.own.length))
            memory.norm_params[part - memory.first_row] = params
            memory.predictable[part - memory.first_row] = np.isfinite(params).all(axis=1)
    scaled = memory.predictable[there.rows - memory.first_row] | ~there.whole
    return replace(
        there,
        blocks=(*there.blocks, SCALE),
        have=np.column_stack([there.have, scaled]),
        need=np.append(there.need, 1),
    )
