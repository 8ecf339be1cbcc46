"""Which process a run lives in, also where another has its id by now; and the end of runs that live in none."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from hindsight.settings import load
from pipelines.home.instance import open_instance
from pipelines.runs.processes import Process
from pipelines.runs.run_process import PID, close_dead, process_of
from pipelines.runs.warm import Worker, folder_of

STARTED, STARTING, CANCELING, FAILURE, CANCELED = (
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
LONG_AGO = 3600.0


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(load()) as opened:
        yield opened


@pytest.fixture
def gone() -> Process:
    """A process that has ended."""
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        process = Process.of(sleeping.pid)
        sleeping.kill()
    return process


def recorded(instance: dg.DagsterInstance, process: Process, status: dg.DagsterRunStatus) -> str:
    """A run of the warm launcher that is recorded to live in `process`."""
    run_id = create_run_for_test(instance, job_name="advance", status=status).run_id
    assert Worker(process=process, instance="{}").write(folder_of(instance.root_directory) / "runs" / run_id)
    return run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_after_a_power_cut_runs_without_a_process_are_ended_before_anything_starts(
    instance: dg.DagsterInstance, gone: Process
) -> None:
    earlier = Process(os.getpid(), Process.this().started, "before the power cut")
    expected = {
        recorded(instance, gone, STARTED): FAILURE,
        recorded(instance, gone, STARTING): FAILURE,
        recorded(instance, gone, CANCELING): CANCELED,
        recorded(instance, earlier, STARTED): FAILURE,
        recorded(instance, Process.this(), STARTED): STARTED,
        create_run_for_test(instance, job_name="advance", status=STARTED).run_id: STARTED,  # nobody noted a process
    }
    with open_instance(load()) as opened:
        assert {run_id: status_of(opened, run_id) for run_id in expected} == expected
        assert close_dead(opened) == []


def test_a_run_that_begins_with_its_processes_id_alone_does_not_live_in_a_later_process_of_that_id(
    instance: dg.DagsterInstance,
) -> None:
    run = create_run_for_test(instance, job_name="advance", status=STARTED)
    instance.report_engine_event("Started", run, EngineEventData.in_process(os.getpid()))  # as a stock run does
    process = process_of(instance, run)
    assert process == Process.this()
    now = instance.all_logs(run.run_id)[0].timestamp
    assert Process.noted(str(os.getpid()), at=now).is_alive
    assert not Process.noted(str(os.getpid()), at=now - LONG_AGO).is_alive


def test_the_run_of_a_command_is_known_by_more_than_an_id(instance: dg.DagsterInstance) -> None:
    reused = Process(os.getpid(), Process.this().started - 1)
    runs = [
        create_run_for_test(instance, job_name="backfill", status=STARTED, tags={PID: str(process)})
        for process in (Process.this(), reused)
    ]
    assert close_dead(instance) == [runs[1].run_id]


def test_a_process_is_known_again_by_its_note(gone: Process) -> None:
    for process in (Process.this(), gone):
        assert Process.noted(str(process), at=0.0) == process
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert Process.noted(str(Process.of(other.pid)), at=0.0).is_alive
        assert not Process(other.pid, Process.of(other.pid).started, "another boot").is_alive
        other.kill()
