"""Serve: the words by hand on a model's weights: which checkpoint serves, and which stay whatever their score.

Nobody teaches the model meanwhile, so that what is said counts from the next close on and no prediction is made in
between. The weights are loaded, or brought back from an earlier snapshot and the steps since, before they are named:
what serves is always there, and every number in it is finite.

    hindsight models promote | rollback | pin
"""

import math
from dataclasses import dataclass
from datetime import datetime

import duckdb
import polars as pl
import torch

from hindsight.configured import schema_of
from hindsight.errors import ModelBroken, SchemaMismatch, SettingRefused
from hindsight.market.streams import Stream, to_ms
from hindsight.recall import Lineage, recall_lineage, relive
from hindsight.retain import save_snapshots
from hindsight.settings import Settings
from hindsight.store.inference_tables import predicted_until
from hindsight.store.promotion_tables import PROMOTION, append_promotion, read_promotions, served_before, serving
from hindsight.store.training_tables import first_step, newest_step, read_checkpoints, read_steps, replace_checkpoints
from hindsight.store.warehouse import Warehouse
from hindsight.teaching import taught_by_us
from hindsight.training.checkpoints import not_finite
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.loop import Snapshot
from hindsight.training.metrics import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which checkpoint served, which one serves, and the last close that the former has predicted from."""

    before: int | None
    after: int
    since: datetime
    is_brought_back: bool  # its file was gone, or unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What the tables know of the checkpoint that is to serve."""

    before: int | None
    after: int
    event_time: datetime
    known: pl.DataFrame
    lineage: Lineage
    trained_at: datetime
    schema: str


def set_serving(settings: Settings, model: str, stream: Stream, to: int | None = None) -> Chosen:
    """Makes checkpoint `to`, or the one that served before, serve from the next close on. Again, nothing changes.

    Raises SettingRefused where there is none before, or no training step of that number; SchemaMismatch for weights of
    another input; ModelBroken for weights that are not finite; LearnerBusy while the model is being taught.
    """
    torch.set_num_threads(settings.threads)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    with taught_by_us(settings, stream, model, settings.lock_timeout_seconds):
        with warehouse.reading() as con:
            choice = _choose(con, settings, model, stream, to)
        learner = relive(choice.lineage)
        _check_finite(learner, model, stream)
        is_read = not choice.lineage.stretches
        saved = None if is_read else _save(settings, stream, model, learner, choice)
        chosen = Chosen(
            before=choice.before, after=choice.after, since=choice.event_time, is_brought_back=saved is not None
        )
        if saved is None and choice.before == choice.after:
            return chosen
        known = choice.known if saved is None else _with(choice.known, saved)
        with warehouse.writing() as con:
            if choice.before != choice.after:
                append_promotion(con, stream, _record(model, choice, "by hand" if to is not None else "rolled back"))
            serves = pl.col("checkpoint_id") == choice.after
            replace_checkpoints(con, model, stream, known.with_columns(is_serving=serves))
    return chosen


def pin(settings: Settings, model: str, stream: Stream, checkpoint_id: int, *, is_pinned: bool) -> None:
    """Keeps a checkpoint that is there whatever its score, or no longer.

    Raises SettingRefused where it is gone; LearnerBusy while the model is being taught.
    """
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    with taught_by_us(settings, stream, model, settings.lock_timeout_seconds), warehouse.writing() as con:
        known = read_checkpoints(con, model, stream)
        here = pl.col("evicted_at").is_null()
        there = known.filter(here)["checkpoint_id"].to_list()
        if checkpoint_id not in there:
            raise SettingRefused(
                f"{model} of {stream}: expected a checkpoint that is kept ({_listed(there)}), found {checkpoint_id}."
                " One that was evicted comes back where it is promoted"
            )
        named = pl.col("checkpoint_id") == checkpoint_id
        changed = known.with_columns(is_pinned=pl.when(named).then(pl.lit(is_pinned)).otherwise("is_pinned"))
        replace_checkpoints(con, model, stream, changed)


def _choose(con: duckdb.DuckDBPyConnection, settings: Settings, model: str, stream: Stream, to: int | None) -> _Choice:
    schema = schema_of(settings, stream, model)
    now, first = predicted_until(con, model, stream), first_step(con, model, stream, schema)
    if now is None or first is None:
        raise SettingRefused(f"{model} has not learned from {stream} yet: nothing is there to serve")
    serves = serving(con, model, stream, schema)
    chosen = _before(con, model, stream, schema) if to is None else to
    newest, _ = newest_step(con, model, stream)
    steps = read_steps(con, model, stream, chosen - 1, chosen)
    if steps.is_empty():
        raise SettingRefused(f"{model} of {stream}: expected a checkpoint of {first} … {newest}, found {chosen}")
    if steps["schema_hash"].item() != schema:
        raise SchemaMismatch(
            f"checkpoint {chosen} of {model} on {stream} was trained on input schema {steps['schema_hash'].item()}, but"
            f" the schema at hand is {schema}. Restore the settings it was trained with, or choose one of {first} …"
            f" {newest}"
        )
    return _Choice(
        before=serves[0] if serves else None,
        after=chosen,
        event_time=now,
        known=read_checkpoints(con, model, stream),
        lineage=recall_lineage(con, settings, model, stream, chosen),
        trained_at=steps["event_time"].item(),
        schema=schema,
    )


def _before(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, schema: str) -> int:
    history = read_promotions(con, model, stream, schema)
    found = served_before(history)
    if found is None:
        last = "the newest weights" if history.is_empty() else f"checkpoint {history['serving_after'][-1]}"
        raise SettingRefused(
            f"{model} of {stream}: nothing served before {last}. `hindsight models promote` names a checkpoint"
        )
    return found


def _check_finite(learner: Learner, model: str, stream: Stream) -> None:
    if broken := not_finite(learner.average.state_dict()):
        raise ModelBroken(
            f"{model} of {stream}: {broken[0]} of checkpoint {learner.number} is not finite. Choose another checkpoint"
        )


def _save(settings: Settings, stream: Stream, model: str, learner: Learner, choice: _Choice) -> pl.DataFrame:
    """Writes the file of the weights that were brought back, and returns their row of `checkpoints`."""
    on_record = choice.known.filter(pl.col("checkpoint_id") == choice.after).rows(named=True)
    event_time = on_record[0]["event_time"] if on_record else choice.trained_at
    value, scored = (on_record[0]["metric_value"], on_record[0]["scored"]) if on_record else (None, 0)
    snapshot = Snapshot(
        number=choice.after,
        event_row=to_ms(event_time) // stream.step_ms - 1,
        tensors=tensors_of(learner),
        measured=Measured(math.nan if value is None else value, scored),
    )
    return save_snapshots(settings, stream, model, learner, [snapshot], choice.schema)


def _with(known: pl.DataFrame, saved: pl.DataFrame) -> pl.DataFrame:
    """All checkpoints, those that were `saved` there again with the flags that they had."""
    again = pl.col("checkpoint_id").is_in(saved["checkpoint_id"].implode())
    if len(known.filter(again)):
        return known.with_columns(evicted_at=pl.when(again).then(None).otherwise("evicted_at"))
    return pl.concat([known, saved.select(known.columns).cast(known.schema)]).sort("checkpoint_id")


def _record(model: str, choice: _Choice, outcome: str) -> pl.DataFrame:
    row = {
        "model": model,
        "event_time": choice.event_time,
        "outcome": outcome,
        "serving_before": choice.before,
        "serving_after": choice.after,
        "challenger": choice.after,
        "schema_hash": choice.schema,
    }
    return pl.DataFrame([row], PROMOTION)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
