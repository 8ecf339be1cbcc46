"""The warm template: one per home, as fresh as the code and the settings, and gone when it should be."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest

from pipelines.runs import warm
from pipelines.runs.processes import Process
from pipelines.runs.seen import Seen
from tests.pipelines.conftest import SMALL, Launches, until

Opened = Callable[..., AbstractContextManager[Launches]]
SUCCESS = dg.DagsterRunStatus.SUCCESS


def test_runs_launched_side_by_side_share_one_template_and_start_once_each(dagster: Launches, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as launchers:
        names = [str(tmp_path / f"noted {number}") for number in range(8)]
        runs = list(launchers.map(lambda name: dagster.launch("noting", path=name), names))
    assert [dagster.ended(run_id) for run_id in runs] == [SUCCESS] * 8
    assert len({Path(name).read_text() for name in names}) == 8
    started = [dagster.messages(run_id).count("Started process for run") for run_id in runs]
    assert started == [1] * 8
    until(lambda: not warm.workers(dagster.warm), "the template has noticed that all have ended")


def test_asking_twice_for_a_run_starts_it_once(dagster: Launches, tmp_path: Path) -> None:
    run_id = dagster.launch("waiting", path=str(tmp_path / "begun"))
    until(lambda: (tmp_path / "begun").exists(), "the op has begun")
    template = dagster.template
    dagster.instance.run_launcher.launch_run(_context(dagster, run_id))
    (tmp_path / "begun.end").touch()
    assert dagster.ended(run_id) == SUCCESS
    until(lambda: not warm.workers(dagster.warm), "the template has noticed its end")
    dagster.instance.run_launcher.launch_run(_context(dagster, run_id))
    until(lambda: not warm.workers(dagster.warm), "the template has noticed that there was nothing to do")
    assert dagster.messages(run_id).count("Started execution of run") == 1
    assert dagster.ended(dagster.launch("noting", path=str(tmp_path / "noted"))) == SUCCESS
    assert dagster.template == template


def test_a_run_has_the_variables_of_whoever_launches_it(
    dagster: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for greeting in ("hello", "goodbye"):
        monkeypatch.setenv("GREETING", greeting)
        dagster.ended(dagster.launch("noting", path=str(tmp_path / greeting)))
        assert (tmp_path / greeting).read_text().endswith(f"\n{greeting}")


def test_a_changed_setting_brings_a_fresh_template(
    launches: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with launches() as dagster:
        templates = []
        for seed in ("1", "2"):
            monkeypatch.setenv("HINDSIGHT_SEED", seed)
            assert dagster.ended(dagster.launch("noting", path=str(tmp_path / "noted"))) == SUCCESS
            templates.append(dagster.template)
        assert templates[0] != templates[1]
        until(lambda: not templates[0].is_alive, "the stale template has gone")


def test_changed_code_brings_a_fresh_template(launches: Opened, tmp_path: Path) -> None:
    definitions = tmp_path / "code" / "changing.py"
    definitions.parent.mkdir()
    definitions.write_text(SMALL.read_text())
    with launches(definitions) as dagster:
        assert dagster.ended(dagster.launch("noting", path=str(tmp_path / "noted"))) == SUCCESS
        assert str(os.getpid()) not in (tmp_path / "noted").read_text()
        definitions.write_text(SMALL.read_text().replace("os.getcwd()", "'changed'"))
        assert dagster.ended(dagster.launch("noting", path=str(tmp_path / "noted"))) == SUCCESS
        assert "\nchanged\n" in (tmp_path / "noted").read_text()


def test_code_that_does_not_load_any_more_is_left_to_the_stock_launcher(launches: Opened, tmp_path: Path) -> None:
    definitions = tmp_path / "code" / "breaking.py"
    definitions.parent.mkdir()
    definitions.write_text(SMALL.read_text())
    with launches(definitions) as dagster:
        definitions.write_text("this is no Python")
        run_id = dagster.launch("noting", path=str(tmp_path / "noted"))
        assert dagster.ended(run_id) == dg.DagsterRunStatus.FAILURE
        assert "the definitions do not load" in dagster.messages(run_id)


def test_seen_names_what_has_changed(tmp_path: Path) -> None:
    seen, here = Seen(), os.getcwd()
    code = tmp_path / "code.py"
    seen.note(str(code))
    same = dict(os.environ)
    assert not seen.changed(same, here)
    assert seen.changed(same | {"HINDSIGHT_SEED": "3"}, here) == "HINDSIGHT_SEED has changed"
    assert "the working directory" in seen.changed(same, str(tmp_path))
    code.write_text("seed = 3")
    assert seen.changed(same, here) == f"{code} has changed"


def test_a_template_ends_with_its_owner_and_takes_its_runs_with_it(
    launches: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sleep", "600"]) as owner, launches() as dagster:
        monkeypatch.setenv(warm.OWNER, str(owner.pid))
        run_id = dagster.launch("waiting", path=str(tmp_path / "begun"))
        until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text(), "the op has begun")
        template, worker = dagster.template, Process.of(int((tmp_path / "begun").read_text()))
        owner.kill()
        until(lambda: not template.is_alive and not worker.is_alive, "template and run have ended")
        assert dagster.ended(run_id) == dg.DagsterRunStatus.FAILURE


def test_a_template_whose_home_is_deleted_ends(tmp_path: Path) -> None:
    folder = warm.folder_of(tmp_path / "dagster")
    warm.ensure(folder)
    template = warm.template_of(folder)
    assert template is not None
    (folder / "socket").unlink()
    until(lambda: not template.is_alive, "the template has ended")


def test_a_second_template_of_a_home_ends_at_once(tmp_path: Path) -> None:
    folder = warm.folder_of(tmp_path / "dagster")
    warm.ensure(folder)
    try:
        command = [sys.executable, "-m", "pipelines.runs.template", str(folder), str(os.getpid())]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "another template has" in second.stderr
        assert warm.is_running(folder)
    finally:
        warm.stop(folder)


@pytest.mark.parametrize("left", [b"", b"[12, 3", b"7", b"\0" * 40, b"[1, 2, 3, 4]", b"\xff"])
def test_a_record_that_a_power_cut_has_torn_is_none_and_stands_in_nobodys_way(tmp_path: Path, left: bytes) -> None:
    folder = warm.folder_of(tmp_path / "dagster")
    record = folder / "runs" / "some run"
    record.write_bytes(left)
    assert warm.workers(folder) == {}
    assert not record.exists()

    record.write_bytes(left)
    worker = warm.Worker(process=Process.this(), instance="{}")
    assert worker.write(record)
    assert not worker.write(record)
    assert warm.Worker.read(record) == worker


@pytest.mark.parametrize("left", ["", "[12"])
def test_a_lock_in_which_nobody_is_named_is_that_of_somebody_all_the_same(tmp_path: Path, left: str) -> None:
    folder = warm.folder_of(tmp_path / "dagster")
    (folder / "lock").write_text(left)
    assert warm.template_of(folder) is None
    held = ["flock", "--exclusive", str(folder / "lock"), "sh", "-c", "echo held; exec sleep 600"]
    with subprocess.Popen(held, stdout=subprocess.PIPE, start_new_session=True) as somebody:
        try:
            assert somebody.stdout is not None
            assert somebody.stdout.readline() == b"held\n"
            found = warm.template_of(folder)
            assert found is not None
            assert not found.is_alive
        finally:
            os.killpg(somebody.pid, signal.SIGKILL)


@pytest.mark.parametrize("ends", [False, True], ids=["it comes up", "it dies on the way"])
def test_where_somebodys_template_is_just_starting_no_second_is_started_beside_it(tmp_path: Path, ends: bool) -> None:
    folder = warm.folder_of(tmp_path / "dagster")
    command = [sys.executable, "-m", "pipelines.runs.template", str(folder), str(os.getpid())]
    with subprocess.Popen(command) as somebodys, ThreadPoolExecutor(1) as launcher:
        try:
            until(lambda: warm.template_of(folder), "it has taken the lock")
            first = warm.template_of(folder)
            assert not warm.is_running(folder)
            ready = launcher.submit(warm.ensure, folder)
            if ends:
                somebodys.kill()
                somebodys.wait()
            ready.result(120)
            assert warm.is_running(folder)
            assert (warm.template_of(folder) == first) is not ends
        finally:
            warm.stop(folder)


def test_a_home_with_a_long_name_can_have_a_template(
    launches: Opened, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = home / ("a long name " * 12) / ("and another " * 12)
    monkeypatch.setenv("HINDSIGHT_HOME", str(deep))
    with launches() as dagster:
        dagster.launch("failing")
        assert warm.is_running(dagster.warm)


def test_a_template_that_hangs_is_killed_and_replaced(
    launches: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "ANSWER_SECONDS", 1.0)
    with launches() as dagster:
        dagster.ended(dagster.launch("noting", path=str(tmp_path / "noted")))
        hanging = dagster.template
        hanging.send(signal.SIGSTOP)
        assert dagster.ended(dagster.launch("noting", path=str(tmp_path / "noted again"))) == SUCCESS
        assert not hanging.is_alive


def test_a_template_has_imported_what_a_run_needs_and_uses_nothing_that_has_a_pool(
    dagster: Launches, tmp_path: Path
) -> None:
    dagster.ended(dagster.launch("counting", path=str(tmp_path / "counted")))
    tasks = Path(f"/proc/{dagster.template.pid}/task").iterdir()
    names = sorted((task / "comm").read_text().strip() for task in tasks)
    # jemalloc and OpenBLAS end their threads before a fork and start them again; polars' cleaner of spilled files
    # has nothing to clean. A pool would be named polars-0, duckdb-0, pt_main_thread ...
    own = {"jemalloc_bg_thd", "polars-ooc-clea"}
    assert {name for name in names if not name.startswith("python")} <= own
    python_threads, *late = (tmp_path / "counted").read_text().split("\n")
    assert int(python_threads) == 1
    assert late == [], "these cost every run its time: name them in pipelines.runs.template.IMPORTED"


def _context(dagster: Launches, run_id: str) -> dg.DagsterInstance:
    from dagster._core.launcher import LaunchRunContext

    return LaunchRunContext(dagster_run=dagster.run(run_id), workspace=dagster.workspace.create_request_context())
