"""Dagster's SQLite storage without what it does over and over: 0.1 s less per run, here.

The files are Dagster's own, and its stock classes go on reading and writing them. But those open and close a file for
every event; load all migrations that there ever were to learn what the newest is called, five times per run; and make
the tables of each run's file one by one. Here files stay open, one that carries a version is taken to be whole, and a
run's file starts as a copy of an empty one.
"""

import logging
import os
import shutil
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import dagster
from dagster._core.event_api import EventHandlerFn
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
    SqliteEventLogStorageWatchdog,
)
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool
from watchdog.events import FileSystemEvent
from watchdog.observers import Observer

from hindsight.store.lock import held
from pipelines.home.asked_once import AskedOnce

logger = logging.getLogger(__name__)
OPEN_FILES = 8  # of runs, in one process
SETTLED_SECONDS = 0.01  # far longer than it takes a write to the log to become one that can be read


class QuickSqliteStorage(DagsterSqliteStorage):
    """Runs, events and schedules in SQLite files below a folder."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        history, schedules = os.path.join(base_dir, "history"), os.path.join(base_dir, "schedules")
        if not _has_version(Path(schedules, "schedules.db")):  # the last one to be made
            with held(Path(base_dir, "tables")):  # two at once leave tables that no Dagster can open
                super().__init__(base_dir, inst_data)
        self.base_dir, self._inst_data = base_dir, inst_data
        self._run_storage = QuickRuns(create_db_conn_string(history, "runs"))
        self._event_log_storage = QuickEvents(os.path.join(history, "runs", ""))
        self._schedule_storage = QuickSchedules(create_db_conn_string(schedules, "schedules"))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: SqliteStorageConfig
    ) -> "QuickSqliteStorage":
        return cls.from_local(inst_data=inst_data, **config_value)


class _StaysOpen:
    """Connects to the one file of a storage over an engine that is kept."""

    _conn_string: str

    @cached_property
    def _engine(self) -> Engine:
        return _open(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        self._engine.dispose()


class QuickRuns(_StaysOpen, AskedOnce, SqliteRunStorage):
    """Runs and their tags."""


class QuickSchedules(_StaysOpen, SqliteScheduleStorage):
    """Schedules, sensors and their ticks."""


class QuickEvents(SqliteEventLogStorage):
    """The events of each run in a file of its own, and what concerns assets in one index."""

    @cached_property
    def _engines(self) -> OrderedDict[str, Engine]:
        return OrderedDict()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engines.pop(shard, None) or self._opened(shard)
            self._engines[shard] = engine
            if len(self._engines) > OPEN_FILES:
                self._engines.popitem(last=False)[1].dispose()
            with engine.begin() as connection:
                yield connection

    def _opened(self, shard: str) -> Engine:
        path = Path(self.path_for_shard(shard))
        if not path.exists() and shard != INDEX_SHARD_NAME:
            self._copy_blank(path)
        engine = _open(self.conn_string_for_shard(shard))
        if not _has_version(path):
            self._initdb(engine)
        return engine

    def _copy_blank(self, path: Path) -> None:
        """Gives a run the file of one without events, unless another process is first."""
        blank = Path(self._base_dir).with_name(f"blank run of {dagster.__version__}")
        if not blank.exists():
            draft = blank.with_name(f"{blank.name}.{os.getpid()}")
            self._initdb(create_engine(f"sqlite:///{draft}", poolclass=NullPool))
            draft.replace(blank)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        shutil.copyfile(blank, draft)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    def watch(self, run_id: str, cursor: str | None, callback: EventHandlerFn) -> None:
        if not self._obs:
            self._obs = Observer()
            self._obs.start()
        watchdog = _Watchdog(self, run_id, callback, cursor)
        self._watchers[run_id][callback] = (watchdog, self._obs.schedule(watchdog, self._base_dir, recursive=True))
        watchdog.look()  # at what was stored since the page was read and before anybody watched

    def delete_events(self, run_id: str) -> None:
        """Deletes the run's file too, which Dagster's own class leaves behind empty."""
        super().delete_events(run_id)
        with self._db_lock:
            self._engines.pop(run_id).dispose()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path_for_shard(run_id)}{suffix}").unlink(missing_ok=True)

    def dispose(self) -> None:
        while self._engines:
            self._engines.popitem()[1].dispose()
        super().dispose()


class _Watchdog(SqliteEventLogStorageWatchdog):
    """Tells the UI's page of a run of each event. A file that stays open does not change; its write-ahead log does, a
    moment before what was written there can be read. A run may be silent for minutes after an event that was missed."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._looking = Lock()

    @property
    def patterns(self) -> list[str]:
        return [self._log_path, f"{self._log_path}-wal"]

    def on_modified(self, event: FileSystemEvent) -> None:
        time.sleep(SETTLED_SECONDS)
        self.look()

    def look(self) -> None:
        """Tells what is new. Raises nothing, for that would end the thread that tells every page: what could not be
        read comes with the next event."""
        with self._looking:
            try:
                self._process_log()
            except Exception:
                logger.exception("run %s: its page may be behind", self._run_id)


def _open(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _trust_the_write_ahead_log)
    return engine


def _trust_the_write_ahead_log(connection: Any, _: object) -> None:
    # A power cut may take the last events with it, and never the file; https://sqlite.org/pragma.html#pragma_synchronous
    connection.execute("pragma synchronous = normal")


def _has_version(path: Path) -> bool:
    """Whether Dagster has made all tables of the file: it writes down their version last."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(path, timeout=SQLITE_BUSY_TIMEOUT_SECONDS)) as connection:
        try:
            return connection.execute("select version_num from alembic_version").fetchone() is not None
        except sqlite3.OperationalError:  # no such table
            return False
