"""Processes of this machine, told apart by id, start time and boot: the kernel gives an id that is free to another."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
CLOCK_STEP_SECONDS = 60.0  # by which this machine's clock may have been set since something was noted


def booted_at() -> float:
    """When this machine was last started, in seconds since 1970; 0 where that cannot be told."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform.startswith("linux") else 0.0


@dataclass(frozen=True, slots=True)
class Process:
    """One process, also after it has ended."""

    pid: int
    started: int  # clock ticks after boot; -1 where that cannot be told
    boot: str = field(default_factory=lambda: _boot())

    def __str__(self) -> str:
        """What to note, to know it again by `noted`."""
        return f"{self.pid} {self.started} {self.boot}".strip()

    @classmethod
    def noted(cls, note: str, at: float) -> "Process":
        """The process that `note` names. Where that gives only its id, as Dagster does: the one that had it at `at`, in
        seconds since 1970, when it was noted.
        """
        pid, *rest = note.split()
        if rest:
            return cls(int(pid), int(rest[0]), *rest[1:2])
        found = cls.of(int(pid))
        began = booted_at() + found.started / os.sysconf("SC_CLK_TCK")
        return cls(found.pid, -1) if began > at + CLOCK_STEP_SECONDS else found

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has `pid` now; where there is none, one that is not alive."""
        started = _started(pid)
        return cls(pid, -1 if started is None else started)

    @classmethod
    def this(cls) -> "Process":
        """The one that asks."""
        return cls.of(os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; one that has ended and was not waited for does not."""
        if not sys.platform.startswith("linux"):
            return _exists(self.pid)
        started = _started(self.pid)
        return started is not None and started == self.started and self.boot == _boot()

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False where the process has ended."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def die_with_parent() -> Callable[[], None]:
    """What a child calls before it becomes another program, so that it ends when its parent does, however that ends."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None

    def before_exec() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # it died in between
                os._exit(1)

    return before_exec


def _started(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, counted after the name, which may hold anything; None for the dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@cache
def _boot() -> str:
    """The kernel's name for the time since this machine was last started; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
