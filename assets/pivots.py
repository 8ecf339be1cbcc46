"""The asset `pivots`: turning points of five levels, each with the close at which it could first be known."""

import dagster as dg

from assets.candles import candles
from assets.chart import chart
from assets.columns import columns_of
from assets.indicators import indicators
from assets.metadata import add_figures, of_run
from assets.partitions import STREAM_MONTHS, covered_by
from hindsight.record import record_pivots
from hindsight.settings import load
from resources.progress import Progress
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource


@dg.asset(
    deps=[candles, indicators],
    group_name="market",
    kinds={"duckdb", "numba"},
    owners=["team:hindsight"],
    metadata=columns_of("pivots"),
    partitions_def=STREAM_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def pivots(
    context: dg.AssetExecutionContext,
    scope: ScopeResource,
    warehouse: WarehouseResource,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """Pivots of five levels, streaming and append-only: everything recorded up to the end of the run's months."""
    store = warehouse.open()
    covered = covered_by(context, scope)
    progress.enter("pivots", covered)
    reports = [record_pivots(store, each.stream, each.window.end, max_gap=load().max_gap) for each in covered]
    add_figures(context, store, "pivots", covered)
    return dg.MaterializeResult(metadata={**of_run(covered, reports), **chart(store, covered)})
