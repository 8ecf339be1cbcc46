"""`hindsight up` as a user has it: a moving market, runs at every close, a UI; and each of its parts killed in turn."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from hindsight.settings import load
from pipelines.home.instance import prepare
from pipelines.runs.processes import Process
from tests.pipelines.conftest import live_in, until

# At sixty times the usual pace, a candle closes every second.
QUICK = {
    "SYMBOLS": "ETH/USDT",
    "VENUE_SPEED": "60",
    "BOOKS": "false",
    "FIRST_CANDLES": "60",
    "PREDICT_EVERY": "5",
    "BATCH_SIZE": "8",
}
ALL = ("venue", "feed", "code", "template", "daemon", "webserver")
MARKS = {
    "venue": "hindsight venue",
    "feed": "hindsight feed",
    "code": "dagster api grpc",
    "template": "pipelines.runs.template",
    "daemon": "pipelines.home.daemon",
    "webserver": "dagster_webserver",
}
SECONDS = 150.0


@dataclass(frozen=True)
class Up:
    """A running `hindsight up`, and what of it can be seen from outside."""

    process: subprocess.Popen[bytes]
    output: Path
    home: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def address(self) -> str:
        until(lambda: "the UI opens at" in self.said, f"the address of the UI is said; so far {self.said}", SECONDS)
        return re.findall(r"the UI opens at (http://\S+);", self.said)[0]

    def processes(self) -> dict[str, list[Process]]:
        """Every process that lives with this home, by its command line."""
        found: dict[str, list[Process]] = {}
        for folder in Path("/proc").iterdir():
            try:
                if f"HINDSIGHT_HOME={self.home}\0".encode() in (folder / "environ").read_bytes() + b"\0":
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    process = Process.of(int(folder.name))
                    if process.is_alive and process.pid != os.getpid():
                        found.setdefault(line, []).append(process)
            except (OSError, ValueError):  # no process, or gone meanwhile, or somebody else's
                continue
        return found

    def part(self, name: str) -> Process | None:
        """The oldest process of a part: runs have the command line of the template that they are forked from."""
        found = [each for line, each in self.processes().items() if MARKS[name] in line]
        return min((process for each in found for process in each), key=lambda process: process.started, default=None)

    def answers(self) -> bool:
        """Whether the UI does, and knows the definitions."""
        query = b'{"query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"}'
        asked = urllib.request.Request(f"{self.address}/graphql", query, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                return bool(json.load(answer)["data"]["repositoriesOrError"].get("nodes"))
        except OSError:
            return False

    def succeeded(self, since: float = 0.0) -> list[dg.RunRecord]:
        """Runs that a sensor started after `since` and that ended well."""
        with dg.DagsterInstance.get() as instance:
            wanted = dg.RunsFilter(job_name="advance", statuses=[dg.DagsterRunStatus.SUCCESS])
            return [each for each in instance.get_run_records(wanted, limit=20) if (each.start_time or 0.0) > since]


@contextmanager
def running(home: Path, folder: Path, *options: str) -> Iterator[Up]:
    output = folder / "output"
    command = [sys.executable, "-m", "hindsight", "up", "--port", "0", *options]
    with output.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        up = Up(process, output, home)
        try:
            yield up
        finally:
            process.kill()
            for group in up.processes().values():
                for each in group:
                    each.send(signal.SIGKILL)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    with pytest.MonkeyPatch.context() as patch:
        home = live_in(folder / "home", patch)
        for name, value in QUICK.items():
            patch.setenv(f"HINDSIGHT_{name}", value)
        prepare(load())  # so that this process finds the instance too
        with running(home, folder) as started:
            yield started


def test_candles_that_close_start_runs_and_the_ui_knows_them(up: Up) -> None:
    until(up.answers, "the UI answers", SECONDS)
    until(up.succeeded, f"a sensor's run has ended well; so far {up.said}", SECONDS)
    assert all(up.part(name) for name in ALL)


def test_a_second_one_on_the_same_home_is_refused(up: Up) -> None:
    command = [sys.executable, "-m", "hindsight", "up", "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert second.returncode == 1
    assert f"found `hindsight up` running there as process {up.process.pid}" in second.stderr


@pytest.mark.parametrize("name", ALL)
def test_a_part_that_is_killed_comes_back_and_runs_go_on(up: Up, name: str) -> None:
    until(lambda: up.part(name), f"{name} runs", SECONDS)
    before, killed_at = up.part(name), time.time()
    assert before is not None
    before.send(signal.SIGKILL)
    until(lambda: up.part(name) not in (None, before), f"{name} runs again; so far {up.said}", SECONDS)
    until(lambda: up.succeeded(killed_at), f"runs end well without {before}; so far {up.said}", SECONDS)
    until(up.answers, "the UI answers", SECONDS)


def test_ctrl_c_ends_all_of_it_and_leaves_no_run_unfinished(up: Up) -> None:
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert "everything is stopped" in up.said
    until(lambda: not up.processes(), f"nothing is left of {up.processes()}", 5)
    with dg.DagsterInstance.get() as instance:
        assert all(run.is_finished for run in instance.get_runs())


def test_with_the_stock_launcher_it_works_too_and_nothing_outlives_its_death(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**QUICK, "RUN_LAUNCHER": "stock"}.items():
        monkeypatch.setenv(f"HINDSIGHT_{name}", value)
    prepare(load())
    with running(home, tmp_path) as up:
        until(up.succeeded, f"a sensor's run has ended well; so far {up.said}", SECONDS)
        assert up.part("template") is None
        up.process.kill()
        # A run in flight ends by itself; nobody starts another.
        until(lambda: not up.processes(), f"nothing is left of {up.processes()}", 60)


def test_an_archive_needs_no_feed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beat: Callable[..., None]
) -> None:
    monkeypatch.setenv("HINDSIGHT_SOURCE", f"archive:{tmp_path}")
    prepare(load())
    beat(load(), datetime.now(UTC))  # of a feed that ran here once
    with running(home, tmp_path) as up:
        until(up.answers, "the UI answers", SECONDS)
        assert f"no feed: nothing new comes out of archive:{tmp_path}" in up.said
        assert up.part("feed") is None
        assert up.part("venue") is None
        assert not json.loads(load().heartbeat_path.read_text())["is_wanted"]
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(60) == 0
        until(lambda: not up.processes(), f"nothing is left of {up.processes()}", 5)


def test_a_port_that_is_taken_is_refused_before_anything_starts(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "hindsight", "up", "--port", str(port)]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert refused.returncode == 1
    assert f"expected to open the UI at port {port}" in refused.stderr
