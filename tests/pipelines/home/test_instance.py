"""The instance's dagster.yaml follows the settings until a person edits it; and where the instance keeps things."""

import json
import logging
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.utils import make_new_run_id

from hindsight.settings import load
from pipelines.home.instance import CHECKOUT, WORKSPACE, instance_yaml, open_instance, prepare
from pipelines.home.sqlite import OPEN_FILES
from pipelines.runs.launcher import WarmRunLauncher
from tests.pipelines.conftest import LAUNCH, until


def test_the_file_is_that_of_the_settings_and_follows_them(home: Path) -> None:
    written = {}
    for launcher in ("stock", "warm"):
        settings = load(run_launcher=launcher)
        file = prepare(settings) / "dagster.yaml"
        assert file.read_text() == instance_yaml(settings)
        with dg.DagsterInstance.get() as instance:
            written[launcher] = type(instance.run_launcher)
    assert written == {"stock": dg.DefaultRunLauncher, "warm": WarmRunLauncher}


def test_a_file_that_somebody_edited_stays_and_the_log_says_so(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = prepare(load()) / "dagster.yaml"
    edited = file.read_text().replace("num_workers: 8", "num_workers: 3")
    file.write_text(edited)
    with caplog.at_level(logging.WARNING):
        prepare(load(run_launcher="stock"))
    assert file.read_text() == edited
    assert f"{file} was edited and stays as it is" in caplog.text


@pytest.mark.parametrize("found", ["older text\n", ""], ids=["a file of one's own", "an empty file"])
def test_a_file_that_was_there_before_stays(home: Path, found: str) -> None:
    file = home / "dagster" / "dagster.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(found)
    prepare(load())
    assert file.read_text() == found


def test_no_address_of_a_database_is_written_to_disk(home: Path) -> None:
    settings = load(postgres_url="postgresql://somebody:secret@localhost/dagster")
    assert "secret" not in (prepare(settings) / "dagster.yaml").read_text()


def test_dagster_dev_works_where_nothing_is_set_and_its_runs_are_forked(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    here = tmp_path / "like the checkout"
    here.mkdir()
    (here / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(WORKSPACE), "-p", str(port)]
    selector = {"repositoryLocationName": "hindsight", "repositoryName": "__repository__", "jobName": "health"}
    launch = {"query": LAUNCH, "variables": {"params": {"selector": selector, "runConfigData": {}}}}
    with (tmp_path / "output").open("wb") as file, subprocess.Popen(command, cwd=here, stdout=file, stderr=file) as dev:
        try:
            until(lambda: "launchRun" in asked(port, launch), f"a run is launched: {(tmp_path / 'output').read_text()}")
            ended = {"query": "{ runsOrError { ... on Runs { results { status } } } }"}
            until(lambda: "SUCCESS" in json.dumps(asked(port, ended)), f"it has ended well: {asked(port, ended)}")
        finally:
            dev.send_signal(signal.SIGINT)
            try:
                dev.wait(60)
            finally:
                dev.kill()
    assert "the run starts the stock way" not in (tmp_path / "output").read_text()
    assert [path.name for path in here.iterdir()] == ["dagster.yaml"]


def asked(port: int, query: dict[str, object]) -> dict[str, object]:
    """What the UI's server answers; nothing while it does not."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", json.dumps(query).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]
    except OSError:
        return {}


def test_ticks_are_not_kept_for_ever_and_nobody_is_told_of_them(home: Path) -> None:
    with open_instance(load()) as instance:
        kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)
        assert all(0 < days <= 30 for days in kept.values())
        assert instance.get_settings("telemetry") == {"enabled": False}
        assert instance.run_monitoring_enabled


@dg.asset
def thing() -> None:
    """Something to materialise."""


def test_dagsters_own_storage_and_ours_read_what_the_other_wrote(home: Path) -> None:
    folder = prepare(load())
    ran = []
    for opened in (dg.DagsterInstance.get, lambda: dg.DagsterInstance.local_temp(str(folder))):
        with opened() as instance:
            ran.append(dg.materialize([thing], instance=instance).run_id)
            assert {run.run_id for run in instance.get_runs()} == set(ran)
            assert len({len(instance.all_logs(run_id)) for run_id in ran}) == 1
            assert len(instance.fetch_materializations(thing.key, limit=9).records) == len(ran)


def test_deleting_a_run_deletes_its_file(home: Path) -> None:
    with open_instance(load()) as instance:
        run_id = dg.materialize([thing], instance=instance).run_id
        files = home / "dagster" / "history" / "runs"
        assert list(files.glob(f"{run_id}*"))
        instance.delete_run(run_id)
        assert not list(files.glob(f"{run_id}*"))
        assert instance.get_run_by_id(run_id) is None


def test_events_of_more_runs_than_files_stay_open_are_all_kept(home: Path) -> None:
    runs = [make_new_run_id() for _ in range(3 * OPEN_FILES)]
    with open_instance(load()) as instance:

        def report(number: int) -> None:
            instance.report_engine_event(f"event {number}", run_id=runs[number % len(runs)], job_name="job")

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(report, range(5 * len(runs))))
        for index, run_id in enumerate(runs):
            expected = {f"event {number}" for number in range(index, 5 * len(runs), len(runs))}
            assert {log.message for log in instance.all_logs(run_id)} == expected


def test_two_processes_that_open_a_new_home_at_once_both_can(home: Path) -> None:
    prepare(load())
    code = "import dagster as dg; dg.DagsterInstance.get().report_engine_event('here', run_id='one', job_name='job')"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    with dg.DagsterInstance.get() as instance:
        assert [log.message for log in instance.all_logs("one")] == ["here"] * 3
