"""The sensors that call a person, on a real instance, real failed runs and a real webhook."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.health_checks import QUESTIONS
from hindsight.errors import HistoryOutOfOrder
from hindsight.health.alerts import standing
from hindsight.health.findings import Finding, calls, follows, ok
from hindsight.health.report import Health, health
from hindsight.settings import Settings, load
from hindsight.store.standings import Standings
from pipelines.definitions import defs
from sensors.alerts import freshness, look, run_failed

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # by Apprise, see tests/test_alerts.py
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
READ = Standings(streams=(), learners=(), books=())
FEED = calls("feed", "feed", "dead", "Start it.", {})
LATE = calls("candles", "binance ETH/USDT 1m", "late", "See the runs.", {})
HEALING = follows("candles", "binance ETH/USDT 1m", "late", "It heals.", {})
WELL = ok("candles", "binance ETH/USDT 1m", "In time.", {})


@dg.op
def take_up() -> None:
    raise HistoryOutOfOrder("binance ETH/USDT 1m [2024-01]: history would be inserted")


@dg.job
def advance() -> None:
    take_up()


@dg.op
def done() -> None: ...


@dg.job(name="advance")
def advance_at_last() -> None:
    done()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink) -> Settings:
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HINDSIGHT_ALERT_URLS", sink.url())
    return load()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


class Looks:
    """One look of `freshness` after another, thirty seconds apart."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.cursor: str | None = None
        self.now = NOW

    def at(self, *findings: Finding, tables: Standings | None = READ) -> dg.SensorResult:
        found = Health(now=self.now, findings=findings, tables=tables)
        result = look(self.settings, self.instance, self.cursor, found, self.now)
        self.cursor, self.now = result.cursor, self.now + timedelta(seconds=30)
        return result


@pytest.fixture
def looks(settings: Settings, instance: dg.DagsterInstance) -> Looks:
    return Looks(settings, instance)


