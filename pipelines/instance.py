"""The Dagster instance below HINDSIGHT_HOME: where runs, materialisations and logs are kept."""

import os
from pathlib import Path

import dagster as dg

from hindsight.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[1]
WORKSPACE = CHECKOUT / "workspace.yaml"
TEMPLATE = CHECKOUT / "dagster.yaml"
PID = "hindsight/pid"  # run tag: the process that a run of the command line lives in


def prepare(settings: Settings) -> Path:
    """The folder of the instance, made where missing, and named to Dagster and to every process started later."""
    home = settings.home.resolve()
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        (folder / "dagster.yaml").write_text(TEMPLATE.read_text())
    os.environ["HINDSIGHT_HOME"], os.environ["DAGSTER_HOME"] = str(home), str(folder)
    return folder


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """The instance, its databases created, and free of runs whose process is gone."""
    prepare(settings)
    instance = dg.DagsterInstance.get()
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        if PID in run.tags and not _is_alive(int(run.tags[PID])):
            instance.report_run_failed(run, "the process of this run was killed; the same command goes on from there")
    return instance


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
