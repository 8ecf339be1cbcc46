"""A run in its own process, forked from the warm template: what `dagster api execute_run` does after its imports."""

import os
import sys
import traceback
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, MetadataValue
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.definitions.repository_definition import RepositoryDefinition
from dagster._core.events import EngineEventData
from dagster._core.instance import InstanceRef
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.impl import core_execute_run
from dagster._serdes import deserialize_value
from dagster._utils.interrupts import capture_interrupts

from pipelines.runs.processes import Process
from pipelines.runs.warm import Request, Worker

PROCESS = "process"  # in the metadata of a run's first event: what names the process
LOADED: dict[CodePointer, RepositoryDefinition] = {}  # by the template, before it forked


class LoadedRepository(ReconstructableRepository):
    """A repository that this process has in memory already."""

    def get_definition(self) -> RepositoryDefinition:
        return LOADED.get(self.pointer) or super().get_definition()


def work(request: Request, records: Path) -> int:
    """Executes the run to its end, whatever that is, and returns the exit code of its process."""
    worker = Worker(process=Process.this(), instance=request.instance)
    with capture_interrupts():
        if not worker.write(records / request.run_id):
            print(f"run {request.run_id} has a process already", file=sys.stderr)
            return 0
        os.environ.clear()
        os.environ.update(request.environment)
        try:
            with DagsterInstance.from_ref(deserialize_value(request.instance, InstanceRef)) as instance:
                return _execute(instance, request.run_id)
        except BaseException:
            traceback.print_exc()
            return 1


def _execute(instance: DagsterInstance, run_id: str) -> int:
    run = instance.get_run_by_id(run_id)
    if run is None or run.job_code_origin is None:
        raise RuntimeError(f"run {run_id} is not in the instance's storage, or does not say which code it runs")
    pid, code, job = os.getpid(), 0, _job(run.job_code_origin)
    # What Dagster notes of a process, and by what else it is known again where another has its id.
    noted = {**EngineEventData.in_process(pid).metadata, PROCESS: MetadataValue.text(str(Process.this()))}
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData(metadata=noted))
    try:
        for _ in core_execute_run(job, run, instance, inject_env_vars=True):
            pass
    except BaseException:  # core_execute_run has written down what went wrong before it raised
        code = 1
    instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)
    return code


def _job(origin: JobPythonOrigin) -> ReconstructableJob:
    home = origin.repository_origin
    return LoadedRepository(
        home.code_pointer, home.container_image, home.executable_path, home.entry_point, home.container_context
    ).get_reconstructable_job(origin.job_name)


def report_end(run_id: str, instance_ref: str, how: str) -> int:
    """Writes down that the run's process is gone, where the run itself could not any more."""
    with DagsterInstance.from_ref(deserialize_value(instance_ref, InstanceRef)) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return 0
        report_gone(instance, run, how)
    return 0


def report_gone(instance: DagsterInstance, run: DagsterRun, how: str) -> None:
    """Ends a run whose process has ended without saying so: canceled where that was asked for, else failed."""
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, how)
    else:
        instance.report_run_failed(run, how)
