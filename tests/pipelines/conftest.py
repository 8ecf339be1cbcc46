"""Dagster as it runs for users: an instance in a home of its own, a code server, and a launcher; and PostgreSQL."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from hindsight.settings import load
from pipelines.home.instance import open_instance
from pipelines.runs import warm
from pipelines.runs.processes import Process

SMALL = Path(__file__).with_name("small_definitions.py")
SECONDS = 90.0
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation ($run: String!) {
  terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } ... on PythonError { message } }
}
"""


def until(is_so: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Waits for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Launches:
    """Starts and ends runs as the UI does, through GraphQL."""

    workspace: WorkspaceProcessContext

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.workspace.instance

    @property
    def warm(self) -> Path:
        return warm.folder_of(self.instance.root_directory)

    @property
    def template(self) -> Process:
        found = warm.template_of(self.warm)
        assert found is not None, "no template runs"
        return found

    def launch(self, job: str, **config: str) -> str:
        """The id of a run that has been launched; `config` goes to its only op."""
        op = {"noting": "note", "waiting": "wait", "counting": "count_imports"}.get(job, "")
        params = {
            "selector": {"repositoryLocationName": "small", "repositoryName": "__repository__", "jobName": job},
            "runConfigData": {"ops": {op: {"config": config}}} if config else {},
        }
        answer = execute_dagster_graphql(self.workspace.create_request_context(), LAUNCH, {"params": params})
        launched = answer.data["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def terminate(self, run_id: str) -> str:
        """What GraphQL answers to the UI's button."""
        request = self.workspace.create_request_context()
        return execute_dagster_graphql(request, TERMINATE, {"run": run_id}).data["terminateRun"]["__typename"]

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def ended(self, run_id: str, seconds: float = SECONDS) -> dg.DagsterRunStatus:
        """How the run ended."""
        until(lambda: self.run(run_id).is_finished, f"run {run_id} ends", seconds)
        return self.run(run_id).status

    def events(self, run_id: str) -> list[str]:
        """The types of what happened, in order."""
        logs = self.instance.all_logs(run_id)
        return [log.get_dagster_event().event_type_value for log in logs if log.is_dagster_event]

    def messages(self, run_id: str) -> str:
        return "\n".join(log.message for log in self.instance.all_logs(run_id))


def live_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Makes an empty home the one of this process and of those that it starts, until `patch` is undone."""
    for name in [name for name in os.environ if name.startswith("HINDSIGHT_")]:
        patch.delenv(name)
    patch.setenv("HINDSIGHT_HOME", str(folder))
    patch.setenv("HINDSIGHT_MODELS", "transformer")
    patch.setenv("HINDSIGHT_POSTGRES_URL", "")  # put back at the end, as the next: opening an instance sets it
    patch.setenv("DAGSTER_HOME", "")
    return folder


@contextmanager
def launching(definitions: Path = SMALL) -> Iterator[Launches]:
    """The instance of the settings in force over some definitions; at the end nothing of it runs any more."""
    target = PythonFileTarget(
        python_file=str(definitions), attribute="defs", working_directory=str(definitions.parent), location_name="small"
    )
    with open_instance(load()) as instance:
        try:
            with WorkspaceProcessContext(instance, target) as workspace:
                yield Launches(workspace)
        finally:
            warm.stop(warm.folder_of(instance.root_directory))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    return live_in(tmp_path / "home", monkeypatch)


@pytest.fixture
def launches(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[Launches]]:
    """Opens an instance of its own, with some settings."""

    def opened(definitions: Path = SMALL, **settings: str) -> AbstractContextManager[Launches]:
        for name, value in settings.items():
            monkeypatch.setenv(f"HINDSIGHT_{name.upper()}", value)
        return launching(definitions)

    return opened


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    """One instance on SQLite with the warm launcher, for all tests of a file that can do with it."""
    with pytest.MonkeyPatch.context() as patch:
        live_in(tmp_path_factory.mktemp("dagster") / "home", patch)
        with launching() as launches:
            yield launches


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of our own, with an empty database."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path("/usr/local/bin"), Path("/usr/bin")]
    found = [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]
    if not found:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a short name: a socket's has at most 107 bytes
    as_user = {}
    if os.getuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, user)
        as_user = {"user": user, "cwd": "/"}
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_user}
    initdb = [found[0] / "initdb", "-D", data, "-U", "hindsight", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, **quiet)
    settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=60")
    command = [found[0] / "postgres", "-D", data, *(word for each in settings for word in ("-c", each))]
    with subprocess.Popen(command, **quiet) as server:
        try:
            until(lambda: _accepts(folder), "PostgreSQL accepts connections")
            yield f"postgresql://hindsight@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
            shutil.rmtree(folder, ignore_errors=True)


def _accepts(folder: Path) -> bool:
    try:
        psycopg2.connect(host=str(folder), user="hindsight", dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True
