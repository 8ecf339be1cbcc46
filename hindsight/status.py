"""How things stand: what is stored, what is due, what serves, how well it has predicted, and how live it all is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from hindsight.exchange.venue_time import venue_clock
from hindsight.health.report import Health, health
from hindsight.market.streams import Stream
from hindsight.settings import Settings
from hindsight.store import closes, summaries
from hindsight.store.failure_tables import read_model_failures
from hindsight.store.promotion_tables import last_looks, read_promotions
from hindsight.store.skills import SkillStanding, read_skill
from hindsight.store.trading import trading_scores
from hindsight.store.training_tables import read_checkpoints
from hindsight.store.warehouse import Warehouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One answer per question; `stored` has a row per stream, the others one or more per model and stream."""

    stored: pl.DataFrame
    learned: pl.DataFrame
    trends: pl.DataFrame
    checkpoints: pl.DataFrame
    looks: pl.DataFrame
    scores: pl.DataFrame
    skills: Sequence[SkillStanding]
    drifts: pl.DataFrame
    failures: pl.DataFrame
    trading: pl.DataFrame
    refused: pl.DataFrame
    decisions: pl.DataFrame  # a row per stream, as far as it has decisions
    decision_scores: pl.DataFrame
    bytes_per_reference: float | None
    live: Health


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """Of one model and stream: the checkpoints that are kept, and every look and word by hand, in order."""

    model: str
    stream: Stream
    checkpoints: pl.DataFrame
    promotions: pl.DataFrame


def status(settings: Settings) -> Status:
    """Everything `hindsight status` prints, read in one turn at the warehouse after its health."""
    live = health(settings, venue_clock(settings.heartbeat_path)())
    with _warehouse(settings).reading() as con:
        learned = summaries.learned(con)
        return Status(
            stored=summaries.stored(con),
            learned=learned,
            trends=summaries.trend_stats(con),
            checkpoints=summaries.checkpoints_held(con),
            looks=last_looks(con),
            scores=summaries.scores(con),
            skills=[read_skill(con, _stream(row), row["model"]) for row in learned.iter_rows(named=True)],
            drifts=summaries.drifts_found(con),
            failures=read_model_failures(con, settings.models),
            trading=trading_scores(con),
            refused=closes.frames_refused(con),
            decisions=closes.decisions_made(con),
            decision_scores=summaries.decision_scores(con),
            bytes_per_reference=summaries.bytes_per_reference(con),
            live=live,
        )


def model_status(settings: Settings, streams: Sequence[Stream]) -> list[ModelStatus]:
    """Everything `hindsight models list` prints, of every configured model of these streams."""
    with _warehouse(settings).reading() as con:
        return [
            ModelStatus(
                model=model,
                stream=stream,
                checkpoints=read_checkpoints(con, model, stream).filter(pl.col("evicted_at").is_null()),
                promotions=read_promotions(con, model, stream),
            )
            for stream in streams
            for model in settings.models
        ]


def _stream(row: Mapping[str, str]) -> Stream:
    return Stream(venue=row["venue"], symbol=row["symbol"], timeframe=row["timeframe"])


def _warehouse(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
