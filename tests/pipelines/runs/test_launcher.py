"""Runs through the real launchers, started and ended as the UI does it; and what becomes of them when things die."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest
import torch
from dagster._core.launcher import WorkerStatus

from pipelines.runs.processes import Process
from tests.pipelines.conftest import Launches, until

Opened = Callable[..., AbstractContextManager[Launches]]
SUCCESS, FAILURE, CANCELED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)


def begun(launches: Launches, path: Path) -> tuple[str, Process]:
    """A run that waits for the file PATH.end, and its process."""
    run_id = launches.launch("waiting", path=str(path))
    until(lambda: path.exists() and path.read_text(), "the op has begun")
    return run_id, Process.of(int(path.read_text()))


@pytest.mark.parametrize("launcher", ["warm", "stock"])
def test_a_run_ends_well_in_a_process_of_its_own(launches: Opened, launcher: str, tmp_path: Path) -> None:
    with launches(run_launcher=launcher) as dagster:
        run_id = dagster.launch("noting", path=str(tmp_path / "noted"))
        assert dagster.ended(run_id) == SUCCESS
        pid, folder, _ = (tmp_path / "noted").read_text().split("\n")
        until(lambda: "Process for run exited" in dagster.messages(run_id), "the process has said goodbye")
    assert int(pid) != os.getpid()
    assert folder == os.getcwd()


@pytest.mark.parametrize("launcher", ["warm", "stock"])
def test_the_button_of_the_ui_cancels_a_run(launches: Opened, launcher: str, tmp_path: Path) -> None:
    with launches(run_launcher=launcher) as dagster:
        run_id, process = begun(dagster, tmp_path / "begun")
        assert dagster.terminate(run_id) == "TerminateRunSuccess"
        assert dagster.ended(run_id) == CANCELED
        until(lambda: not process.is_alive, "its process has ended")


def test_both_launchers_leave_the_same_events(launches: Opened, tmp_path: Path) -> None:
    events = {}
    for launcher in ("warm", "stock"):
        with launches(run_launcher=launcher) as dagster:
            run_ids = [dagster.launch("noting", path=str(tmp_path / launcher)), dagster.launch("failing")]
            assert [dagster.ended(run_id) for run_id in run_ids] == [SUCCESS, FAILURE]
            for run_id in run_ids:
                until(lambda run_id=run_id: "run exited" in dagster.messages(run_id), "its process has ended")
            events[launcher] = [dagster.events(run_id) for run_id in run_ids]
    assert events["warm"] == events["stock"]


def test_what_the_template_only_imports_works_in_its_runs(dagster: Launches) -> None:
    runs = [dagster.launch("computing") for _ in range(3)]
    assert [dagster.ended(run_id) for run_id in runs] == [SUCCESS] * 3
    assert "computed 399999.0 7 400000 42 500.0 torch.Size([600, 600])" in dagster.messages(runs[-1])


@pytest.mark.gpu
def test_every_run_can_use_the_gpu(dagster: Launches) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    runs = [dagster.launch("computing_on_gpu") for _ in range(2)]
    assert [dagster.ended(run_id) for run_id in runs] == [SUCCESS] * 2


def test_a_run_whose_process_is_killed_is_told_at_once(dagster: Launches, tmp_path: Path) -> None:
    run_id, process = begun(dagster, tmp_path / "begun")
    process.send(signal.SIGKILL)
    assert dagster.ended(run_id, seconds=10) == FAILURE
    assert f"(pid {process.pid}) was killed by SIGKILL" in dagster.messages(run_id)


def test_a_run_whose_process_vanishes_is_told_at_once(dagster: Launches) -> None:
    run_id = dagster.launch("vanishing")
    assert dagster.ended(run_id, seconds=30) == FAILURE
    assert "ended with 3" in dagster.messages(run_id)


def test_a_run_that_is_killed_while_it_is_being_canceled_counts_as_canceled(dagster: Launches, tmp_path: Path) -> None:
    run_id, process = begun(dagster, tmp_path / "begun")
    dagster.instance.report_run_canceling(dagster.run(run_id))
    process.send(signal.SIGKILL)
    assert dagster.ended(run_id, seconds=10) == CANCELED


def test_a_run_outlives_its_template_and_the_next_one_looks_after_it(launches: Opened, tmp_path: Path) -> None:
    with launches() as dagster:
        run_id, process = begun(dagster, tmp_path / "begun")
        first = dagster.template
        first.send(signal.SIGKILL)
        until(lambda: not first.is_alive, "the template is gone")

        again = dagster.launch("noting", path=str(tmp_path / "noted"))
        assert dagster.ended(again) == SUCCESS
        assert dagster.template != first
        assert process.is_alive
        assert dagster.run(run_id).status == dg.DagsterRunStatus.STARTED

        process.send(signal.SIGKILL)
        assert dagster.ended(run_id, seconds=10) == FAILURE


def test_a_template_that_starts_tells_of_runs_that_died_unnoticed(dagster: Launches, tmp_path: Path) -> None:
    run_id, process = begun(dagster, tmp_path / "begun")
    for each in (dagster.template, process):
        each.send(signal.SIGKILL)
    until(lambda: not process.is_alive, "the run's process is gone")
    dagster.launch("failing")
    assert dagster.ended(run_id, seconds=30) == FAILURE


def test_the_health_of_a_run_is_that_of_its_process(dagster: Launches, tmp_path: Path) -> None:
    launcher = dagster.instance.run_launcher
    run_id, process = begun(dagster, tmp_path / "begun")
    assert launcher.check_run_worker_health(dagster.run(run_id)).status == WorkerStatus.RUNNING
    for each in (dagster.template, process):  # so that nobody is left to write the end down
        each.send(signal.SIGKILL)
    until(lambda: not process.is_alive, "the run's process is gone")
    unnoticed = dagster.run(run_id)
    assert unnoticed.status == dg.DagsterRunStatus.STARTED
    assert launcher.check_run_worker_health(unnoticed).status == WorkerStatus.FAILED
    (dagster.warm / "runs" / run_id).unlink()  # what the run itself wrote down of its process is left
    assert launcher.check_run_worker_health(unnoticed).status == WorkerStatus.FAILED


def test_terminating_a_run_whose_process_is_gone_ends_it(dagster: Launches, tmp_path: Path) -> None:
    run_id, process = begun(dagster, tmp_path / "begun")
    for each in (dagster.template, process):
        each.send(signal.SIGKILL)
    until(lambda: not process.is_alive, "the run's process is gone")
    assert dagster.terminate(run_id) == "TerminateRunSuccess"
    assert dagster.run(run_id).status == CANCELED


def test_without_a_template_a_run_starts_the_stock_way_and_says_why(launches: Opened, tmp_path: Path) -> None:
    with launches() as dagster:
        (dagster.warm / "lock").mkdir()  # so that no template can take the lock
        run_id, _ = begun(dagster, tmp_path / "begun")
        assert "starts the stock way, because the warm template cannot be had" in dagster.messages(run_id)
        launcher = dagster.instance.run_launcher
        assert launcher.check_run_worker_health(dagster.run(run_id)).status == WorkerStatus.RUNNING
        assert dagster.terminate(run_id) == "TerminateRunSuccess"
        assert dagster.ended(run_id) == CANCELED
        (dagster.warm / "lock").rmdir()
