"""What `hindsight up` runs: the UI, the daemon, the code that both share, the warm template, the feed and its venue.

The definitions are loaded once, by a code server of its own, and by the template that runs are forked from. Every part
starts again by itself when it dies; runs in flight are forked from the template and go on meanwhile.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from hindsight.errors import AlreadyRunning
from hindsight.exchange.alone import alone
from hindsight.exchange.heartbeat import note_wanted
from hindsight.settings import Settings, make_home
from pipelines.home.instance import CHECKOUT, open_instance
from pipelines.runs import warm
from pipelines.runs.run_process import PID
from pipelines.up.feeding import has_venue, market_parts
from pipelines.up.possible import refuse_the_impossible
from pipelines.up.supervise import Part, Supervisor

LOCATION = "hindsight"
CODE_THREADS = 32  # of the code server: a sensor that waits in its tick keeps one busy
RUNS_END_SECONDS, RUNS_CANCEL_SECONDS = 5.0, 10.0
FORGET_SECONDS = 600.0
QUIET = ("--log-level", "warning")


def up(settings: Settings, port: int, *, feed: bool) -> None:
    """Runs all of it until Ctrl-C or SIGTERM.

    Raises AlreadyRunning where it runs already, or the port is taken, and SettingRefused for what can never work.
    """
    refuse_the_impossible(feed=feed)
    with _home_to_itself(settings), _scratch() as scratch, open_instance(settings) as instance:
        port = _free(port)
        os.environ[warm.OWNER] = str(os.getpid())
        supervisor = Supervisor()
        market = market_parts(settings, supervisor.say) if feed else []
        note_wanted(settings.heartbeat_path, is_wanted=bool(market))
        supervisor.say(f"the UI opens at http://127.0.0.1:{port}; Ctrl-C stops everything")
        supervisor.run([*market, *_dagster_parts(settings, instance, scratch, port, has_market=bool(market))])
        supervisor.say("stopping")
        supervisor.stop("forget", "daemon")
        _end_runs(supervisor, instance)
        supervisor.stop("feed", "webserver", "code", "template", "venue")
        warm.stop(warm.folder_of(instance.root_directory))
        supervisor.say("everything is stopped")


def _dagster_parts(
    settings: Settings, instance: dg.DagsterInstance, scratch: Path, port: int, *, has_market: bool
) -> list[Part]:
    code, workspace = scratch / "code", scratch / "workspace.yaml"
    place = {"host": "localhost", "socket": str(code), "location_name": LOCATION}
    workspace.write_text(yaml.dump({"load_from": [{"grpc_server": place}]}))
    folder, is_warm = warm.folder_of(instance.root_directory), settings.run_launcher == "warm" and warm.IS_POSSIBLE

    def is_settled() -> bool:  # the settings are what they will be
        return has_venue(settings) or not has_market

    def has_code() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(code)) == 0

    def serve_code() -> list[str]:
        code.unlink(missing_ok=True)
        definitions = ["--python-file", str(CHECKOUT / "pipelines" / "definitions.py"), "--attribute", "defs"]
        place = ["--working-directory", str(CHECKOUT), "--location-name", LOCATION, "--socket", str(code)]
        return _python("dagster", "api", "grpc", *definitions, *place, "--max-workers", str(CODE_THREADS), *QUIET)

    web = ["--workspace", str(workspace), "--port", str(port), "--dagster-log-level", "warning"]
    return [
        Part(name="code", command=serve_code, is_wanted=is_settled, stop_seconds=1, may_be_waiting=True),
        Part(
            name="template",
            command=lambda: _python("pipelines.runs.template", str(folder), str(os.getpid())),
            # Whoever launches a run starts one too, where there is none.
            is_wanted=lambda: is_warm and is_settled() and warm.template_of(folder) is None,
            stop_seconds=RUNS_CANCEL_SECONDS + 2,
        ),
        Part(
            name="daemon",
            command=lambda: _python("pipelines.home.daemon", "run", "--workspace", str(workspace), *QUIET),
            is_wanted=has_code,
            stop_seconds=1,
            may_be_waiting=True,
        ),
        Part(name="webserver", command=lambda: _python("dagster_webserver", *web), is_wanted=has_code),
        Part(
            name="forget",
            command=lambda: _python("pipelines.home.forget"),
            is_wanted=has_code,
            again_seconds=FORGET_SECONDS,
        ),
    ]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _end_runs(supervisor: Supervisor, instance: dg.DagsterInstance) -> None:
    """Lets the runs in flight end by themselves, and cancels those that take longer."""

    def in_flight() -> list[dg.DagsterRun]:
        runs = instance.get_runs(dg.RunsFilter(statuses=[*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.CANCELING]))
        return [run for run in runs if PID not in run.tags]  # those of the command line are not ours

    if supervisor.wait_until(lambda: not in_flight(), RUNS_END_SECONDS):
        return
    for run in in_flight():
        supervisor.say(f"run {run.run_id} ({run.job_name}) is canceled; started again, it goes on where it stopped")
        instance.run_launcher.terminate(run.run_id)
    supervisor.wait_until(lambda: not in_flight(), RUNS_CANCEL_SECONDS)


@contextmanager
def _home_to_itself(settings: Settings) -> Iterator[None]:
    make_home(settings)
    with alone(settings.home / "up.lock") as other:
        if other is not None:
            raise AlreadyRunning(
                f"expected to have {settings.home} alone, found `hindsight up` running there as process {other}; "
                "stop that one first, or set HINDSIGHT_HOME to another folder"
            )
        yield


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder with a short name: that of a socket has at most 107 bytes, whatever the home is called."""
    with tempfile.TemporaryDirectory(prefix="hindsight-") as folder:
        yield Path(folder)


def _free(port: int) -> int:
    """`port`, or for 0 any free one."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise AlreadyRunning(
                f"expected to open the UI at port {port}, and cannot: {error.strerror}; "
                f"stop what listens there, or choose another with --port {port + 1}"
            ) from None
        return trial.getsockname()[1]
