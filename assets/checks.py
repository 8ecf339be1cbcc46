"""The checks: each is a question that no row may answer, with the rows that do as metadata.

A check covers what its run covered. Started by hand from the UI, without partitions, it covers all that is stored.
"""

import inspect
from collections.abc import Callable, Iterator

import dagster as dg
import polars as pl

from assets.metadata import as_table
from assets.partitions import Stretch, stretches
from hindsight import verify
from hindsight.market.streams import Stream, Window
from hindsight.settings import load
from hindsight.store import learning_questions, questions, summaries
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource


def references_not_resolving(con: questions.Connection, stream: Stream, window: Window, /) -> pl.DataFrame:
    """Which of a sample of references no longer find the bytes that they saw?"""
    return verify.references_not_resolving(load(), con, stream, window)


def serving_checkpoints_not_loading(con: questions.Connection, stream: Stream, window: Window, /) -> pl.DataFrame:
    """Which serving checkpoints are unreadable, of another schema, or hold a weight that is not finite?"""
    return verify.serving_checkpoints_not_loading(load(), con, stream)


SHOWN = 20  # offending rows
WARNINGS = {"missing_candles"}  # the venue's doing, and everything downstream knows how to live with it
QUESTIONS: dict[str, tuple[questions.Question, ...]] = {
    "candles": (
        questions.candles_standing_twice,
        questions.malformed_candles,
        questions.candles_known_too_early,
        questions.broken_revisions,
        questions.holes_not_in_gaps,
        questions.missing_candles,
    ),
    "indicators": (
        questions.indicators_beside_candles,
        questions.indicators_not_finite,
        questions.indicators_not_warming_up,
    ),
    "pivots": (
        questions.pivots_standing_twice,
        questions.pivots_confirmed_too_early,
        questions.pivots_off_their_candle,
    ),
    "inference_references": (
        learning_questions.references_standing_twice,
        learning_questions.references_seeing_the_future,
        learning_questions.predictions_not_finite,
        references_not_resolving,
    ),
    "decisions": (
        learning_questions.decisions_standing_twice,
        learning_questions.decisions_not_adding_up,
    ),
    "outcomes": (
        learning_questions.outcomes_standing_twice,
        learning_questions.outcomes_settled_too_early,
        learning_questions.outcomes_not_finite,
    ),
    "trend_validations": (
        learning_questions.trends_graded_twice,
        learning_questions.trends_not_adding_up,
        learning_questions.trends_from_before_their_prediction,
    ),
    "checkpoints": (
        learning_questions.steps_out_of_order,
        learning_questions.steps_not_finite,
        learning_questions.checkpoints_not_serving,
        serving_checkpoints_not_loading,
    ),
}

Covered = Callable[[dg.AssetCheckExecutionContext, ScopeResource, WarehouseResource], list[Stretch]]


def asked(asset: str, asks: tuple[questions.Question, ...], covered: Covered) -> dg.AssetChecksDefinition:
    """The checks that put `asks` to what a run of `asset` covered; one step, because a step costs 0.1 s."""
    by_name = {question.__name__: question for question in asks}

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=[dg.AssetCheckSpec(name, asset=asset, description=inspect.getdoc(ask)) for name, ask in by_name.items()],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext, scope: ScopeResource, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        months = covered(context, scope, warehouse)
        for key in context.selected_asset_check_keys:
            with warehouse.open().reading() as con:
                asked_by_month = (by_name[key.name](con, each.stream, each.window) for each in months)
                rows = next((rows for rows in asked_by_month if not rows.is_empty()), pl.DataFrame())
            yield answered(key, rows)

    return checks


def months_of(
    context: dg.AssetCheckExecutionContext, scope: ScopeResource, warehouse: WarehouseResource
) -> list[Stretch]:
    """What the run covered, or everything that is stored where it has no partitions; cut into months.

    A month at a time, so that asking about years takes no more memory than asking about one.
    """
    now = scope.now()
    covered = stretches(context.run, context.instance, *scope.bounds(), now)
    if not covered:
        with warehouse.open().reading() as con:
            firsts = {stream: summaries.first_candle(con, stream) for stream in load().streams}
        covered = [Stretch(stream=s, window=Window(start=at, end=max(at, now))) for s, at in firsts.items() if at]
    return [Stretch(stream=each.stream, window=month) for each in covered for month in each.window.months()]


def answered(key: dg.AssetCheckKey, rows: pl.DataFrame) -> dg.AssetCheckResult:
    """Passed where there are no `rows`; else the first of them, from the first month that has any."""
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=rows.is_empty(),
        severity=dg.AssetCheckSeverity.WARN if key.name in WARNINGS else dg.AssetCheckSeverity.ERROR,
        metadata={"offending": rows.height, "rows": as_table(rows.head(SHOWN))},
    )


CHECKS = [asked(asset, asks, months_of) for asset, asks in QUESTIONS.items()]
