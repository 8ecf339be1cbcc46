"""The warehouse as a Dagster resource.

Not built on dagster-duckdb's `DuckDBResource`: its connections wait for no lock file, take part in no transaction and
stay open (the file locked) when the body inside them fails, which is everything that `Warehouse` is for.
"""

import dagster as dg

from hindsight.settings import load
from hindsight.store.warehouse import Warehouse


class WarehouseResource(dg.ConfigurableResource):
    """The DuckDB file below HINDSIGHT_HOME."""

    def open(self) -> Warehouse:
        """The warehouse of the settings in force. Opens no connection yet."""
        settings = load()
        return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
