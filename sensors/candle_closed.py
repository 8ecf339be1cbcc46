"""The sensor `candle_closed`: starts the job `advance` when the feed has landed closed candles.

It waits inside its tick, so that a close is noticed within milliseconds; all that has landed by then is one run. Where
nothing landed but the tables say that closes were not learned from (a run was killed), it starts a run for those.
"""

import time
from datetime import UTC, datetime

import dagster as dg

from hindsight.exchange.landing import Landing
from hindsight.market.streams import from_ms
from hindsight.settings import load
from hindsight.store.inference_tables import unlearned
from resources.warehouse import WarehouseResource
from sensors.runs import reason_to_wait

LONGEST_TICK_SECONDS = 20
PAUSE_SECONDS = 0.01
JOB = "advance"


@dg.sensor(job_name=JOB, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def candle_closed(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Starts a run as soon as closed candles have landed, and one for closes that a killed run has left."""
    deadline = time.monotonic() + LONGEST_TICK_SECONDS
    landing, reason = Landing(load().landing_path), None
    looked_at_tables = False
    while time.monotonic() < deadline:
        candles = [path.name for path in landing.segments() if path.name.endswith("-candles.jsonl")]
        if candles or not looked_at_tables:
            reason = reason_to_wait(context.instance, JOB, datetime.now(UTC))
            if reason is None and candles:
                return _run(context, candles[-1], from_ms(int(candles[-1].split("-")[0])), leave_pivots=True)
            if reason is None:
                looked_at_tables = True
                with WarehouseResource().open().reading() as con:
                    left = unlearned(con, load().streams, load().models)
                if left is not None:
                    return _run(context, f"left {left.isoformat()}", left, leave_pivots=False)
            else:
                time.sleep(5 * PAUSE_SECONDS)  # asking for runs costs milliseconds, looking into a folder does not
        time.sleep(PAUSE_SECONDS)
    return dg.SkipReason(reason or f"no closed candle has landed in the last {LONGEST_TICK_SECONDS} s")


def _run(context: dg.SensorEvaluationContext, event: str, moment: datetime, *, leave_pivots: bool) -> dg.SensorResult:
    """A run for `event`; of a second one for the same event (the first did not get it done), the key says so."""
    last, _, tries = (context.cursor or "").partition("#")
    attempt = int(tries) + 1 if last == event else 0
    tags = {"hindsight/trigger": "candle", "hindsight/event_time": moment.isoformat()}
    request = dg.RunRequest(
        run_key=f"{event}#{attempt}" if attempt else event,
        run_config={"ops": {"take_up_predict_settle_train": {"config": {"leave_pivots": leave_pivots}}}},
        tags=tags
        | {"hindsight/streams": ", ".join(map(str, load().streams)), "hindsight/models": ", ".join(load().models)},
    )
    return dg.SensorResult(run_requests=[request], cursor=f"{event}#{attempt}")
