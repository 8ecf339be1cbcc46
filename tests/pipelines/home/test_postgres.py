"""The instance on a real PostgreSQL server: pooled, shared by processes, and as good as SQLite for runs."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

from hindsight.settings import load
from pipelines.home.instance import open_instance
from pipelines.runs.processes import Process
from tests.pipelines.conftest import Launches, until

Opened = Callable[..., AbstractContextManager[Launches]]
SUCCESS, CANCELED, FAILURE = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.CANCELED,
    dg.DagsterRunStatus.FAILURE,
)


@pytest.mark.parametrize("launcher", ["warm", "stock"])
def test_runs_work_end_and_fail_as_on_sqlite(launches: Opened, postgres: str, launcher: str, tmp_path: Path) -> None:
    with launches(postgres_url=postgres, run_launcher=launcher) as dagster:
        runs = [dagster.launch("noting", path=str(tmp_path / "noted")), dagster.launch("failing")]
        assert [dagster.ended(run_id) for run_id in runs] == [SUCCESS, FAILURE]
        waiting = dagster.launch("waiting", path=str(tmp_path / "begun"))
        until(lambda: (tmp_path / "begun").exists(), "the op has begun")
        assert dagster.terminate(waiting) == "TerminateRunSuccess"
        assert dagster.ended(waiting) == CANCELED


def test_a_run_whose_process_is_killed_is_told_at_once(launches: Opened, postgres: str, tmp_path: Path) -> None:
    with launches(postgres_url=postgres) as dagster:
        run_id = dagster.launch("waiting", path=str(tmp_path / "begun"))
        until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text(), "the op has begun")
        Process.of(int((tmp_path / "begun").read_text())).send(signal.SIGKILL)
        assert dagster.ended(run_id, seconds=20) == FAILURE


@dg.asset
def thing() -> None:
    """Something to materialise."""


def test_one_process_keeps_one_connection_for_all_that_it_asks(home: Path, postgres: str) -> None:
    with closing(psycopg2.connect(postgres)) as apart, apart.cursor() as cursor:
        apart.autocommit = True

        def connections() -> set[int]:
            cursor.execute("select pid from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid()")
            return {pid for (pid,) in cursor.fetchall()}

        others = connections()
        with open_instance(load(postgres_url=postgres)) as instance:
            dg.materialize([thing], instance=instance)
            kept = connections() - others
            assert len(kept) == 1
            instance.all_instigator_state()
            assert instance.fetch_materializations(thing.key, limit=1).records
            assert connections() - others == kept


def test_a_second_opening_finds_the_tables_of_the_first(home: Path, postgres: str) -> None:
    settings = load(postgres_url=postgres)
    with open_instance(settings) as first:
        first.report_engine_event("here", run_id="one", job_name="job")
    with open_instance(settings) as second:
        assert [log.message for log in second.all_logs("one")] == ["here"]
