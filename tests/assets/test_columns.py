"""The columns that the UI shows are those that DuckDB makes of schema.sql."""

from pathlib import Path

import dagster as dg
import pytest

from assets.columns import columns_of
from hindsight.store.warehouse import Warehouse
from pipelines.definitions import defs

ASSETS = sorted(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys())


@pytest.mark.parametrize("asset", ASSETS)
def test_every_asset_shows_the_columns_of_its_table(asset: str, tmp_path: Path) -> None:
    shown = defs.resolve_asset_graph().get(dg.AssetKey(asset)).metadata
    with Warehouse(path=tmp_path / "hindsight.duckdb", lock_timeout_seconds=30).reading() as con:
        made = con.execute(f"describe {asset}").fetchall()
    columns = shown["dagster/column_schema"].columns
    assert [(each.name, each.constraints.nullable) for each in columns] == [(row[0], row[2] == "YES") for row in made]
    assert shown["dagster/table_name"] == asset


def test_a_column_is_described_by_what_stands_beside_it_alone() -> None:
    columns = {each.name: each for each in columns_of("trend_validations")["dagster/column_schema"].columns}
    assert columns["settled_at"].description == "when known"
    assert columns["slope"].description is columns["time_duration"].description is None
    assert columns["status"].constraints.other == ["status in ('validated', 'expired', 'unusable')"]


def test_a_table_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a table bars in schema"):
        columns_of("bars")
