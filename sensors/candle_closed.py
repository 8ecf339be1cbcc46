"""The sensor `candle_closed`: starts the job `advance` when the feed has landed closed candles.

It waits inside its tick, so that a close is noticed within milliseconds; all that has landed by then is one run. Where
nothing lands any more but a close that was stored live was never learned from (its run was killed), it starts a run for
that; a model that fails again and again is tried less and less often. Backfilled history starts nothing.
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
LONGEST_WAIT_SECONDS = 300  # a close that lands is taken up at once, with all that is due before it
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
    """One tick of the sensor. The cursor is the event that the last run was for, and how often it was tried; behind a
    bar, the same of what was left, with the instant: candles that land meanwhile change nothing about that."""
    started = quiet_since = time.monotonic()
    landing, reason, has_asked = Landing(load().landing_path), None, False
    landed, _, behind = cursor.partition("|")
    while time.monotonic() - started < tick_seconds:
        newest, count = landing.waiting()
        if newest is None and count >= MANY_SEGMENTS:
            newest = landing.segments()[-1].name
        if newest is not None:
            reason = reason_to_wait(instance, ADVANCE, datetime.now(UTC))
            if reason is None:
                last, _, tries = landed.partition("#")
                key = f"{newest}#{int(tries) + 1 if last == newest else 0}"
                return _run(key, from_ms(int(newest.split("-")[0])), f"{key}|{behind}", leave_pivots=True)
            quiet_since, has_asked = time.monotonic(), False
            time.sleep(4 * PAUSE_SECONDS)  # asking for runs costs milliseconds, looking into a folder does not
        elif not has_asked and time.monotonic() - quiet_since >= quiet_seconds:
            has_asked = True
            left, now = _left(instance), datetime.now(UTC)
            if left:
                who, close = ", ".join(f"{model} of {stream}" for stream, model in left), max(left.values())
                attempt, seconds = tried(behind, who, now)
                if seconds <= 0:
                    behind = f"{who}#{attempt}#{now.timestamp():.0f}"
                    key = f"left {close.isoformat()}, tried {now.isoformat()}"
                    return _run(key, close, f"{landed}|{behind}", leave_pivots=False)
                reason = f"{who} did not learn (tries: {attempt}): waiting {seconds:.0f} s more"
        time.sleep(PAUSE_SECONDS)
    return dg.SkipReason(reason or f"no closed candle has landed in the last {tick_seconds:g} s")


def tried(before: str, who: str, now: datetime) -> tuple[int, float]:
    """How often in a row a run was started for what `who` has left, and how many seconds the next one waits.

    `before` is what the cursor tells of the last one, as who#try#instant. After n of them the next one waits 2^n
    seconds; after one of long ago, or for somebody else, it is the first.
    """
    last, *rest = before.split("#")
    if last != who:
        return 0, 0.0
    attempt, passed = int(rest[0]) + 1, max(now.timestamp() - float(rest[1]), 0.0)  # the clock may have been set back
    if passed > 2 * LONGEST_WAIT_SECONDS:
        return 0, 0.0
    return attempt, min(2 ** min(attempt, 16), LONGEST_WAIT_SECONDS) - passed


def _left(instance: dg.DagsterInstance) -> dict[tuple[str, str], datetime]:
    """By stream and model, the newest close that was stored live and not learned from, unless a run is just about to
    learn from it."""
    if any(reason_to_wait(instance, job, datetime.now(UTC)) for job in (ADVANCE, TRAIN)):
        return {}
    settings = load()
    # Whoever holds the file makes nobody miss a close: the next quiet moment comes.
    warehouse = Warehouse(
        path=settings.warehouse_path, lock_timeout_seconds=PATIENCE_SECONDS, queue_timeout_seconds=PATIENCE_SECONDS
    )
    try:
        with warehouse.reading() as con:
            return left_unlearned(con, settings.predicted_streams, settings.models)
    except WarehouseLocked:
        return {}


def _run(key: str, moment: datetime, cursor: str, *, leave_pivots: bool) -> dg.SensorResult:
    """A run of that key, which no other try has: of two runs with one key Dagster starts only the first."""
    request = dg.RunRequest(
        run_key=key,
        run_config={"ops": {"take_up_predict_settle_train": {"config": {"leave_pivots": leave_pivots}}}},
        tags=about("candle", moment, map(str, load().streams)),
    )
    return dg.SensorResult(run_requests=[request], cursor=cursor)
