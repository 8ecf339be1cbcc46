"""Starts runs by forking them from the warm template; where that cannot be had, as Dagster itself does.

Chosen in dagster.yaml. A run is one process, as with Dagster's own launcher, with the same events; only that what it
imports has been imported already.
"""

import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import serialize_value

from pipelines.runs.run_process import process_of, worker_of
from pipelines.runs.warm import Request, TemplateUnavailable, ask, folder_of
from pipelines.runs.worker import report_gone

logger = logging.getLogger("dagster.warm_launcher")  # below `dagster`, whose log the daemon and the webserver show


class WarmRunLauncher(DefaultRunLauncher):
    """One forked process per run, which any process of this machine can look after and end."""

    def launch_run(self, context: LaunchRunContext) -> None:
        run = context.dagster_run
        try:
            if run.job_code_origin is None:
                raise TemplateUnavailable("the run does not say which code it runs")
            pointer = run.job_code_origin.repository_origin.code_pointer
            ask(
                folder_of(self._instance.root_directory),
                Request(
                    run_id=run.run_id,
                    code_pointer=serialize_value(pointer),
                    instance=serialize_value(self._instance.get_ref()),
                    environment=dict(os.environ),
                    folder=os.getcwd(),
                ),
            )
            self._run_ids.add(run.run_id)
        except TemplateUnavailable as reason:
            message = f"the run starts the stock way, because the warm template cannot be had: {reason}"
            logger.warning("%s (run %s)", message, run.run_id)
            self._instance.report_engine_event(message, run)
            super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Interrupts the run, which then cleans up and ends as canceled; True where it runs no more or is told so."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        worker = worker_of(self._instance, run_id)
        if worker is None and GRPC_INFO_TAG in run.tags:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        if worker is None or not worker.process.send(signal.SIGTERM):
            run = self._instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                report_gone(self._instance, run, "The process of this run was gone already.")
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of the run lives, wherever it was started on this machine."""
        process = process_of(self._instance, run)
        if process is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "nobody has noted which process it runs in")
        if process.is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(process.pid))
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process (pid {process.pid}) is gone")

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> "WarmRunLauncher":
        return cls(inst_data=inst_data)
