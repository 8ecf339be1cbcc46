"""The sensors: what wakes them, what they pass over and say so, and that a second tick starts nothing twice."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from assets.partitions import partition_key
from hindsight.exchange.landing import Landing
from hindsight.ingest import ingest
from hindsight.market.streams import to_ms
from hindsight.settings import load
from hindsight.store.warehouse import Warehouse
from pipelines.definitions import defs
from sensors.candle_closed import LONGEST_WAIT_SECONDS, candle_closed, tried, wait_for_candles
from sensors.pivot_confirmed import pivot_confirmed, wait_for_pivots
from sensors.runs import reason_to_wait

START = datetime(2024, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A real instance on SQLite, and an empty home beside it."""
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def land(minute: int, count: int = 1) -> Path:
    opens = [START + n * MINUTE for n in range(minute, minute + count)]
    rows = [
        {"stream": str(load().streams[0]), "open_time_ms": to_ms(moment), "known_ms": None, "closed_by": "flag"}
        | {"open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0, "volume": 1.0}
        for moment in opens
    ]
    now = to_ms(opens[-1] + MINUTE) + 80
    return Landing(load().landing_path).write("candles", rows, now, now)


def requested(result: dg.SensorResult | dg.SkipReason) -> dg.RunRequest:
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    return request


def reason(result: dg.SensorResult | dg.SkipReason) -> str:
    skip = result if isinstance(result, dg.SkipReason) else result.skip_reason
    assert skip is not None
    return skip.skip_message or ""


def tick(instance: dg.DagsterInstance, cursor: str = "") -> dg.SensorResult | dg.SkipReason:
    return wait_for_candles(instance, cursor, 0.2, 0.1)


def materialise(instance: dg.DagsterInstance, minute: int, **metadata: object) -> None:
    stream, close = load().streams[0], START + minute * MINUTE
    said = {"stream": str(stream), "closed": dg.MetadataValue.timestamp(close), **metadata}
    instance.report_runless_asset_event(
        dg.AssetMaterialization("pivots", partition=partition_key(stream, START), metadata=said)
    )


def test_both_sensors_are_on_by_default_and_their_jobs_are_there():
    assert {candle_closed.default_status, pivot_confirmed.default_status} == {dg.DefaultSensorStatus.RUNNING}
    jobs = {job.name for job in defs.get_repository_def().get_all_jobs()}
    assert {candle_closed.job_name, pivot_confirmed.job_name} <= jobs


# candle_closed -------------------------------------------------------------------------------------------------------


def test_a_landed_candle_starts_a_run_that_says_what_it_is_about(instance: dg.DagsterInstance):
    path = land(0)
    request = requested(tick(instance))
    assert request.run_key == f"{path.name}#0"
    assert request.tags["hindsight/trigger"] == "candle"
    assert request.tags["hindsight/event_time"] == "2024-03-01 00:01:00 UTC"
    assert request.tags["hindsight/streams"] == ", ".join(map(str, load().streams))
    assert request.tags["hindsight/models"] == "transformer"
    assert request.run_config["ops"]["take_up_predict_settle_train"]["config"] == {"leave_pivots": True}


def test_all_that_has_landed_is_one_run(instance: dg.DagsterInstance):
    land(0)
    newest = land(1)
    assert requested(tick(instance)).run_key == f"{newest.name}#0"


def test_two_ticks_at_once_ask_for_the_same_run_key(instance: dg.DagsterInstance):
    """Trap 7: of two runs with one key Dagster starts one. So also a tick whose cursor was lost with the daemon."""
    land(0)
    assert requested(tick(instance)).run_key == requested(tick(instance)).run_key


def test_a_run_that_left_its_candles_where_they_were_is_tried_again_under_another_key(instance: dg.DagsterInstance):
    land(0)
    first = tick(instance)
    assert isinstance(first, dg.SensorResult)
    assert requested(tick(instance, first.cursor or "")).run_key == requested(first).run_key.replace("#0", "#1")


def test_trades_and_books_alone_start_nothing(instance: dg.DagsterInstance):
    trade = {"symbol": "ETH/USDT", "venue": "simulated", "trade_id": 1, "time_ms": 1, "price": 1.0, "amount": 1.0}
    Landing(load().landing_path).write("trades", [trade | {"side": "buy"}], to_ms(START), to_ms(START))
    assert reason(tick(instance)) == "no closed candle has landed in the last 0.2 s"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
def test_while_a_run_is_in_flight_no_second_one_starts(instance: dg.DagsterInstance, status: dg.DagsterRunStatus):
    land(0)
    run = create_run_for_test(instance, job_name="advance", status=status)
    assert reason(tick(instance)) == f"run {run.run_id[:8]} is in flight"
    instance.report_run_canceled(instance.get_run_by_id(run.run_id))
    assert requested(tick(instance))


def test_a_run_that_was_created_and_never_launched_is_waited_for_no_longer_than_a_launch_takes(
    instance: dg.DagsterInstance,
):
    run = create_run_for_test(instance, job_name="advance", status=dg.DagsterRunStatus.NOT_STARTED)
    now = datetime.now(UTC)
    assert reason_to_wait(instance, "advance", now) == f"run {run.run_id[:8]} is in flight"
    assert reason_to_wait(instance, "advance", now + timedelta(minutes=3)) is None


def test_after_failures_in_a_row_the_next_run_waits_longer_and_longer(instance: dg.DagsterInstance):
    for _ in range(3):
        run = create_run_for_test(instance, job_name="advance", status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run)
    now = datetime.now(UTC)
    waiting = reason_to_wait(instance, "advance", now)
    assert waiting is not None
    assert waiting.startswith("3 runs in a row failed")
    assert reason_to_wait(instance, "advance", now + timedelta(seconds=7)) is not None
    assert reason_to_wait(instance, "advance", now + timedelta(seconds=9)) is None
    done = create_run_for_test(instance, job_name="advance", status=dg.DagsterRunStatus.STARTED)
    instance.handle_new_event(_success(done))
    assert reason_to_wait(instance, "advance", now) is None


def _success(run: dg.DagsterRun) -> dg.EventLogEntry:
    return dg.EventLogEntry(
        error_info=None,
        level="debug",
        user_message="",
        run_id=run.run_id,
        timestamp=datetime.now(UTC).timestamp(),
        job_name=run.job_name,
        dagster_event=dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name, message=""),
    )


