"""Show one reference: bring back what it saw and the weights that made it, and make the prediction again.

The frame is gathered as-of `made_at`, in the shape that its schema hash names, and must have the digest on record. The
weights are those after the `checkpoint_id`-th training step, from the nearest kept checkpoint and the steps since
(DESIGN §8).
"""

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import polars as pl
import torch

from hindsight.configured import gpu_failures_told
from hindsight.errors import ReferenceUnresolvable, SchemaMismatch
from hindsight.inference.blocks import Blocks
from hindsight.inference.frames import Frames
from hindsight.inference.records import predictions_of
from hindsight.inference.shape import FrameShape
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.recall import recall_weights
from hindsight.recall_blocks import recall_blocks
from hindsight.settings import Settings
from hindsight.store.inference_tables import find_reference, find_schema
from hindsight.store.market_tables import pivot_mark
from hindsight.store.training_tables import newest_hyperparameters
from hindsight.store.warehouse import Warehouse
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.models.registry import model_of
from hindsight.training.predict import forward

TOLERANCE = 1e-6
CURE = "Record the candles of that window again, from the same venue, and ask again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """A reference as it stands on record, and its prediction made again. Predictions are in the columns and units of
    `hindsight.inference.predictions`."""

    inference_id: int
    model: str
    stream: Stream
    made_at: datetime
    checkpoint_id: int
    digest: int
    stored: Frames  # [17]
    remade: Frames  # [17]

    @property
    def difference(self) -> float:
        """The largest absolute difference between the two."""
        return float(np.abs(self.stored - self.remade).max())

    @property
    def is_same(self) -> bool:
        """Whether the two agree as far as one processor promises."""
        return self.difference <= TOLERANCE


def remake(settings: Settings, inference_id: int) -> Remade:
    """The reference of that id, resolved and predicted again.

    Raises ReferenceUnresolvable when there is no such reference, when its window is gone, or when the digest differs;
    SchemaMismatch when the model at hand is no longer the one that made it.
    """
    torch.set_num_threads(settings.threads)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    with warehouse.reading() as con:
        found = find_reference(con, inference_id)
        if found.is_empty():
            raise ReferenceUnresolvable(f"no reference has the id {inference_id}. `hindsight status` names the newest")
        row = found.row(0, named=True)
        stream = Stream(venue=row["venue"], symbol=row["symbol"], timeframe=row["timeframe"])
        shape = _shape_of(con, row)
        window = Window(start=row["input_start"], end=row["input_end"])
        mark = pivot_mark(con, stream)
        if mark is None or mark.since > window.start:
            left = "none is left" if mark is None else f"the first one left opens at {mark.since:%Y-%m-%d %H:%M}"
            raise ReferenceUnresolvable(
                f"reference {inference_id} of {stream} saw {window}: of its candles {left}. {CURE}"
            )
        made_row = to_ms(row["made_at"]) // stream.step_ms - 1
        blocks = recall_blocks(con, settings, stream, shape, made_row, made_row + 1)
        _check(blocks, made_row, found, stream, window)
        frame = blocks.gather(np.array([made_row]), found["norm_params"].to_numpy(writable=True))
        recorded = newest_hyperparameters(con, row["model"], stream, row["checkpoint_id"])
    with gpu_failures_told(f"reference {inference_id} of {stream}"):
        learner = recall_weights(warehouse, settings, row["model"], stream, row["checkpoint_id"], shape)
        if recorded is not None:  # the precision of then, whatever it is today
            learner.hyper = replace(learner.hyper, precision=Hyperparameters(**json.loads(recorded)).precision)
        remade = forward(learner, frame).predictions[0]
    return Remade(
        inference_id=inference_id,
        model=row["model"],
        stream=stream,
        made_at=row["made_at"],
        checkpoint_id=row["checkpoint_id"],
        digest=row["digest"],
        stored=predictions_of(found)[0],
        remade=remade,
    )


def _shape_of(con: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> FrameShape:
    """The shape that a reference's schema hash stands for. Raises SchemaMismatch where another model made it."""
    known = find_schema(con, row["schema_hash"])
    config = model_of(row["model"]).text
    if known is None or known[1] != config:
        raise SchemaMismatch(
            f"reference {row['inference_id']} was made with input schema {row['schema_hash']} of"
            f" {known[1] if known else 'an older version'}, the model at hand is {config}. Check out the version of"
            " Hindsight that made it"
        )
    return FrameShape.parse(known[0])


def _check(blocks: Blocks, made_row: int, found: pl.DataFrame, stream: Stream, window: Window) -> None:
    """Raises ReferenceUnresolvable unless the frame's candles are whole and it has the digest of the reference."""
    name, rows = f"reference {found['inference_id'][0]} of {stream} saw {window}", np.array([made_row])
    made_ms = (rows + 1) * stream.step_ms
    for block, tape in zip(blocks.shape.candles, blocks.tapes, strict=True):
        length = block.length + blocks.shape.warmup
        missing = length  # where the tape does not reach so far
        with suppress(ValueError):
            missing = int(np.isnan(tape.gather(made_ms // tape.step_ms - 1, length, made_ms)[0, :, 0]).sum())
        if missing:
            raise ReferenceUnresolvable(f"{name}: {missing} of {length} candles of {block} are gone. {CURE}")
    expected, present = found["digest"][0], blocks.digests(rows)[0]
    if expected != present:
        raise ReferenceUnresolvable(
            f"{name}: the digest on record is {expected:016x}, what is there now has {present:016x}. {CURE}"
        )
