"""From the loop's steps to rows of `training_steps`: everything that a replay of the step needs, by reference."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl

from hindsight.inference.references import inference_ids
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.training.learner import Learner
from hindsight.training.loop import Retrained, Step
from hindsight.training.step import LOSS_PARTS


def step_records(model: str, stream: Stream, learner: Learner, steps: Sequence[Step], schema: str) -> pl.DataFrame:
    """One row per step, in order."""
    hyper = json.dumps(learner.hyper.as_dict(), sort_keys=True)

    def ids(rows: np.ndarray) -> list[int]:
        return inference_ids(model, stream, (rows + 1) * stream.step_ms).tolist()

    return pl.DataFrame(
        {
            "model": [model] * len(steps),
            "step": pl.Series([step.number for step in steps], dtype=pl.Int32),
            "trigger": [step.trigger for step in steps],
            "event_time": pl.Series(
                [(step.event_row + 1) * stream.step_ms * 1000 for step in steps], dtype=pl.Int64
            ).cast(TIME),
            "settled": pl.Series([ids(step.settled) for step in steps], dtype=pl.List(pl.UInt64)),
            "replayed": pl.Series([ids(step.replay.rows) for step in steps], dtype=pl.List(pl.UInt64)),
            "replayed_high": pl.Series([step.replay.high for step in steps], dtype=pl.Int32),
            "weight_normal": pl.Series([step.replay.weight_normal for step in steps], dtype=pl.Float32),
            "weight_high": pl.Series([step.replay.weight_high for step in steps], dtype=pl.Float32),
            "seed": pl.Series([step.seed for step in steps], dtype=pl.UInt64),
            "loss": pl.Series([step.loss["total"] for step in steps], dtype=pl.Float32),
            **{
                f"loss_{part}": pl.Series([step.loss[part] for step in steps], dtype=pl.Float32)
                for part in LOSS_PARTS[1:]
            },
            "checkpoint_before": pl.Series([step.number - 1 for step in steps], dtype=pl.Int32),
            "checkpoint_after": pl.Series([step.number for step in steps], dtype=pl.Int32),
            "schema_hash": [schema] * len(steps),
            "hyperparameters": [hyper] * len(steps),
            "device": [str(learner.device)] * len(steps),
            "seconds": pl.Series([step.seconds for step in steps], dtype=pl.Float32),
        }
    )


def drift_records(model: str, stream: Stream, found: Sequence[Retrained]) -> pl.DataFrame:
    """One row per drift, in order."""
    return pl.DataFrame(
        {
            "model": [model] * len(found),
            "event_time": pl.Series([(each.row + 1) * stream.step_ms * 1000 for each in found], dtype=pl.Int64).cast(
                TIME
            ),
            "detector": pl.Series([each.drift.detector for each in found], dtype=pl.String),
            "loss_before": pl.Series([each.drift.mean_before for each in found], dtype=pl.Float64),
            "loss_after": pl.Series([each.drift.mean_after for each in found], dtype=pl.Float64),
            "steps": pl.Series([each.steps for each in found], dtype=pl.Int32),
        }
    )
