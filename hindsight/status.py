"""How things stand: what is stored, what is due, what serves, how well it has predicted, and how live it all is."""

from dataclasses import dataclass

import polars as pl

from hindsight.exchange.venue_time import venue_clock
from hindsight.health.report import Health, health
from hindsight.settings import Settings
from hindsight.store import summaries
from hindsight.store.summaries import trend_stats
from hindsight.store.warehouse import Warehouse

__all__ = ["Status", "status", "trend_stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One frame per question; `stored` has a row per stream, the others one or more per model and stream."""

    stored: pl.DataFrame
    learned: pl.DataFrame
    trends: pl.DataFrame
    checkpoints: pl.DataFrame
    scores: pl.DataFrame
    bytes_per_reference: float | None
    live: Health


def status(settings: Settings) -> Status:
    """Everything `hindsight status` prints, read in one turn at the warehouse after its health."""
    live = health(settings, venue_clock(settings.heartbeat_path)())
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    with warehouse.reading() as con:
        return Status(
            stored=summaries.stored(con),
            learned=summaries.learned(con),
            trends=summaries.trend_stats(con),
            checkpoints=summaries.checkpoints_held(con),
            scores=summaries.scores(con),
            bytes_per_reference=summaries.bytes_per_reference(con),
            live=live,
        )
