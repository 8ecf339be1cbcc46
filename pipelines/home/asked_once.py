"""What Dagster's run storage asks its database before every question: which columns there are. Here, once."""

from functools import cached_property

from dagster._core.storage.runs.sql_run_storage import SqlRunStorage


class AskedOnce(SqlRunStorage):
    """A storage of runs that remembers which columns it has; they appear in migrations only."""

    def has_run_stats_index_cols(self) -> bool:
        return self._has_run_stats_index_cols

    def has_backfill_id_column(self) -> bool:
        return self._has_backfill_id_column

    @cached_property
    def _has_run_stats_index_cols(self) -> bool:
        return super().has_run_stats_index_cols()

    @cached_property
    def _has_backfill_id_column(self) -> bool:
        return super().has_backfill_id_column()
