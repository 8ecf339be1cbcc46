"""A lock file that queues: one holder among all threads and processes, freed by the kernel when the holder dies.

`flock` alone lets the one who just released take the lock again before the next in line has woken up. So there are two
files: whoever wants the lock first waits in `.queue`, steps forward to `.lock`, and only then lets the next one up.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)
_held = threading.local()
LONG_SECONDS = 1.0
PAUSE_SECONDS = 0.01


@contextmanager
def held(path: Path, patience_seconds: float | None = None) -> Iterator[None]:
    """Holds the lock beside `path` until the block ends; blocks, without polling, until its turn has come.

    The holder's process id stands in the lock file, and whoever had to wait long logs it. With `patience_seconds` it
    queues for no longer than that, looking every now and then, and raises TimeoutError. Raises RuntimeError where this
    thread holds the lock already: it would wait for itself for ever.
    """
    key = (os.getpid(), os.path.abspath(path))  # a forked child holds nothing of what this thread held
    mine: set[tuple[int, str]] = _held.__dict__.setdefault("paths", set())
    if key in mine:
        raise RuntimeError(
            f"{path.name} is already open in this thread: reading() and writing() do not nest; "
            "pass the open connection on, or leave the outer block first"
        )
    # A descriptor per use: flock belongs to the open file, so threads of one process exclude each other too.
    with _opened(lock_path(path)) as lock:
        with _opened(path.with_name(path.name + ".queue")) as queue:
            if patience_seconds is None:
                fcntl.flock(queue, fcntl.LOCK_EX)
                _wait_for(lock, path)
            else:
                deadline = time.monotonic() + patience_seconds
                _try_for(queue, deadline, path)
                _try_for(lock, deadline, path)
        mine.add(key)
        try:
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
            yield
        finally:
            mine.discard(key)
            # Said aloud rather than left to close(): a forked child may hold a copy of the descriptor.
            fcntl.flock(lock, fcntl.LOCK_UN)


def lock_path(path: Path) -> Path:
    """The lock file that stands beside `path`."""
    return path.with_name(path.name + ".lock")


def holder(path: Path) -> int | None:
    """The process id of the last one to hold the lock beside `path`; None where nobody ever has."""
    try:
        return int(lock_path(path).read_text())
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_for(lock: int, deadline: float, path: Path) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path.name} is held by process {holder(path)}") from None
            time.sleep(PAUSE_SECONDS)


def _wait_for(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held_by, started = holder(path), time.monotonic()
        logger.debug("waiting for %s, which process %s holds", path.name, held_by)
        fcntl.flock(lock, fcntl.LOCK_EX)
        waited = time.monotonic() - started
        # A line is an event in the log of a run: waits that nobody notices are not worth one.
        if waited > LONG_SECONDS:
            logger.info("waited %.1f s for %s, which process %s held", waited, path.name, held_by)
