"""The asset `indicators`: TA-Lib's values at each close."""

import dagster as dg

from assets.candles import candles
from assets.columns import columns_of
from assets.metadata import add_figures, of_run
from assets.partitions import STREAM_MONTHS, covered_by
from hindsight.record import record_indicators
from resources.progress import Progress
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource


@dg.asset(
    deps=[candles],
    group_name="market",
    kinds={"duckdb", "polars", "talib"},
    owners=["team:hindsight"],
    metadata=columns_of("indicators"),
    partitions_def=STREAM_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def indicators(
    context: dg.AssetExecutionContext,
    scope: ScopeResource,
    warehouse: WarehouseResource,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Eighteen indicators at each close, null until warm, and the same however wide a stretch was computed."""
    store = warehouse.open()
    covered = covered_by(context, scope)
    progress.enter("indicators", covered)
    reports = [record_indicators(store, each.stream, each.window) for each in covered]
    add_figures(context, store, "indicators", covered)
    return dg.MaterializeResult(metadata=of_run(covered, reports))
