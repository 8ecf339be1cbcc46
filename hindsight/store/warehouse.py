"""The warehouse: the one DuckDB file that holds everything, opened late and closed early behind a fair lock."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb

from hindsight.errors import HindsightError, WarehouseLocked, WarehouseNewer, WarehouseUnusable
from hindsight.store import lock
from hindsight.store.engine import attach, detach

VERSION = 5  # of schema.sql; raise it with every change there
LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Warehouse:
    """The DuckDB file at `path`. Both ways in wait for their turn; readers in other processes queue as well."""

    path: Path
    lock_timeout_seconds: float
    queue_timeout_seconds: float | None = None  # for its turn among our own processes; None: until it comes

    def __post_init__(self) -> None:
        if not 0 < self.lock_timeout_seconds < math.inf:
            raise ValueError(f"lock_timeout_seconds must be positive and finite, found {self.lock_timeout_seconds}")

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that refuses to write. Creates the warehouse where there is none yet.

        Raises WarehouseLocked, WarehouseNewer or WarehouseUnusable.
        """
        with self._turn():
            if self.path.exists():
                with self._attached(read_only=True) as con:
                    if _version(con) == VERSION:
                        yield con
                        return
            with self._attached(read_only=False) as con:
                self._prepare(con)
            with self._attached(read_only=True) as con:
                yield con

    @contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection whose every change lands when the block ends, and none of them if it ends in an exception.

        Raises WarehouseLocked, WarehouseNewer or WarehouseUnusable.
        """
        with self._turn(), self._attached(read_only=False) as con:
            self._prepare(con)
            con.begin()
            try:
                yield con
                con.commit()
            except BaseException:
                _roll_back(con)
                raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The lock is held, and DuckDB's own complaints about the file come out as errors of this project."""
        with ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock.held(self.path, self.queue_timeout_seconds))
            except TimeoutError as error:
                raise WarehouseLocked(
                    f"others were at the warehouse {self.path} for {self.queue_timeout_seconds:g} s: {error}"
                ) from error
            except OSError as error:
                raise WarehouseUnusable(
                    f"the folder {self.path.parent} of the warehouse cannot be written: {error}; "
                    "give it to this user, or set HINDSIGHT_HOME to another folder"
                ) from error
            try:
                yield
            except duckdb.Error as error:
                found = self._explained(error)
                if found is None:
                    raise
                raise found from error

    def _prepare(self, con: duckdb.DuckDBPyConnection) -> None:
        """Creates what this version of the schema needs; refuses what a newer one wrote."""
        found = _version(con)
        if found is not None and found > VERSION:
            raise WarehouseNewer(
                f"expected the warehouse {self.path} in version {VERSION} or older, found version {found}: "
                "it was written by a newer Hindsight; update Hindsight, or set HINDSIGHT_HOME to another folder"
            )
        if found != VERSION:
            con.begin()
            if found == 2:  # its training steps knew no trigger but two, and a check cannot be changed
                con.execute("alter table training_steps rename to older_steps")
            if _has_column(con, "checkpoints", "prequential_loss"):  # older than version 3: no other metric was known
                con.execute("alter table checkpoints rename prequential_loss to metric_value")
            con.execute(files("hindsight.store").joinpath("schema.sql").read_text())
            if found == 2:
                con.execute("insert into training_steps by name select * from older_steps")
                con.execute("drop table older_steps")
            con.execute("delete from warehouse_version")
            con.execute("insert into warehouse_version values ($version)", {"version": VERSION})
            con.commit()

    @contextmanager
    def _attached(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Opens the file, again and again while a program that knows nothing of our lock file holds it."""
        con = self._attach(read_only=read_only)
        try:
            yield con
        finally:
            detach(con)

    def _attach(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self.lock_timeout_seconds
        pause = 0.005
        while True:
            try:
                return attach(self.path, read_only=read_only)
            except duckdb.IOException as error:
                left = deadline - time.monotonic()
                if "Could not set lock" not in str(error) or left <= 0:
                    raise
                time.sleep(min(pause, left))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _explained(self, error: duckdb.Error) -> HindsightError | None:
        """What a person can do about it; None for an error that is not about the file (a wrong query, say)."""
        text = str(error)
        if "Could not set lock" in text:
            return WarehouseLocked(
                f"another program held the warehouse {self.path} for {self.lock_timeout_seconds:g} s: {text}\n"
                "close that program (a duckdb shell, a notebook) and run this again; "
                "the setting lock_timeout_seconds says how long to wait"
            )
        if "storage version" in text or "newer version of DuckDB" in text:
            return WarehouseNewer(
                f"the warehouse {self.path} was written by a newer DuckDB than {duckdb.__version__}: {text}\n"
                "install that version, or set HINDSIGHT_HOME to another folder"
            )
        if "No space left" in text or "File too large" in text or "Disk quota" in text:
            return WarehouseUnusable(
                f"the disk has no room for the warehouse {self.path}; nothing of this write was kept, what stood there "
                f"before is intact: {text}\nfree some space and run this again"
            )
        is_broken = isinstance(error, duckdb.FatalException) or "orrupt" in text
        if is_broken or (isinstance(error, duckdb.IOException) and self.path.name in text):
            return WarehouseUnusable(
                f"expected a whole DuckDB file at {self.path} that this user may open, found: {text}\n"
                "put back a copy, or move the file away: the next run starts a new one"
            )
        return None


def _version(con: duckdb.DuckDBPyConnection) -> int | None:
    try:
        rows = con.execute("select version from warehouse_version").fetchall()
    except duckdb.CatalogException:
        return None
    return rows[0][0] if rows else None


def _has_column(con: duckdb.DuckDBPyConnection, table: str, column: str) -> bool:
    named = "select 1 from duckdb_columns() where table_name = $table and column_name = $column"
    return bool(con.execute(named, {"table": table, "column": column}).fetchall())


def _roll_back(con: duckdb.DuckDBPyConnection) -> None:
    # A failed commit has rolled back already; the error that led here says more.
    with suppress(duckdb.Error):
        con.rollback()
