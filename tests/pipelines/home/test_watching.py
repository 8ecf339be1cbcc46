"""What the UI's page of a run shows while it runs: each event, as soon as the run's process has stored it."""

import time
from pathlib import Path
from typing import Any

import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.utils import make_new_run_id
from sqlalchemy.exc import OperationalError

from pipelines.home.sqlite import QuickSqliteStorage
from tests.pipelines.conftest import until


def test_each_event_that_another_process_stores_is_heard_of(tmp_path: Path) -> None:
    run_id, heard = make_new_run_id(), []
    webserver, run = QuickSqliteStorage(str(tmp_path)), QuickSqliteStorage(str(tmp_path))
    try:
        run.event_log_storage.store_event(_message(run_id, "before anybody looked"))
        webserver.event_log_storage.watch(run_id, None, lambda entry, cursor: heard.append(entry.user_message))
        for message in ("first", "second"):
            run.event_log_storage.store_event(_message(run_id, message))
            until(lambda said=message: heard[-1:] == [said], f"{message!r} is heard of; so far {heard}")
    finally:
        webserver.event_log_storage.dispose()
        run.event_log_storage.dispose()
    assert heard == ["before anybody looked", "first", "second"]


def test_an_event_that_was_stored_before_anybody_watched_needs_no_other_one_to_be_heard_of(tmp_path: Path) -> None:
    """A page reads what there is, and then has the rest told; a step may be silent for minutes after it has begun."""
    run_id, heard = make_new_run_id(), []
    webserver, run = QuickSqliteStorage(str(tmp_path)), QuickSqliteStorage(str(tmp_path))
    try:
        run.event_log_storage.store_event(_message(run_id, "read"))
        page = webserver.event_log_storage.get_records_for_run(run_id)
        run.event_log_storage.store_event(_message(run_id, "between"))
        webserver.event_log_storage.watch(run_id, page.cursor, lambda entry, cursor: heard.append(entry.user_message))
        until(lambda: heard, "what was stored in between is heard of")
    finally:
        webserver.event_log_storage.dispose()
        run.event_log_storage.dispose()
    assert heard == ["between"]


def test_an_event_that_cannot_be_read_at_once_ends_the_view_of_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id, heard, broken = make_new_run_id(), [], []
    webserver, run = QuickSqliteStorage(str(tmp_path)), QuickSqliteStorage(str(tmp_path))
    events, read = webserver.event_log_storage, webserver.event_log_storage.get_records_for_run

    def locked(*given: Any) -> Any:
        broken.append(given)
        raise OperationalError("select", {}, Exception("database is locked"))

    try:
        run.event_log_storage.store_event(_message(run_id, "before anybody looked"))
        monkeypatch.setattr(events, "get_records_for_run", locked)
        events.watch(run_id, None, lambda entry, cursor: heard.append(entry.user_message))
        broken.clear()
        run.event_log_storage.store_event(_message(run_id, "first"))
        until(lambda: broken, "the event is asked for")
        monkeypatch.setattr(events, "get_records_for_run", read)
        run.event_log_storage.store_event(_message(run_id, "second"))
        until(lambda: heard[-1:] == ["second"], f"the next one is heard of; so far {heard}")
    finally:
        events.dispose()
        run.event_log_storage.dispose()
    assert heard == ["before anybody looked", "first", "second"]
    assert "its page may be behind" in caplog.text


def _message(run_id: str, text: str) -> EventLogEntry:
    return EventLogEntry(error_info=None, user_message=text, level=20, run_id=run_id, timestamp=time.time())
