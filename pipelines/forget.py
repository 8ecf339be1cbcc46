"""Forgets the oldest runs that sensors have started: one a second is 11 GB of events a day.

    python -m pipelines.forget

What a person started stays, and what failed; and the run that last made each partition of each asset, without which
that would count as never made. Nothing of it touches the tables: they remember every step by themselves.
"""

from collections.abc import Iterator

import dagster as dg
from dagster._core.events import DagsterEventType
from dagster._core.storage.tags import SENSOR_NAME_TAG

RUNS_KEPT = 2000
AT_ONCE = 200


def forget(instance: dg.DagsterInstance, kept: int = RUNS_KEPT) -> int:
    """Deletes all but the newest `kept` of the runs that sensors started and that ended well; how many there were."""
    needed = set(_newest_makers(instance))
    old = [run_id for run_id in _ended_well(instance, kept) if run_id not in needed]
    for run_id in old:
        instance.delete_run(run_id)
    return len(old)


def _ended_well(instance: dg.DagsterInstance, beyond: int) -> Iterator[str]:
    """Ids of runs that sensors started and that ended well, newest first, without the first `beyond`."""
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED])
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
        forgotten = forget(opened)
        if forgotten:
            print(f"forgot {forgotten} old runs that sensors had started")
