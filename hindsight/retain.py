"""Which checkpoints stay: the best, the latest, the serving, the pinned, every snapshot, and what pending references
name.

A snapshot every `snapshot_every` steps bounds how many steps have to be re-lived to bring any weights back, so all of
them stay, and the best are ranked among them. The latest of a call is evicted as newer ones come, and its row goes with
its file: live, that is one a training close. Of those that a promotion has named the row stays: a rollback may bring
them back. Files are written before the transaction that names them, and removed after the one that no longer does; what
a kill in between has left goes with the next eviction.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl

from hindsight.inference.labels import Labels
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream, from_ms
from hindsight.settings import Settings
from hindsight.store.promotion_tables import read_promotions
from hindsight.store.rows import stream_key
from hindsight.store.training_tables import read_checkpoints, replace_checkpoints
from hindsight.training.checkpoints import CheckpointInfo, checkpoint_file, save
from hindsight.training.learner import Learner, tensors_of
from hindsight.training.loop import Snapshot
from hindsight.training.memory import Memory
from hindsight.training.metrics import LOG_LOSS, Metric
from hindsight.training.models.registry import model_of

FLAGS = ("is_best", "is_latest", "is_pinned", "is_serving", "is_snapshot")


class Needed(NamedTuple):
    """The checkpoints that pending references name: those from `since` on have made them, and `serving` served then."""

    since: int
    serving: frozenset[int]


def save_snapshots(
    settings: Settings, stream: Stream, model: str, learner: Learner, snapshots: Sequence[Snapshot], schema: str
) -> pl.DataFrame:
    """Writes the files of `snapshots`, and returns their rows of `checkpoints`, not yet judged."""
    key, metric = stream_key(stream), learner.metric
    rows = []
    for taken in snapshots:
        value = taken.measured.value if taken.measured.scored else None
        file = checkpoint_file(model, stream, taken.number)
        event_time = from_ms((taken.event_row + 1) * stream.step_ms)
        info = CheckpointInfo(
            model=model,
            stream=str(stream),
            checkpoint_id=taken.number,
            event_time=event_time.isoformat(),
            schema_hash=schema,
            model_config=model_of(model).text,
            hyperparameters=learner.hyper.as_dict(),
            metric=metric.name,
            metric_value=value,
            scored=taken.measured.scored,
        )
        save(settings.checkpoints_path / file, taken.tensors, info)
        rows.append(
            {
                "model": model,
                **key,
                "checkpoint_id": taken.number,
                "event_time": event_time,
                "schema_hash": schema,
                "file": str(file),
                "metric": metric.name,
                "direction": metric.direction,
                "metric_value": value,
                "scored": taken.measured.scored,
                **dict.fromkeys(FLAGS, False),
                "is_snapshot": taken.number % settings.snapshot_every == 0,
                "evicted_at": None,
            }
        )
    return pl.DataFrame(rows, schema_overrides={"event_time": TIME, "evicted_at": TIME, "metric_value": pl.Float32})


def latest_snapshot(learner: Learner, row: int, labels: Labels, memory: Memory, score_window: int) -> Snapshot:
    """The learner as it stands since its last step, at the close of `row`."""
    measured = learner.metric.measure(labels, memory, learner.hyper, row, score_window)
    return Snapshot(number=learner.number, event_row=row, tensors=tensors_of(learner), measured=measured)


def judge(
    known: pl.DataFrame,
    best: int,
    now: datetime,
    serves: int | None = None,
    needed: Needed | None = None,
    metric: Metric = LOG_LOSS,
) -> tuple[pl.DataFrame, list[Path]]:
    """All checkpoints with their flags set anew, and the files of those that are evicted now.

    Best are the `best` snapshots by `metric`, in its direction, the older one first among equals; what is not finite,
    or was measured by another metric, never wins. What serves is checkpoint `serves`, or the newest while none was
    promoted. What is `needed` stays.
    """
    here = pl.col("evicted_at").is_null()
    has_rank = pl.col("is_snapshot") & (pl.col("metric") == metric.name) & pl.col("metric_value").is_finite()
    ranked = known.filter(here & has_rank).sort(
        "metric_value", "checkpoint_id", descending=[metric.direction == "higher", False]
    )
    winners = ranked["checkpoint_id"].head(best).implode()
    newest = pl.col("checkpoint_id") == pl.col("checkpoint_id").filter(here).max()
    promoted = here & (pl.col("checkpoint_id") == (-1 if serves is None else serves))
    judged = known.with_columns(
        is_best=pl.col("checkpoint_id").is_in(winners),
        is_latest=newest.fill_null(False),
        is_serving=pl.when(promoted.any()).then(promoted).otherwise(newest).fill_null(False),
    )
    out = here & ~pl.any_horizontal(FLAGS)
    if needed is not None:
        out &= (pl.col("checkpoint_id") < needed.since) & ~pl.col("checkpoint_id").is_in(needed.serving)
    files = [Path(file) for file in judged.filter(out)["file"]]
    judged = judged.with_columns(evicted_at=pl.when(out).then(pl.lit(now, TIME)).otherwise("evicted_at"))
    return judged, files


def retain(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    model: str,
    saved: pl.DataFrame,
    now: datetime,
    serves: int | None = None,
    needed: Needed | None = None,
) -> list[Path]:
    """Adds `saved` to the checkpoints on record and returns the files that may go once this is committed."""
    if saved.is_empty():
        return []
    known = read_checkpoints(con, model, stream)
    again = pl.col("checkpoint_id").is_in(saved["checkpoint_id"].implode())
    pinned = known.filter(again & pl.col("is_pinned"))["checkpoint_id"].implode()
    saved = saved.with_columns(is_pinned=pl.col("checkpoint_id").is_in(pinned))
    fresh = known.filter(~again)
    judged, files = judge(
        pl.concat([fresh, saved.select(known.columns).cast(known.schema)]).sort("checkpoint_id"),
        settings.checkpoints_kept,
        now,
        serves,
        needed,
        model_of(model).metric,
    )
    has_served = pl.col("checkpoint_id").is_in(read_promotions(con, model, stream)["serving_after"].implode())
    replace_checkpoints(con, model, stream, judged.filter(pl.col("evicted_at").is_null() | has_served))
    return list({*files, *_left_behind(settings, stream, model, judged)})


def _left_behind(settings: Settings, stream: Stream, model: str, judged: pl.DataFrame) -> list[Path]:
    """Files of checkpoints that no row names, and half-written ones: a kill has come before their removal."""
    folder = checkpoint_file(model, stream, 0).parent
    here = settings.checkpoints_path / folder
    named, newest = set(judged.filter(pl.col("evicted_at").is_null())["file"]), max(judged["checkpoint_id"].to_list())
    whole = [path for path in here.glob(f"{'[0-9]' * 9}.safetensors") if int(path.stem) <= newest]
    found = [folder / path.name for path in (*whole, *here.glob(".[0-9]*.[0-9]*"))]
    return [file for file in found if str(file) not in named]
