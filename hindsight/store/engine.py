"""DuckDB itself, started once for all turns of a process: each attaches the file, and takes it off again.

Starting DuckDB takes the processor many times as long as opening a file with it does. It runs in one thread: rows stay
in the order in which they come, so that reads need no sort, and handing small queries to several threads costs more
than it saves.
"""

import atexit
import os
from contextlib import suppress
from pathlib import Path

import duckdb

NAME = "warehouse"  # of the file, while it is attached
_started: dict[tuple[int, Path], duckdb.DuckDBPyConnection] = {}  # the newest, by process: it survives no fork
atexit.register(_started.clear)  # duckdb complains on stderr about what is alive when an interpreter ends


def attach(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection to the file at `path`, made where it is missing; `detach` closes both.

    Raises what `duckdb.connect` raises. Nobody else in this process may have the file attached.
    """
    con = _engine(path).cursor()
    try:
        con.execute(f"attach $path as {NAME}{' (read_only)' if read_only else ''}", {"path": str(path)})
        con.execute(f"use {NAME}")
    except BaseException:
        detach(con)
        raise
    return con


def detach(con: duckdb.DuckDBPyConnection) -> None:
    """Takes the file off, which writes it down whole, and closes the connection."""
    try:
        con.execute("use memory")
        con.execute(f"detach database if exists {NAME}")
    except duckdb.Error:  # an engine that broke keeps what it holds until it is gone
        _started.clear()
    except BaseException:
        _started.clear()
        raise
    finally:
        with suppress(duckdb.Error):
            con.close()


def _engine(path: Path) -> duckdb.DuckDBPyConnection:
    key = (os.getpid(), path)
    found = _started.get(key)
    if found is None:
        found = duckdb.connect(config={"temp_directory": f"{path}.tmp", "threads": 1})
        found.execute("set global TimeZone = 'UTC'")
        for older in [each for each in _started if each[0] == key[0]]:
            del _started[older]
        _started[key] = found
    return found
