"""A warehouse of its own for every test of the store."""

from pathlib import Path

import pytest

from hindsight.store.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """An empty warehouse that does not exist yet."""
    return Warehouse(path=tmp_path / "home" / "hindsight.duckdb", lock_timeout_seconds=0.2)
