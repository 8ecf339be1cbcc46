"""What no table can tell by itself: that references still resolve to what was seen, and that the serving weights load.

Answers like the questions of the store: no row, or the rows that are wrong.
"""

from contextlib import suppress

import duckdb
import numpy as np
import polars as pl

from hindsight.errors import CheckpointUnreadable, SchemaMismatch
from hindsight.inference.shape import FrameShape
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.recall_blocks import recall_blocks
from hindsight.settings import Settings
from hindsight.store.inference_tables import find_schema
from hindsight.store.learning_questions import sampled_references, serving_checkpoints

UNRESOLVED = pl.Schema({"inference_id": pl.UInt64, "made_at": pl.String, "expected": pl.String, "found": pl.String})
UNLOADED = pl.Schema({"model": pl.String, "checkpoint_id": pl.Int32, "refusal": pl.String})


def references_not_resolving(
    settings: Settings, con: duckdb.DuckDBPyConnection, stream: Stream, window: Window
) -> pl.DataFrame:
    """Of a sample of the references made in `window`, those that no longer find the bytes that they saw."""
    wrong = []
    for inference_id, schema_hash, made_at, expected in sampled_references(con, stream, window).iter_rows():
        schema, row = find_schema(con, schema_hash), to_ms(made_at) // stream.step_ms - 1
        found = 0
        if schema is not None:
            # Each by itself, as the tables stood at its own close; a sample of years then takes no more than one.
            blocks = recall_blocks(con, settings, stream, FrameShape.parse(schema[0]), row, row + 1)
            with suppress(ValueError):  # its candles are gone
                found = int(blocks.digests(np.array([row]))[0])
        if found != expected:
            wrong.append((inference_id, str(made_at), f"{expected:016x}", f"{found:016x}"))
    return pl.DataFrame(wrong, UNRESOLVED, orient="row")


def serving_checkpoints_not_loading(settings: Settings, con: duckdb.DuckDBPyConnection, stream: Stream) -> pl.DataFrame:
    """The serving checkpoints that are unreadable, of another schema, or hold a weight that is not finite."""
    from hindsight.training.checkpoints import load, not_finite  # torch takes over a second to import

    wrong = []
    for model, checkpoint_id, file, schema_hash in serving_checkpoints(con, stream).iter_rows():
        try:
            weights = load(settings.checkpoints_path / file, schema_hash)
        except (CheckpointUnreadable, SchemaMismatch) as refusal:
            wrong.append((model, checkpoint_id, str(refusal)))
        else:
            wrong += [(model, checkpoint_id, f"{name} is not finite") for name in not_finite(weights)]
    return pl.DataFrame(wrong, UNLOADED, orient="row")
