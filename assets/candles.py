"""The asset `candles`: what every venue delivered, checked at the door."""

import dagster as dg

from assets.columns import columns_of
from assets.metadata import add_figures, of_run
from assets.order_book import take_up_what_landed
from assets.partitions import STREAM_MONTHS, covered_by, note_stream
from hindsight.record import record_candles
from hindsight.settings import load
from resources.exchange import SourceResource
from resources.progress import Progress
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource


@dg.asset(
    group_name="market",
    kinds={"duckdb", "polars"},
    owners=["team:hindsight"],
    metadata=columns_of("candles"),
    partitions_def=STREAM_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def candles(
    context: dg.AssetExecutionContext,
    scope: ScopeResource,
    source: SourceResource,
    warehouse: WarehouseResource,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Closed candles as the venue delivered them, its corrections, the gaps between them, and what was refused."""
    covered = covered_by(context, scope)
    now, store, venue, settings = scope.now(), warehouse.open(), source.open(), load()
    progress.enter("candles", covered)
    reports = []
    for each in covered:
        reports.append(record_candles(store, venue, each.stream, each.window, now))
        if reports[-1].candles:  # a symbol typed wrong would stay among the UI's partitions for ever
            note_stream(settings, each.stream)
    take_up_what_landed(store)
    add_figures(context, store, "candles", covered)
    return dg.MaterializeResult(metadata=of_run(covered, reports))
