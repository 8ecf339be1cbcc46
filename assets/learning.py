"""The assets of prediction and learning, made together: a prediction needs the weights that earlier outcomes made."""

from collections.abc import Iterator

import dagster as dg

from assets.candles import candles
from assets.columns import columns_of
from assets.indicators import indicators
from assets.metadata import add_figures, of_run, standing
from assets.partitions import STREAM_MONTHS, STREAMS_OF_MARKET, covered_by
from assets.pivots import pivots
from hindsight.settings import load
from resources.progress import Progress
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource

MODEL = {"group_name": "learning", "owners": ["team:hindsight"]}
BOOK = dg.AssetDep("order_book", partition_mapping=STREAMS_OF_MARKET)  # where it was recorded: no run waits for it
SPECS = [
    dg.AssetSpec(
        "inference_references",
        deps=[candles, indicators, pivots, BOOK],
        description="One row per prediction: what was predicted, by which weights, and the address of what they saw.",
        kinds={"duckdb", "torch"},
        metadata=columns_of("inference_references"),
        **MODEL,
    ),
    dg.AssetSpec(
        "decisions",
        deps=["inference_references", candles],
        description="One row per close: buy, sell or hold, out of what all models said, and why.",
        kinds={"duckdb"},
        metadata=columns_of("decisions"),
        **MODEL,
    ),
    dg.AssetSpec(
        "outcomes",
        deps=["inference_references", candles, pivots],
        description="What the market answered to each prediction: the candle it aimed at, and the next pivots.",
        kinds={"duckdb"},
        metadata=columns_of("outcomes"),
        **MODEL,
    ),
    dg.AssetSpec(
        "trend_validations",
        deps=["inference_references", pivots],
        description="Each predicted trend graded once, by the line through the next two L2 pivots of one side.",
        kinds={"duckdb"},
        metadata=columns_of("trend_validations"),
        **MODEL,
    ),
    dg.AssetSpec(
        "checkpoints",
        deps=["outcomes", "trend_validations"],
        description="Weights after each training step worth keeping, by the metric of their model; and the steps.",
        kinds={"duckdb", "torch"},
        metadata=columns_of("checkpoints"),
        **MODEL,
    ),
]


@dg.multi_asset(
    name="learning",
    specs=SPECS,
    partitions_def=STREAM_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def learning(
    context: dg.AssetExecutionContext,
    scope: ScopeResource,
    warehouse: WarehouseResource,
    progress: dg.ResourceParam[Progress],
) -> Iterator[dg.MaterializeResult]:
    """Predicts, decides, settles, validates and trains in the order of events, up to the end of the run's months.

    A model that fails stops no other one; the run fails with it once all that was done is told.
    """
    from hindsight.lessons import learn_each  # torch takes over a second to import

    settings, store = load(), warehouse.open()
    covered = covered_by(context, scope)
    shown = set(settings.streams) - set(settings.predicted_streams)  # recorded for the frames of others
    ends = [(each.stream, each.window.end) for each in covered if each.stream not in shown]
    taught = learn_each(settings, ends, lambda stream, model: progress.of(stream, f"learning {model}"), scope.now())
    if not taught.reports:
        taught.raise_failures()
    for spec in SPECS:
        add_figures(context, store, spec.key.to_user_string(), covered)
        yield dg.MaterializeResult(
            asset_key=spec.key,
            metadata={
                **of_run(taught.reports, list(taught.reports.values())),
                **standing(store, spec.key.to_user_string()),
            },
        )
    taught.raise_failures()
