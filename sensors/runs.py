"""What the sensors share: whether a run of their job may start now, and what its tags say."""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg

from hindsight.settings import load

IN_FLIGHT = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
LONGEST_BACKOFF_SECONDS = 60
LOOKED_AT = 8  # runs back
LAUNCH_SECONDS = 120.0  # as start_timeout_seconds in dagster.yaml, which says nothing of runs that nobody launched


def reason_to_wait(instance: dg.DagsterInstance, job: str, now: datetime) -> str | None:
    """Why no run of `job` should be started now; None where nothing speaks against it.

    At most one run of a kind is in flight, and after n failures in a row the next run waits 2^n seconds.
    """
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=LOOKED_AT)
    records = [record for record in records if not _was_never_launched(record, now)]
    if records and records[0].dagster_run.status in IN_FLIGHT:
        return f"run {records[0].dagster_run.run_id[:8]} is in flight"
    failures = 0
    for record in records:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures:
        return None
    ended = datetime.fromtimestamp(records[0].end_time or now.timestamp(), UTC)
    passed = max((now - ended).total_seconds(), 0.0)  # the clock may have been set back
    left = min(2**failures, LONGEST_BACKOFF_SECONDS) - passed
    run = records[0].dagster_run.run_id[:8]
    return f"{failures} runs in a row failed, the last one {run}: waiting {left:.0f} s more" if left > 0 else None


def _was_never_launched(record: dg.RunRecord, now: datetime) -> bool:
    """Whether whoever created the run was killed before it launched it."""
    waits = (now - record.create_timestamp).total_seconds()
    return record.dagster_run.status == dg.DagsterRunStatus.NOT_STARTED and waits > LAUNCH_SECONDS


def about(trigger: str, event_time: datetime, streams: Iterable[str]) -> dict[str, str]:
    """Run tags that say what started a run, and what it is about."""
    return {
        "hindsight/trigger": trigger,
        "hindsight/event_time": f"{event_time:%Y-%m-%d %H:%M:%S} UTC",  # short enough for the UI's list of runs
        "hindsight/streams": ", ".join(dict.fromkeys(streams)),
        "hindsight/models": ", ".join(load().models),
    }
