"""Dagster's PostgreSQL storage over connections that stay open: unpooled, it is slower than SQLite."""

from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresRunStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy import Engine, text

from pipelines.home.asked_once import AskedOnce

OVERFLOW = 8  # connections of one process beside the one that it keeps
HOUR = 3600


class PooledPostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in one database, over one pool per process."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False, inst_data=inst_data)
        runs = PooledRuns(postgres_url, should_autocreate_tables=False)
        # What Dagster does for its webserver, where no statement may be cut off either.
        runs.optimize_for_webserver(statement_timeout=0, pool_recycle=HOUR, max_overflow=OVERFLOW)
        if not _has_tables(runs._engine):
            DagsterPostgresStorage(postgres_url, should_autocreate_tables=True)
        self._run_storage = runs
        self._event_log_storage._engine = self._schedule_storage._engine = runs._engine

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> "PooledPostgresStorage":
        # SQLAlchemy 2.1 would take psycopg 3, whose connections Dagster closes by mistake.
        url = pg_url_from_config(config_value).replace("postgresql://", "postgresql+psycopg2://", 1)
        return cls(postgres_url=url, inst_data=inst_data)


class PooledRuns(AskedOnce, PostgresRunStorage):
    """Runs and their tags; what it closes with, closes the pool."""

    def dispose(self) -> None:
        self._engine.dispose()


def _has_tables(engine: Engine) -> bool:
    """Whether the tables that Dagster makes last in each of its three storages are there."""
    sql = "select to_regclass('instance_info') is not null and to_regclass('event_logs') is not null"
    with engine.connect() as connection:
        return bool(connection.execute(text(f"{sql} and to_regclass('job_ticks') is not null")).scalar())