def test_a_close_that_was_stored_and_never_learned_from_starts_a_run_once_it_is_quiet(instance: dg.DagsterInstance):
    """Trap 7: the run was killed after its candles were archived; no segment tells of them any more."""
    settings = load()
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5)
    for minute, count in ((0, 3), (3, 1)):
        land(minute, count)
        ingest(warehouse, Landing(settings.landing_path), lambda: START + 4 * MINUTE, max_gap=3)
    request = requested(tick(instance))
    assert request.run_key is not None
    assert request.run_key.startswith("left 2024-03-01T00:04:00+00:00, tried ")
    assert request.run_config["ops"]["take_up_predict_settle_train"]["config"] == {"leave_pivots": False}
    create_run_for_test(instance, job_name="train_on_pivot", status=dg.DagsterRunStatus.STARTED)
    assert isinstance(tick(instance), dg.SkipReason)  # that run may be about to learn from it


def test_what_is_left_again_and_again_is_tried_less_and_less_often_whatever_lands_meanwhile(
    instance: dg.DagsterInstance,
):
    """Each of those runs succeeds: the failure of one model fails no run."""
    settings, stream = load(), load().streams[0]
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5)
    for minute, count in ((0, 3), (3, 1)):
        land(minute, count)
        ingest(warehouse, Landing(settings.landing_path), lambda: START + 4 * MINUTE, max_gap=3)
    first = tick(instance)
    assert isinstance(first, dg.SensorResult)
    cursor = first.cursor or ""
    who = f"transformer of {stream}"
    assert reason(tick(instance, cursor)).startswith(f"{who} did not learn (tries: 1): waiting ")
    newest = land(4)
    landed = tick(instance, cursor)
    assert isinstance(landed, dg.SensorResult)
    assert requested(landed).run_key == f"{newest.name}#0"
    ingest(warehouse, Landing(settings.landing_path), lambda: START + 5 * MINUTE, max_gap=3)
    assert reason(tick(instance, landed.cursor or "")).startswith(f"{who} did not learn (tries: 1): waiting ")
    instant = float(cursor.split("#")[-1])
    earlier = (landed.cursor or "").replace(f"{instant:.0f}", f"{instant - 3:.0f}")
    second = tick(instance, earlier)
    assert isinstance(second, dg.SensorResult)
    asked = [requested(first).run_key, requested(second).run_key]
    assert "did not learn (tries: 2)" in reason(tick(instance, second.cursor or ""))
    elsewhere = (second.cursor or "").replace("transformer", "cnn")
    asked.append(requested(tick(instance, elsewhere)).run_key)
    assert len(set(asked)) == 3  # a key that was there before starts nothing


