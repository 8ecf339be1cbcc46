"""Champion and challenger: whether the weights that learn are to serve, decided by evidence on the same references.

At every close of the grid of `promote_every` the challenger, which is the learner as it stands, is held against the
champion, which serves and does not learn. Both have predicted the references made since the last look, each before its
answer, so their losses are out of sample. A look uses each reference once: looking again until the answer is yes would
promote by chance.
"""

import math
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import polars as pl

from hindsight.inference.evidence import Evidence, paired_evidence
from hindsight.inference.labels import Labels
from hindsight.inference.losses import reference_losses
from hindsight.inference.predictions import SERVED
from hindsight.market.streams import Stream, to_ms
from hindsight.settings import Settings
from hindsight.store.promotion_tables import PROMOTION, serving
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
    *,
    is_promoted: bool,
) -> pl.DataFrame:
    """The row of `promotions` that a look leaves. Figures that cannot be told are null."""
    before = champion.checkpoint_id if champion else None
    row = {
        "model": model,
        "event_time": end_time,
        "outcome": "first" if champion is None else "promoted" if is_promoted else "kept",
        "serving_before": before,
        "serving_after": challenger if is_promoted else before,
        "challenger": challenger,
        "schema_hash": schema,
    }
    if evidence is not None:
        figures = {
            "confidence": evidence.confidence,
            "loss_champion": evidence.mean_champion,
            "loss_challenger": evidence.mean_challenger,
            "difference": evidence.difference,
            "difference_low": evidence.low,
            "difference_high": evidence.high,
        }
        row |= {"references_compared": evidence.references, "blocks": evidence.blocks}
        row |= {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return pl.DataFrame([row], PROMOTION)
