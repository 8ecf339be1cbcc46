"""Forgets the oldest runs that sensors have started: one a second is 11 GB of events a day.

    python -m pipelines.home.forget

What a person started stays; what failed stays for a month, as the ticks do that failed; and so does the run that last
made each partition of each asset, without which that would count as never made. Nothing of it touches the tables: they
remember every step by themselves.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.storage.tags import SENSOR_NAME_TAG

RUNS_KEPT = 2000  # of each sort: those that ended well or were canceled, and those that failed
FAILED_KEPT = timedelta(days=30)  # long enough to be looked into; `retention` in dagster.yaml keeps their ticks as long
WELL = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED)
FAILED = (dg.DagsterRunStatus.FAILURE,)
AT_ONCE = 200


def forget(instance: dg.DagsterInstance, now: datetime, kept: int = RUNS_KEPT) -> int:
    """Deletes, of the runs that sensors started, all but the newest `kept` of each sort, and those that failed long
    before `now`; returns how many there were.
    """
    needed = set(_newest_makers(instance))
    old = {*_by_sensors(instance, WELL, kept), *_by_sensors(instance, FAILED, kept)}
    old |= set(_by_sensors(instance, FAILED, 0, before=now - FAILED_KEPT))
    for run_id in old - needed:
        instance.delete_run(run_id)
    return len(old - needed)


def _by_sensors(
    instance: dg.DagsterInstance,
    statuses: Sequence[dg.DagsterRunStatus],
    beyond: int,
    before: datetime | None = None,
) -> Iterator[str]:
    """Ids of runs that sensors started and that ended so, newest first, without the first `beyond`."""
    wanted = dg.RunsFilter(statuses=statuses, updated_before=before)
    cursor, seen = None, 0
    while runs := instance.get_runs(wanted, cursor=cursor, limit=AT_ONCE):
        for run in runs:
            seen += SENSOR_NAME_TAG in run.tags
            if SENSOR_NAME_TAG in run.tags and seen > beyond:
                yield run.run_id
        cursor = runs[-1].run_id


def _newest_makers(instance: dg.DagsterInstance) -> Iterator[str]:
    """Ids of the runs that last made each partition of each asset."""
    made = DagsterEventType.ASSET_MATERIALIZATION
    for asset in instance.all_asset_keys():
        newest = instance.event_log_storage.get_latest_storage_id_by_partition(asset, made)
        for record in instance.event_log_storage.get_event_records(
            dg.EventRecordsFilter(made, asset_key=asset, storage_ids=list(newest.values()))
        ):
            yield record.run_id


if __name__ == "__main__":
    with dg.DagsterInstance.get() as opened:
        forgotten = forget(opened, datetime.now(UTC))
        if forgotten:
            print(f"forgot {forgotten} old runs that sensors had started")
