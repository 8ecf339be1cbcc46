"""What no table can tell by itself: that references still resolve to what was seen, and that the serving weights load.

Answers like the questions of the store: no row, or the rows that are wrong.
"""

import duckdb
import numpy as np
import polars as pl

from hindsight.errors import CheckpointUnreadable, SchemaMismatch
from hindsight.inference.frames import digest
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.settings import Settings
from hindsight.store import tape
from hindsight.store.learning_questions import sampled_references, serving_checkpoints
from hindsight.store.market_tables import pivot_mark

UNRESOLVED = pl.Schema({"inference_id": pl.UInt64, "input_start": pl.String, "expected": pl.String, "found": pl.String})
UNLOADED = pl.Schema({"model": pl.String, "checkpoint_id": pl.Int32, "refusal": pl.String})


def references_not_resolving(
    settings: Settings, con: duckdb.DuckDBPyConnection, stream: Stream, window: Window
) -> pl.DataFrame:
    """Of a sample of the references made in `window`, those that no longer find the bytes that they saw."""
    mark, sample = pivot_mark(con, stream), sampled_references(con, stream, window)
    if mark is None:
        return pl.DataFrame(schema=UNRESOLVED)
    wrong = []
    for inference_id, start, end, expected in sample.iter_rows():
        # Each by itself, as the tables stood at its own end; a sample of years then takes no more memory than one.
        seen = tape.load(con, settings.tape_path, stream, Window(start=start, end=end), mark.since)
        last_row = np.array([to_ms(end) // stream.step_ms - 1])
        found = digest(seen.gather(last_row, (end - start) // stream.step)[0]) if mark.since <= start else 0
        if found != expected:
            wrong.append((inference_id, str(start), f"{expected:016x}", f"{found:016x}"))
    return pl.DataFrame(wrong, UNRESOLVED, orient="row")


def serving_checkpoints_not_loading(settings: Settings, con: duckdb.DuckDBPyConnection, stream: Stream) -> pl.DataFrame:
    """The serving checkpoints that are unreadable, of another schema, or hold a weight that is not finite."""
    from hindsight.training.checkpoints import load  # torch takes over a second to import

    wrong = []
    for model, checkpoint_id, file, schema_hash in serving_checkpoints(con, stream).iter_rows():
        try:
            weights = load(settings.checkpoints_path / file, schema_hash)
        except (CheckpointUnreadable, SchemaMismatch) as refusal:
            wrong.append((model, checkpoint_id, str(refusal)))
        else:
            broken = (name for name, tensor in weights.items() if not bool(tensor.isfinite().all()))
            wrong += [(model, checkpoint_id, f"{name} is not finite") for name in broken]
    return pl.DataFrame(wrong, UNLOADED, orient="row")
