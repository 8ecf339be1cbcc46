"""Alerts, told to a real webhook: each once in a while, their end once, and never in the way of who raises them."""

import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hindsight.health.alerts import Alert, alert, alert_all, recovered, standing
from hindsight.settings import Settings, load

# Apprise imports it to tell images apart; Python 3.13, which has none any more, it spares.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(tmp_path: Path, sink) -> Settings:
    return load(home=tmp_path, alert_urls=(sink.url(),))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens at, and nobody else can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def titles(sink) -> list[str]:
    return [each["title"] for each in sink.received]


def test_an_alert_reaches_the_webhook_and_the_log(settings: Settings, sink, caplog: pytest.LogCaptureFixture):
    assert alert(settings, "feed", "It is dead.", "failure", NOW)
    (received,) = sink.received
    assert received["title"] == "Hindsight: feed"
    assert received["message"] == "It is dead."
    assert received["type"] == "failure"
    assert ("hindsight.health.alerts", logging.ERROR, "ALERT feed: It is dead.") in caplog.record_tuples


def test_without_sinks_it_goes_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert alert(load(home=tmp_path), "feed", "It is dead.", "warning", NOW)
    assert ("hindsight.health.alerts", logging.WARNING, "ALERT feed: It is dead.") in caplog.record_tuples


def test_the_same_alert_is_told_again_after_ten_minutes_then_twenty_then_forty(settings: Settings, sink):
    told = [minute for minute in range(180) if alert(settings, "feed", "It is dead.", "failure", NOW + minute * MINUTE)]
    assert told == [0, 10, 30, 70, 150]
    assert sink.received[1]["message"] == "It is dead.\n(9 more since this was told last)"


def test_what_became_worse_is_told_at_once(settings: Settings):
    assert alert(settings, "candles", "late", "warning", NOW)
    assert not alert(settings, "candles", "late", "warning", NOW + MINUTE)
    assert alert(settings, "candles", "dead", "failure", NOW + 2 * MINUTE)
    assert not alert(settings, "candles", "late", "warning", NOW + 3 * MINUTE)


def test_other_alerts_are_not_held_back_and_come_in_one_message(settings: Settings, sink):
    alert(settings, "feed", "one", "failure", NOW)
    both = [
        Alert(title="feed", body="one"),
        Alert(title="disk", body="two", level="warning"),
        Alert(title="x", body="y"),
    ]
    assert [each.title for each in alert_all(settings, both, NOW + MINUTE)] == ["disk", "x"]
    assert titles(sink)[1:] == ["Hindsight: 2 alerts, the first: disk"]
    assert sink.received[1]["message"] == "disk\ntwo\n\nx\ny"
    assert sink.received[1]["type"] == "failure"


def test_its_end_is_told_once_and_only_where_it_was_told(settings: Settings, sink):
    alert(settings, "feed", "It is dead.", "failure", NOW)
    assert set(standing(settings)) == {"feed"}
    assert recovered(settings, ["feed", "disk"], NOW + 5 * MINUTE) == ["feed"]
    assert recovered(settings, ["feed", "disk"], NOW + 6 * MINUTE) == []
    assert standing(settings) == {}
    assert titles(sink) == ["Hindsight: feed", "Hindsight: recovered: feed"]
    assert sink.received[1]["message"] == "feed: over, after 0:05:00."
    assert sink.received[1]["type"] == "success"


def test_what_comes_and_goes_is_told_once_in_ten_minutes(settings: Settings, sink):
    for minute in range(0, 12, 2):
        alert(settings, "feed", "It is dead.", "failure", NOW + minute * MINUTE)
        recovered(settings, ["feed"], NOW + (minute + 1) * MINUTE)
    assert titles(sink) == ["Hindsight: feed", "Hindsight: recovered: feed"] * 2


def test_two_processes_at_once_tell_it_once(settings: Settings, sink):
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda _: alert(settings, "feed", "It is dead.", "failure", NOW), range(16)))
    assert sum(told) == len(sink.received) == 1


def test_sinks_that_fail_are_logged_with_the_reason_and_the_others_are_reached(
    settings: Settings, sink, closed_port: int, caplog: pytest.LogCaptureFixture
):
    urls = (f"json://127.0.0.1:{closed_port}", sink.url("500"), "nonsense://secret", sink.url())
    assert alert(settings.model_copy(update={"alert_urls": urls}), "feed", "It is dead.", "failure", NOW)
    assert len(sink.received) == 2
    said = "\n".join(record.getMessage() for record in caplog.records if record.name == "hindsight.health.alerts")
    assert "Connection error" in said
    assert "error=500" in said
    assert "entry 3 of the setting alert_urls" in said
    assert "secret" not in said


def test_a_sink_that_never_answers_holds_nobody_up_for_long(settings: Settings, sink, caplog: pytest.LogCaptureFixture):
    started = time.monotonic()
    urls = (sink.url("hang"), sink.url())
    assert alert(settings.model_copy(update={"alert_urls": urls}), "feed", "It is dead.", "failure", NOW)
    assert time.monotonic() - started < 30
    assert any("did not reach" in record.getMessage() for record in caplog.records)
    sink.is_released.set()


def test_a_memory_that_is_torn_or_cannot_be_written_costs_an_alert_too_many_and_no_more(settings: Settings, sink):
    memory = settings.home / "alerts.json"
    memory.write_text('{"feed": {"at": "2024-')
    assert alert(settings, "feed", "It is dead.", "failure", NOW)
    assert not alert(settings, "feed", "It is dead.", "failure", NOW + MINUTE)
    memory.unlink()
    memory.mkdir()
    assert alert(settings, "feed", "It is dead.", "failure", NOW + MINUTE)
    assert len(sink.received) == 2


def test_the_memory_of_what_is_over_does_not_grow(settings: Settings):
    for day in range(20):
        now = NOW + timedelta(days=day)
        alert(settings, f"run {day}", "failed", "failure", now)
        recovered(settings, standing(settings), now + 11 * MINUTE)
    assert (settings.home / "alerts.json").read_text() == "{}"
