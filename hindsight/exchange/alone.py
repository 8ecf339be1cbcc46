"""A lock file for who must be the only one: held while a process lives, and naming it to those who come later."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[str | None]:
    """Holds the lock file at `path` until the block ends: None, or the id of the process that holds it already."""
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other = None
        except BlockingIOError:
            lock.seek(0)
            other = lock.read().strip()
        if other is None:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        yield other
