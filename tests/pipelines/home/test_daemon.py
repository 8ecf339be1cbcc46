"""The real daemon over a real code server: what it starts twice, and what it says while there is no code."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.errors import DagsterUserCodeUnreachableError

from hindsight.settings import load
from pipelines.home.daemon import Outages
from pipelines.home.instance import open_instance
from tests.pipelines.conftest import SMALL, live_in, until


@dataclass
class Daemon:
    """A daemon that runs, its code server, and what it has said."""

    instance: dg.DagsterInstance
    home: Path
    output: Path
    process: subprocess.Popen[bytes]
    code: subprocess.Popen[bytes]

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def ticks(self) -> int:
        file = self.home / "ticks"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def serve_code(self) -> None:
        self.code = serve(self.home / "code", self.home)

    def failed_ticks(self) -> int:
        states = self.instance.all_instigator_state()
        ticks = [
            tick for state in states for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ]
        return sum(tick.status.value == "FAILURE" for tick in ticks)


def serve(socket: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A code server over the small definitions."""
    socket.unlink(missing_ok=True)
    definitions = ["--python-file", str(SMALL), "--attribute", "defs", "--working-directory", str(SMALL.parent)]
    command = ["-m", "dagster", "api", "grpc", *definitions, "--location-name", "small", "--socket", str(socket)]
    with (folder / "code output").open("ab") as file:
        return subprocess.Popen([sys.executable, *command], stdout=file, stderr=file)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        home = live_in(tmp_path_factory.mktemp("d"), patch)
        patch.setenv("HINDSIGHT_RUN_LAUNCHER", "stock")
        instance = stack.enter_context(open_instance(load()))
        code, workspace, output = serve(home / "code", home), home / "workspace.yaml", home / "output"
        place = {"host": "localhost", "socket": str(home / "code"), "location_name": "small"}
        workspace.write_text(yaml.dump({"load_from": [{"grpc_server": place}]}))
        until(lambda: (home / "code").exists(), "the code server listens")
        command = [
            sys.executable,
            "-m",
            "pipelines.home.daemon",
            "run",
            "--workspace",
            str(workspace),
            "--log-level",
            "warning",
        ]
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        daemon = Daemon(instance, home, output, process, code)
        try:
            yield daemon
        finally:
            for each in (daemon.process, daemon.code):
                each.kill()
                each.wait()


def test_two_ticks_that_ask_with_the_same_run_key_start_one_run(daemon: Daemon) -> None:
    (daemon.home / "asked").write_text("one\ntwo\n")
    until(lambda: daemon.ticks >= 3, f"the sensor has asked three times; so far {daemon.said}")
    until(lambda: all(run.is_finished for run in daemon.instance.get_runs()), "both runs have ended")
    ended = {run.tags["dagster/run_key"]: run.status for run in daemon.instance.get_runs()}
    assert ended == dict.fromkeys(("one", "two"), dg.DagsterRunStatus.SUCCESS)
    assert daemon.instance.get_runs_count() == 2


def test_while_the_code_server_is_away_the_daemon_says_so_in_one_line(daemon: Daemon) -> None:
    before = daemon.failed_ticks()
    daemon.code.kill()
    daemon.code.wait()
    until(lambda: daemon.failed_ticks() >= before + 2, f"ticks have failed; so far {daemon.said}")
    daemon.serve_code()
    seen = daemon.ticks
    until(lambda: daemon.ticks > seen, f"the sensor goes on; so far {daemon.said}")
    (line,) = daemon.said.splitlines()
    assert "the code server does not answer; sensors go on once it does" in line


def test_the_next_outage_is_told_again_and_other_errors_in_full(caplog: pytest.LogCaptureFixture) -> None:
    outages, logger = Outages(iter([0.0, 10.0, 20.0, 100.0]).__next__), logging.getLogger("dagster.daemon")
    unreachable = DagsterUserCodeUnreachableError("connection refused")
    for error in (unreachable, unreachable, ValueError("something else"), unreachable, unreachable):
        try:
            raise RuntimeError("a tick has failed") from error
        except RuntimeError:
            outages.process(sys.exc_info(), logger, "Sensor tick caught an error")
    said = [record.message for record in caplog.records]
    away = "the code server does not answer; sensors go on once it does"
    assert said == [away, "Sensor tick caught an error", away]
    assert "ValueError: something else" in caplog.text


def test_a_daemon_that_is_told_to_stop_says_nothing(daemon: Daemon) -> None:
    before = daemon.said
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(60)
    assert daemon.said == before
