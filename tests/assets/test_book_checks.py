"""The checks of the order book cover the months of a market that a run has, or everything that is stored."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

from assets.book_checks import book_checks
from assets.partitions import market_month
from hindsight.settings import Settings, load
from hindsight.store.book_tables import write_order_book
from hindsight.store.warehouse import Warehouse
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource

JANUARY, FEBRUARY = datetime(2024, 1, 31, 12, tzinfo=UTC), datetime(2024, 2, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a second of two markets in two months; of BTC/USDT in February, it stands twice."""
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("HINDSIGHT_TIMEFRAMES", "1m,5m")
    settings = load()
    rows = [
        {"venue": "simulated", "symbol": symbol, "second": second, "price": 100.5, "bucket_size": 1.0, "anchor": 100.0}
        | {"spread": 0.01, "amounts": [1000.0] * 40, "imbalance": 0.0, "snapshots": 10, "age_ms": 50}
        | {"venues": ["simulated"]}
        for symbol in settings.symbols
        for second in (JANUARY, FEBRUARY)
    ]
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        write_order_book(con, pl.DataFrame(rows, infer_schema_length=None))
    with duckdb.connect(str(settings.warehouse_path)) as con:
        con.execute("insert into order_book from order_book where symbol = 'BTC/USDT' and second >= '2024-02-01'")
    return settings


def run_checks(tags: dict[str, str]) -> dict[str, dg.AssetCheckEvaluation]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [dg.AssetSpec("order_book"), book_checks],
            selection=dg.AssetSelection.checks(book_checks),
            instance=instance,
            resources={"warehouse": WarehouseResource(), "scope": ScopeResource()},
            tags=tags,
        )
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_without_partitions_all_that_is_stored_is_asked_about(settings: Settings):
    found = run_checks({})
    wrong = {name for name, each in found.items() if not each.passed}
    assert wrong == {"book_seconds_standing_twice"}
    assert "2024-02-01 12:00" in str(found["book_seconds_standing_twice"].metadata["rows"].value)


@pytest.mark.parametrize(
    ("symbol", "moment", "is_right"),
    [("BTC/USDT", JANUARY, True), ("BTC/USDT", FEBRUARY, False), ("ETH/USDT", FEBRUARY, True)],
)
def test_a_run_of_one_partition_is_asked_about_its_own_market_and_month(
    settings: Settings, symbol: str, moment: datetime, is_right: bool
):
    key = market_month("simulated", symbol, moment)
    assert run_checks({"dagster/partition": str(key)})["book_seconds_standing_twice"].passed == is_right


def test_a_run_of_a_range_is_asked_about_all_of_it(settings: Settings):
    first, last = (market_month("simulated", "BTC/USDT", moment) for moment in (JANUARY, FEBRUARY))
    tags = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    assert not run_checks(tags)["book_seconds_standing_twice"].passed


def test_an_empty_table_answers_every_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    assert all(each.passed for each in run_checks({}).values())