def reason(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def tick(instance: dg.DagsterInstance, cursor: str | None) -> str | None:
    """One tick of `run_failed`, as the daemon evaluates it; its cursor."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    return run_failed.evaluate_tick(context).cursor


def test_both_sensors_are_on_by_default_and_known_to_dagster():
    assert {run_failed.default_status, freshness.default_status} == {dg.DefaultSensorStatus.RUNNING}
    assert {"run_failed", "freshness"} <= {sensor.name for sensor in defs.get_repository_def().sensor_defs}
    assert freshness.minimum_interval_seconds == 30


# run_failed ----------------------------------------------------------------------------------------------------------


def test_a_run_that_failed_is_told_with_its_job_its_error_and_what_it_was_about(
    settings: Settings, instance: dg.DagsterInstance, sink
):
    cursor = tick(instance, None)  # what failed before the sensor was first on is history
    tags = {"hindsight/event_time": "2024-03-01T00:01:00+00:00", "hindsight/streams": "binance ETH/USDT 1m"}
    failed = advance.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
    cursor = tick(instance, cursor)
    (received,) = sink.received
    assert received["title"] == "Hindsight: run of advance failed: HistoryOutOfOrder"
    assert received["type"] == "failure"
    for said in (failed.run_id, *tags.values(), "history would be inserted"):
        assert said in received["message"]
    tick(instance, cursor)
    assert len(sink.received) == 1


def test_runs_that_fail_of_the_same_thing_again_and_again_are_one_alert(
    settings: Settings, instance: dg.DagsterInstance, sink
):
    cursor = tick(instance, None)
    for _ in range(4):
        advance.execute_in_process(instance=instance, raise_on_error=False)
        cursor = tick(instance, cursor)
    assert len(sink.received) == 1
    (told,) = standing(settings).values()
    assert told.held_back == 3


def test_the_alert_of_a_failed_run_ends_when_its_job_succeeds(
    settings: Settings, instance: dg.DagsterInstance, looks: Looks, sink
):
    cursor = tick(instance, None)
    advance.execute_in_process(instance=instance, raise_on_error=False)
    tick(instance, cursor)
    looks.now = datetime.now(UTC)
    assert "over" not in reason(looks.at(WELL))
    advance_at_last.execute_in_process(instance=instance)
    assert reason(looks.at(WELL)).endswith("over: run of advance failed: HistoryOutOfOrder")
    assert sink.received[-1]["title"] == "Hindsight: recovered: run of advance failed: HistoryOutOfOrder"


def test_runs_that_were_canceled_or_succeeded_are_told_to_nobody(
    settings: Settings, instance: dg.DagsterInstance, sink
):
    cursor = tick(instance, None)
    advance_at_last.execute_in_process(instance=instance)
    run = instance.create_run_for_job(advance_at_last)
    instance.report_run_canceled(run)
    tick(instance, cursor)
    assert sink.received == []


# freshness -----------------------------------------------------------------------------------------------------------


def test_a_home_that_was_never_live_is_passed_over_with_that_reason(looks: Looks, sink):
    result = looks.at(tables=None)
    assert reason(result) == "nothing was ever live here"
    assert result.asset_events == []
    assert sink.received == []


def test_what_needs_a_person_at_two_looks_in_a_row_is_told_and_so_is_its_end(looks: Looks, sink):
    assert reason(looks.at(FEED)) == "looked at 1 things: the feed dead"
    assert sink.received == []
    assert reason(looks.at(FEED)) == "looked at 1 things: the feed dead; told: trouble with the feed"
    looks.at(FEED)
    assert [each["message"] for each in sink.received] == ["dead: Start it."]
    assert reason(looks.at(WELL)).endswith("none is late or dead; over: trouble with the feed")
    assert sink.received[-1]["type"] == "success"


def test_what_is_well_again_at_the_next_look_is_told_to_nobody(looks: Looks, sink):
    """A machine that wakes up finds everything late for some seconds."""
    for finding in (LATE, WELL, LATE, WELL):
        looks.at(finding)
    assert sink.received == []


def test_what_heals_by_itself_calls_nobody_and_does_not_end_an_alert_either(looks: Looks, sink):
    for finding in (HEALING, HEALING, LATE, LATE, HEALING):
        looks.at(finding)
    assert [each["title"] for each in sink.received] == ["Hindsight: trouble with candles of binance ETH/USDT 1m"]
    looks.at(WELL)
    assert len(sink.received) == 2


def test_while_the_tables_cannot_be_read_nothing_is_said_to_be_over(looks: Looks, sink):
    looks.at(LATE)
    looks.at(LATE)
    looks.at(calls("home", "warehouse", "dead", "Close that program.", {}), tables=None)
    assert len(sink.received) == 1


def test_the_checks_are_shown_when_a_verdict_changes_and_once_an_hour(looks: Looks):
    shown = [bool(looks.at(finding).asset_events) for finding in (WELL, WELL, LATE, LATE, WELL, WELL)]
    assert shown == [True, False, True, False, True, False]
    looks.now += timedelta(hours=1)
    assert looks.at(WELL).asset_events
    assert not looks.at(WELL).asset_events


def test_what_a_sensor_reports_without_a_run_is_the_state_of_the_check(looks: Looks, instance: dg.DagsterInstance):
    key = dg.AssetCheckKey(dg.AssetKey("candles"), "late_candles")
    for finding, expected in ((LATE, "FAILED"), (WELL, "SUCCEEDED")):
        for event in looks.at(finding).asset_events:
            instance.report_runless_asset_event(event)
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.status.value == expected
    assert instance.get_runs() == []


def test_a_tick_looks_at_the_real_home_and_takes_a_moment(
    settings: Settings, instance: dg.DagsterInstance, beat: Callable[..., None], sink
):
    beat(settings, NOW, local_ms=int((datetime.now(UTC) - timedelta(minutes=5)).timestamp() * 1000))
    first = freshness.evaluate_tick(dg.build_sensor_context(instance=instance))
    assert first.run_requests == []
    assert "the feed dead" in (first.skip_message or "")
    assert {event.check_name for event in first.asset_events} == set(QUESTIONS)
    second = freshness.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=first.cursor))
    assert (second.skip_message or "").endswith("told: trouble with the feed")
    assert second.asset_events == []
    assert json.loads(second.cursor or "")["calls"] == ["the feed"]
    (received,) = sink.received
    assert "hindsight up" in received["message"]
    assert calls_of(health(settings, NOW + timedelta(minutes=5))) == ["the feed"]


def calls_of(found: Health) -> list[str]:
    return [finding.name for finding in found.findings if finding.needs_a_person]
