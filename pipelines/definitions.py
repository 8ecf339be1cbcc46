"""Everything that Dagster knows, by name."""

import dagster as dg

from assets.book_checks import book_checks
from assets.candles import candles
from assets.checks import CHECKS
from assets.health_checks import health_checks
from assets.indicators import indicators
from assets.learning import learning
from assets.order_book import order_book
from assets.pivots import pivots
from pipelines.jobs import backfill, health, learn, record
from pipelines.live import advance, train_on_pivot
from pipelines.sweep import sweep
from resources.exchange import SourceResource
from resources.progress import Progress
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource
from sensors.alerts import freshness, run_failed
from sensors.candle_closed import candle_closed
from sensors.pivot_confirmed import pivot_confirmed

defs = dg.Definitions(
    assets=[candles, order_book, indicators, pivots, learning],
    asset_checks=[*CHECKS, book_checks, health_checks],
    jobs=[backfill, record, learn, advance, train_on_pivot, health, sweep],
    sensors=[candle_closed, pivot_confirmed, run_failed, freshness],
    resources={
        "warehouse": WarehouseResource(),
        "source": SourceResource(),
        "scope": ScopeResource.configure_at_launch(),
        "progress": Progress(),
    },
    # A step's own process would cost 1.5 s, and torch again in each.
    executor=dg.in_process_executor,
)
