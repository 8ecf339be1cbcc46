"""The checks of `order_book`, which is partitioned by market: the streams of one market have the same book."""

from datetime import UTC, datetime

import dagster as dg

from assets.checks import asked
from assets.partitions import MARKET_MONTHS, Stretch, run_keys
from hindsight.market.streams import Window, next_month
from hindsight.settings import load
from hindsight.store.book_questions import ORDER_BOOK_QUESTIONS
from hindsight.store.book_tables import book_span
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource


def market_months_of(
    context: dg.AssetCheckExecutionContext, scope: ScopeResource, warehouse: WarehouseResource
) -> list[Stretch]:
    """The months that the run covered, or all that is stored where it has no partitions; a stream for each market."""
    markets = {f"{stream.venue} {stream.symbol}": stream for stream in load().streams}
    keys = [MARKET_MONTHS.get_partition_key_from_str(key) for key in run_keys(dict(context.run.tags), MARKET_MONTHS)]
    if keys:
        found = [(key.keys_by_dimension["market"], key.keys_by_dimension["month"]) for key in keys]
        return [Stretch(stream=markets[market], window=_month(name)) for market, name in found if market in markets]
    with warehouse.open().reading() as con:
        spans = {stream: book_span(con, stream) for stream in markets.values()}
    return [Stretch(stream=stream, window=month) for stream, span in spans.items() if span for month in span.months()]


def _month(name: str) -> Window:
    start = datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC)
    return Window(start=start, end=next_month(start))


book_checks = asked("order_book", ORDER_BOOK_QUESTIONS, market_months_of)
