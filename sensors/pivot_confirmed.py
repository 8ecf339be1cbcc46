"""The sensor `pivot_confirmed`: starts the job `train_on_pivot` when a live run has materialised a level-2 pivot.

Pivots that a backfill materialised start nothing: their training is part of that backfill.
"""

import time
from datetime import UTC, datetime

import dagster as dg

from hindsight.settings import load
from sensors.runs import reason_to_wait

LONGEST_TICK_SECONDS = 20
PAUSE_SECONDS = 0.05
JOB = "train_on_pivot"
AT_ONCE = 100


@dg.sensor(
    job_name=JOB,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def pivot_confirmed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Starts one run for all level-2 pivots that were confirmed live since the last one."""
    deadline = time.monotonic() + LONGEST_TICK_SECONDS
    cursor = int(context.cursor) if context.cursor else _newest(context.instance)
    reason, passed_over = None, 0
    while time.monotonic() < deadline:
        records = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("pivots"), after_storage_id=cursor),
            limit=AT_ONCE,
            ascending=True,
        ).records
        confirmed = [each for record in records if (each := _confirmed(record)) is not None]
        if confirmed:
            reason = reason_to_wait(context.instance, JOB, datetime.now(UTC))
            if reason is None:
                return _run(confirmed, records[-1].storage_id)
        elif records:
            cursor, passed_over = records[-1].storage_id, passed_over + len(records)
        time.sleep(PAUSE_SECONDS)
    reason = reason or f"no level-2 pivot was confirmed live in the last {LONGEST_TICK_SECONDS} s"
    if passed_over:
        reason += f"; {passed_over} materialisations of pivots were of a backfill, or of level 1 alone"
    return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=str(cursor))


def _newest(instance: dg.DagsterInstance) -> int:
    """The last materialisation there is: what came before the sensor was first on is history."""
    records = instance.fetch_materializations(dg.AssetKey("pivots"), limit=1).records
    return records[0].storage_id if records else 0


def _confirmed(record: dg.EventLogRecord) -> tuple[str, str] | None:
    """Stream and close of a level-2 pivot that was confirmed live; None for any other materialisation."""
    materialization = record.asset_materialization
    metadata = {name: value.value for name, value in materialization.metadata.items()} if materialization else {}
    if metadata.get("mode") != "live" or not metadata.get("level_2"):
        return None
    return str(metadata["stream"]), datetime.fromtimestamp(float(str(metadata["closed"])), UTC).isoformat()


def _run(confirmed: list[tuple[str, str]], storage_id: int) -> dg.SensorResult:
    tags = {
        "hindsight/trigger": "pivot",
        "hindsight/event_time": max(close for _, close in confirmed),
        "hindsight/streams": ", ".join(dict.fromkeys(stream for stream, _ in confirmed)),
        "hindsight/models": ", ".join(load().models),
    }
    request = dg.RunRequest(
        run_key=" ".join(f"{stream} {close}" for stream, close in confirmed),
        run_config={
            "ops": {"validate_trends_and_train": {"config": {"confirmed": [list(each) for each in confirmed]}}}
        },
        tags=tags,
    )
    return dg.SensorResult(run_requests=[request], cursor=str(storage_id))
