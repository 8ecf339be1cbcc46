"""The asset `order_book`: one row a second of the amounts that rested around the price, as the feed recorded them.

No venue tells the past of its book, so no run can fetch it: a materialisation takes up what the feed has landed.
"""

import dagster as dg

from assets.columns import columns_of
from assets.partitions import MARKET_MONTHS
from hindsight.exchange.landing import Landing
from hindsight.exchange.venue_time import venue_clock
from hindsight.ingest import Ingested, ingest
from hindsight.settings import load
from hindsight.store.warehouse import Warehouse
from resources.warehouse import WarehouseResource


def take_up_what_landed(store: Warehouse) -> Ingested:
    """Ingests the segments that wait; a live run usually has done so already."""
    settings = load()
    landing, clock = Landing(settings.landing_path), venue_clock(settings.heartbeat_path)
    return ingest(store, landing, clock, max_gap=settings.max_gap)


@dg.asset(
    group_name="market",
    kinds={"duckdb", "polars"},
    owners=["team:hindsight"],
    metadata=columns_of("order_book"),
    partitions_def=MARKET_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def order_book(warehouse: WarehouseResource) -> dg.MaterializeResult:
    """Twenty buckets of US dollars on either side of the price, their imbalance and its means; absent, never zero."""
    ingested = take_up_what_landed(warehouse.open())
    return dg.MaterializeResult(
        metadata={"segments": ingested.segments, "set_aside": len(ingested.set_aside)}
        | {f"seconds {venue} {symbol}": seconds for (venue, symbol), seconds in ingested.books.items()}
    )
