"""Which process a run lives in, and the end of those runs that can live in none any more."""

import dagster as dg
from dagster._core.events import DagsterEventType

from pipelines.runs.processes import Process, booted_at
from pipelines.runs.warm import Worker, folder_of
from pipelines.runs.worker import PROCESS, report_gone

PID = "hindsight/pid"  # run tag: the process that a run of the command line lives in
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def worker_of(instance: dg.DagsterInstance, run_id: str) -> Worker | None:
    """The worker of a run that was forked from the warm template."""
    return Worker.read(folder_of(instance.root_directory) / "runs" / run_id)


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Process | None:
    """From the record of a forked run, the tag of a run of the command line, or what the run said as it began; None
    where nobody has noted it.
    """
    worker = worker_of(instance, run.run_id)
    if worker is not None:
        return worker.process
    if PID in run.tags:
        record = instance.get_run_record_by_id(run.run_id)
        return Process.noted(run.tags[PID], at=record.create_timestamp.timestamp() if record else 0.0)
    for event in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        metadata = event.get_dagster_event().engine_event_data.metadata
        for name in (PROCESS, "pid"):
            if name in metadata:
                return Process.noted(str(metadata[name].value), at=event.timestamp)
    return None


def close_dead(instance: dg.DagsterInstance) -> list[str]:
    """Ends the runs that storage takes for running and whose process is gone; returns their ids.

    After a power cut nobody else does, and the sensors would wait for them for ever. Where no process was noted, a run
    is left alone that may have begun since this machine was last started.
    """
    closed = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        process = process_of(instance, record.dagster_run)
        is_gone = record.update_timestamp.timestamp() < booted_at() if process is None else not process.is_alive
        run = instance.get_run_by_id(record.dagster_run.run_id) if is_gone else None
        if run is not None and not run.is_finished:
            report_gone(instance, run, _said(run))
            closed.append(run.run_id)
    return closed


def _said(run: dg.DagsterRun) -> str:
    if PID in run.tags:
        return "the process of this run was killed; the same command goes on from there"
    return "the process of this run is gone; what it left undone is done by the next run"
