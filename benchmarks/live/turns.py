"""Who held the lock of the DuckDB file, from when to when: watched from outside, so that nothing is measured slower.

    python -m benchmarks.live.turns HOME FILE

Whoever takes the lock writes its id into the lock file, and closes that when it lets go (hindsight/store/lock.py): the
kernel tells of both through inotify(7). It tells of two closings in a row once, so /proc/locks says whether one of them
was that of the holder. One JSON line per turn, until it is told to stop.
"""

import ctypes
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from benchmarks.live.processes import kind_of
from hindsight.store.lock import holder, lock_path

IN_MODIFY, IN_CLOSE_WRITE = 0x2, 0x8
EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


def watch(warehouse: Path, out: TextIO) -> None:
    """Writes every turn to `out` as it ends."""
    holds: tuple[int, float, str] | None = None  # who, since when, what
    for mask in _events(lock_path(warehouse)):
        now = time.time()
        if mask & IN_MODIFY:
            if holds is not None:  # let go before the next one stepped forward
                _write(out, *holds, now)
            pid = holder(warehouse) or 0
            holds = (pid, now, kind_of(pid))
        elif holds is not None and not _is_held(lock_path(warehouse)):
            _write(out, *holds, now)
            holds = None


def _is_held(path: Path) -> bool:
    """Whether anybody holds a flock on the file (proc_locks(5))."""
    file = f":{path.stat().st_ino} "
    return any("FLOCK" in line and file in line for line in Path("/proc/locks").read_text().splitlines())


def _write(out: TextIO, pid: int, since: float, kind: str, until: float) -> None:
    print(json.dumps({"pid": pid, "kind": kind, "since": since, "until": until}), file=out, flush=True)


def _events(path: Path) -> Iterator[int]:
    """The masks of what happens to the file, as it happens."""
    libc = ctypes.CDLL(None, use_errno=True)
    while not path.exists():
        time.sleep(0.1)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(path), IN_MODIFY | IN_CLOSE_WRITE) < 0:
        raise OSError(ctypes.get_errno(), f"{path} cannot be watched")
    while True:
        data = os.read(descriptor, 4096)
        while data:
            _, mask, _, length = EVENT.unpack_from(data)
            data = data[EVENT.size + length :]
            yield mask


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a") as file:
        watch(Path(sys.argv[1]) / "hindsight.duckdb", file)
