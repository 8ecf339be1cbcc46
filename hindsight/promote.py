"""Champion and challenger: whether the weights that learn are to serve, decided by evidence on the same references.

At every close of the grid of `promote_every` the challenger, which is the learner as it stands, is held against the
champion, which serves and does not learn. Both have predicted the references made since the last look, each before its
answer, so their losses are out of sample. A look uses each reference once: looking again until the answer is yes would
promote by chance.

    hindsight models list | promote | rollback | pin
"""

from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import polars as pl

from hindsight.errors import SettingRefused
from hindsight.inference.evidence import Evidence, paired_evidence
from hindsight.inference.labels import Labels
from hindsight.inference.predictions import SERVED, reference_losses
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream, to_ms
from hindsight.settings import Settings
from hindsight.store.promotion_tables import append_promotion, read_promotions, serving
from hindsight.store.rows import stream_key
from hindsight.store.training_tables import newest_step, read_checkpoints, replace_checkpoints
from hindsight.training.memory import Memory

HORIZONS_PER_BLOCK = 5  # of the longest label: at one, the better of two equals is found twice as often as stated


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The checkpoint that serves, and the row at whose close it began to."""

    checkpoint_id: int
    since_row: int


def champion_of(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, schema: str) -> Champion | None:
    """Who serves by the tables; None before the first look."""
    found = serving(con, model, stream, schema)
    if found is None:
        return None
    since_row = to_ms(found[1]) // stream.step_ms - 1
    return Champion(checkpoint_id=found[0], since_row=since_row)


def is_look(end: int, settings: Settings) -> bool:
    """Whether the challenger is held against the champion at the close of row `end` − 1."""
    return end % settings.promote_every == 0


def look(settings: Settings, memory: Memory, labels: Labels, champion: Champion, end: int) -> Evidence:
    """What the references made since the last look say, with the answers known at the close of row `end` − 1."""
    first = max(end - settings.promote_every, memory.first_row)
    span = slice(first - memory.first_row, end - memory.first_row)
    at = np.flatnonzero(memory.made[span] & (memory.served_by[span] == champion.checkpoint_id)) + span.start
    challenger = reference_losses(labels, memory.predictions[:, SERVED], end - 1)[at]
    served = reference_losses(labels, memory.served, end - 1)[at]
    return paired_evidence(
        at + memory.first_row,
        served,
        challenger,
        block=HORIZONS_PER_BLOCK * settings.trend_ttl,
        embargo_until_row=champion.since_row + settings.trend_ttl,
        confidence=settings.promote_confidence,
        seed=settings.seed + end,
    )


def promotion_record(
    model: str,
    schema: str,
    end_time: datetime,
    champion: Champion | None,
    challenger: int,
    evidence: Evidence | None,
) -> pl.DataFrame:
    """The row of `promotions` that a look leaves."""
    is_better = evidence is None or evidence.is_better
    before = champion.checkpoint_id if champion else None
    outcome = "first" if champion is None else "promoted" if is_better else "kept"
    return _record(model, schema, end_time, outcome, before, challenger if is_better else before, challenger, evidence)


def set_serving(settings: Settings, con: duckdb.DuckDBPyConnection, model: str, stream: Stream, to: int | None) -> int:
    """Makes checkpoint `to`, or the one that served before, serve from the next close on; returns its id.

    Raises SettingRefused where there is none before, or no training step of that number.
    """
    history = read_promotions(con, model, stream)
    newest, _ = newest_step(con, model, stream)
    if history.is_empty():
        raise SettingRefused(
            f"{model} of {stream} has no serving checkpoint yet: the first is chosen after {settings.promote_every}"
            " closes. Until then the newest weights serve"
        )
    last = history.row(-1, named=True)
    earlier = [row for row in history["serving_after"].to_list() if row != last["serving_after"]]
    if to is None and not earlier:
        raise SettingRefused(f"{model} of {stream}: nothing served before checkpoint {last['serving_after']}")
    chosen = earlier[-1] if to is None else to
    if not 0 <= chosen <= newest:
        raise SettingRefused(f"{model} of {stream}: expected a checkpoint of 0 … {newest}, found {chosen}")
    outcome = "rolled back" if to is None else "by hand"
    row = _record(
        model, last["schema_hash"], _now(con, model, stream), outcome, last["serving_after"], chosen, chosen, None
    )
    append_promotion(con, stream, row)
    known = read_checkpoints(con, model, stream)
    here = pl.col("checkpoint_id") == chosen
    if len(known.filter(here & pl.col("evicted_at").is_null())):
        replace_checkpoints(con, model, stream, known.with_columns(is_serving=here))
    return chosen


def pin(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, checkpoint_id: int, *, is_pinned: bool) -> None:
    """Keeps a checkpoint that is there whatever its score, or no longer. Raises SettingRefused where it is gone."""
    known = read_checkpoints(con, model, stream)
    here = (pl.col("checkpoint_id") == checkpoint_id) & pl.col("evicted_at").is_null()
    if known.filter(here).is_empty():
        there = known.filter(pl.col("evicted_at").is_null())["checkpoint_id"].to_list()
        raise SettingRefused(f"{model} of {stream}: expected a checkpoint that is kept, {there}, found {checkpoint_id}")
    changed = known.with_columns(is_pinned=pl.when(here).then(pl.lit(is_pinned)).otherwise("is_pinned"))
    replace_checkpoints(con, model, stream, changed)


def _record(
    model: str,
    schema: str,
    event_time: datetime,
    outcome: str,
    before: int | None,
    after: int | None,
    challenger: int,
    evidence: Evidence | None,
) -> pl.DataFrame:
    figures = ("confidence", "references", "blocks", "mean_champion", "mean_challenger", "difference", "low", "high")
    columns = (
        "confidence",
        "references_compared",
        "blocks",
        "loss_champion",
        "loss_challenger",
        "difference",
        "difference_low",
        "difference_high",
    )
    said = {name: getattr(evidence, figure, None) for name, figure in zip(columns, figures, strict=True)}
    return pl.DataFrame(
        {
            "model": [model],
            "event_time": pl.Series([event_time], dtype=TIME),
            "outcome": [outcome],
            "serving_before": [before],
            "serving_after": [after],
            "challenger": [challenger],
            "schema_hash": [schema],
            **{name: [value] for name, value in said.items()},
        }
    )


def _now(con: duckdb.DuckDBPyConnection, model: str, stream: Stream) -> datetime:
    """The last close that the model is done with: a word by hand counts from there."""
    found = con.execute(
        """
        select until
        from learned_until
        where model = $model
          and venue = $venue
          and symbol = $symbol
          and timeframe = $timeframe
        """,
        {"model": model, **stream_key(stream)},
    ).fetchall()
    return found[0][0]