@pytest.mark.parametrize(
    ("before", "passed", "expected"),
    [
        pytest.param("", 0, (0, 0), id="never tried"),
        pytest.param("a of b#0#0", 0.5, (1, 1.5), id="once"),
        pytest.param("a of b#2#0", 0, (3, 8), id="three times"),
        pytest.param("a of b#2#0", 8, (3, 0), id="long enough"),
        pytest.param("a of b#2#0", -5, (3, 8), id="a clock that was set back"),
        pytest.param("a of b#9000#0", 0, (9001, LONGEST_WAIT_SECONDS), id="very often"),
        pytest.param("a of b#9#0", 2 * LONGEST_WAIT_SECONDS + 1, (0, 0), id="long ago"),
        pytest.param("c of b#9#0", 0, (0, 0), id="somebody else"),
    ],
)
def test_how_long_the_next_try_waits_follows_from_the_cursor_and_the_time(
    before: str, passed: float, expected: tuple[int, float]
):
    assert tried(before, "a of b", datetime.fromtimestamp(passed, UTC)) == pytest.approx(expected)


# pivot_confirmed -----------------------------------------------------------------------------------------------------


def test_level_2_pivots_that_were_confirmed_live_start_one_run(instance: dg.DagsterInstance):
    cursor = wait_for_pivots(instance, None, 0.1).cursor
    materialise(instance, 5, mode="live", level_1=2, level_2=1)
    materialise(instance, 9, mode="live", level_1=1, level_2=0)
    materialise(instance, 11, mode="live", level_1=2, level_2=2)
    result = wait_for_pivots(instance, cursor, 0.3)
    stream, request = str(load().streams[0]), requested(result)
    closes = ["2024-03-01T00:05:00+00:00", "2024-03-01T00:11:00+00:00"]
    lessons = request.run_config["ops"]["validate_trends_and_train"]["config"]["confirmed"]
    assert lessons == [[stream, close] for close in closes]
    assert request.run_key == ", ".join(f"{stream} {close}" for close in closes)
    assert request.tags["hindsight/trigger"] == "pivot"
    assert request.tags["hindsight/event_time"] == "2024-03-01 00:11:00 UTC"
    again = wait_for_pivots(instance, result.cursor, 0.1)
    assert again.run_requests == []
    assert reason(again) == "no level-2 pivot was confirmed live in the last 0.1 s"


def test_backfilled_history_starts_nothing_and_the_reason_says_so(instance: dg.DagsterInstance):
    """Trap 8."""
    cursor = wait_for_pivots(instance, None, 0.1).cursor
    materialise(instance, 5, level_2=40)
    result = wait_for_pivots(instance, cursor, 0.2)
    assert result.run_requests == []
    assert "passed over 1 materialisations of a backfill" in reason(result)
    assert wait_for_pivots(instance, result.cursor, 0.1).run_requests == []


def test_what_came_before_the_sensor_was_first_on_is_history(instance: dg.DagsterInstance):
    materialise(instance, 5, mode="live", level_2=1)
    assert wait_for_pivots(instance, None, 0.1).run_requests == []
