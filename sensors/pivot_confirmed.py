"""The sensor `pivot_confirmed`: starts the job `train_on_pivot` when a live run has materialised a level-2 pivot.

It waits inside its tick for materialisations of `pivots`. Those of a backfill start nothing: their training is part of
that backfill.
"""

import time
from datetime import UTC, datetime

import dagster as dg

from hindsight.settings import load
from sensors.runs import about, reason_to_wait

TRAIN = "train_on_pivot"
TICK_SECONDS = 20.0
PAUSE_SECONDS = 0.05
AT_ONCE = 100


@dg.sensor(
    job_name=TRAIN,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts one run for all level-2 pivots that were confirmed live since the last one.",
)
def pivot_confirmed(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    return wait_for_pivots(context.instance, context.cursor, TICK_SECONDS)


def wait_for_pivots(instance: dg.DagsterInstance, cursor: str | None, tick_seconds: float) -> dg.SensorResult:
    """One tick of the sensor. The cursor is the last materialisation that was looked at."""
    started, predicted = time.monotonic(), set(map(str, load().predicted_streams))
    seen = int(cursor) if cursor else _newest(instance)
    reason, passed_over = None, 0
    while time.monotonic() - started < tick_seconds:
        later = dg.AssetRecordsFilter(asset_key=dg.AssetKey("pivots"), after_storage_id=seen)
        records = instance.fetch_materializations(later, limit=AT_ONCE, ascending=True).records
        confirmed = [pivot for pivot in map(_confirmed_live, records) if pivot is not None and pivot[0] in predicted]
        if confirmed:
            reason = reason_to_wait(instance, TRAIN, datetime.now(UTC))
            if reason is None:
                return _run(confirmed, records[-1].storage_id)
        elif records:
            seen, passed_over = records[-1].storage_id, passed_over + len(records)
        time.sleep(PAUSE_SECONDS)
    reason = reason or f"no level-2 pivot was confirmed live in the last {tick_seconds:g} s"
    if passed_over:
        reason += f"; passed over {passed_over} materialisations of a backfill, of other levels or of other streams"
    return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=str(seen))


def _newest(instance: dg.DagsterInstance) -> int:
    """The last materialisation there is: what came before the sensor was first on is history."""
    records = instance.fetch_materializations(dg.AssetKey("pivots"), limit=1).records
    return records[0].storage_id if records else 0


def _confirmed_live(record: dg.EventLogRecord) -> tuple[str, str] | None:
    """Stream and close of a level-2 pivot that was confirmed live; None for any other materialisation."""
    materialization = record.asset_materialization
    metadata = {name: value.value for name, value in materialization.metadata.items()} if materialization else {}
    if metadata.get("mode") != "live" or not metadata.get("level_2"):
        return None
    return str(metadata["stream"]), datetime.fromtimestamp(float(str(metadata["closed"])), UTC).isoformat()


def _run(confirmed: list[tuple[str, str]], storage_id: int) -> dg.SensorResult:
    request = dg.RunRequest(
        run_key=", ".join(f"{stream} {close}" for stream, close in confirmed),
        run_config={
            "ops": {"validate_trends_and_train": {"config": {"confirmed": [list(each) for each in confirmed]}}}
        },
        tags=about(
            "pivot", datetime.fromisoformat(max(close for _, close in confirmed)), (stream for stream, _ in confirmed)
        ),
    )
    return dg.SensorResult(run_requests=[request], cursor=str(storage_id))
