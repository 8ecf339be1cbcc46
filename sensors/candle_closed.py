"""The sensor `candle_closed`: starts the job `advance` when the feed has landed closed candles.

It waits inside its tick, so that a close is noticed within milliseconds; all that has landed by then is one run. Where
nothing lands any more but a close that was stored live was never learned from (its run was killed), it starts a run for
that. Backfilled history starts nothing.
"""

import time
from datetime import UTC, datetime

import dagster as dg

from hindsight.errors import WarehouseLocked
from hindsight.exchange.landing import Landing
from hindsight.market.streams import from_ms
from hindsight.settings import load
from hindsight.store.inference_tables import left_unlearned
from hindsight.store.warehouse import Warehouse
from sensors.runs import about, reason_to_wait

ADVANCE, TRAIN = "advance", "train_on_pivot"
TICK_SECONDS = 20.0
QUIET_SECONDS = 5.0  # until the tables are asked what was left: the next close usually comes first
PAUSE_SECONDS = 0.01
MANY_SEGMENTS = 500  # of books and trades, that wait for a candle no longer
PATIENCE_SECONDS = 2.0


@dg.sensor(
    job_name=ADVANCE,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a run as soon as closed candles have landed, and one for a close that a killed run has left.",
)
def candle_closed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    return wait_for_candles(context.instance, context.cursor or "", TICK_SECONDS, QUIET_SECONDS)


def wait_for_candles(
    instance: dg.DagsterInstance, cursor: str, tick_seconds: float, quiet_seconds: float
) -> dg.SensorResult | dg.SkipReason:
    """One tick of the sensor. The cursor is the event that the last run was for, and how often it was tried."""
    started = quiet_since = time.monotonic()
    landing, reason, has_asked = Landing(load().landing_path), None, False
    while time.monotonic() - started < tick_seconds:
        newest, count = landing.waiting()
        if newest is None and count >= MANY_SEGMENTS:
            newest = landing.segments()[-1].name
        if newest is not None:
            reason = reason_to_wait(instance, ADVANCE, datetime.now(UTC))
            if reason is None:
                return _run(newest, from_ms(int(newest.split("-")[0])), cursor, leave_pivots=True)
            quiet_since, has_asked = time.monotonic(), False
            time.sleep(4 * PAUSE_SECONDS)  # asking for runs costs milliseconds, looking into a folder does not
        elif not has_asked and time.monotonic() - quiet_since >= quiet_seconds:
            has_asked = True
            left = _left(instance)
            if left is not None:
                return _run(f"left {left.isoformat()}", left, cursor, leave_pivots=False)
        time.sleep(PAUSE_SECONDS)
    return dg.SkipReason(reason or f"no closed candle has landed in the last {tick_seconds:g} s")


def _left(instance: dg.DagsterInstance) -> datetime | None:
    """The newest close that was stored live and not learned from, unless a run is just about to learn from it."""
    if any(reason_to_wait(instance, job, datetime.now(UTC)) for job in (ADVANCE, TRAIN)):
        return None
    settings = load()
    # Whoever holds the file makes nobody miss a close: the next quiet moment comes.
    warehouse = Warehouse(
        path=settings.warehouse_path, lock_timeout_seconds=PATIENCE_SECONDS, queue_timeout_seconds=PATIENCE_SECONDS
    )
    try:
        with warehouse.reading() as con:
            return max(left_unlearned(con, settings.predicted_streams, settings.models).values(), default=None)
    except WarehouseLocked:
        return None


def _run(event: str, moment: datetime, cursor: str, *, leave_pivots: bool) -> dg.SensorResult:
    """A run for `event`. Where the last one was for the same and did not get it done, the run key says which try it is:
    of two runs with one key Dagster starts only the first.
    """
    last, _, tries = cursor.partition("#")
    attempt = int(tries) + 1 if last == event else 0
    request = dg.RunRequest(
        run_key=f"{event}#{attempt}",
        run_config={"ops": {"take_up_predict_settle_train": {"config": {"leave_pivots": leave_pivots}}}},
        tags=about("candle", moment, map(str, load().streams)),
    )
    return dg.SensorResult(run_requests=[request], cursor=request.run_key)
