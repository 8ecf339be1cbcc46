"""Keeps programs running: starts them in order, restarts what ends, passes on what they say, stops them in order.

One thread and one loop. Whatever becomes of the supervisor, nothing that it started outlives it.
"""

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO

from pipelines.runs.processes import die_with_parent

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0  # before a restart; doubled each time
STEADY_SECONDS = 60.0  # a program that ran this long has not failed again
NAME_WIDTH = 9
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True, kw_only=True)
class Part:
    """One program, and how it is to be kept."""

    name: str
    command: Callable[[], Sequence[str]]  # asked at each start
    is_wanted: Callable[[], bool] = lambda: True  # asked until it starts
    heard: Callable[[str], None] = lambda line: None  # each line that it says
    again_seconds: float | None = None  # for one that ends by itself when it is done: until it starts again
    stop_seconds: float = 5.0  # between SIGTERM and SIGKILL
    may_be_waiting: bool = False  # for so long, and for nothing that matters, that its SIGKILL is not worth a word
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    due_at: float = field(default=0.0, init=False)
    delay: float = field(default=FIRST_DELAY_SECONDS, init=False)


class Supervisor:
    """Runs parts until SIGINT, SIGTERM or SIGHUP."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_told_to_stop = False
        self.selector = selectors.DefaultSelector()
        self.before_exec = die_with_parent()
        woken, self.waker = socket.socketpair()
        woken.setblocking(False)
        self.waker.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno())
        for number in STOPPING:
            signal.signal(number, self._told_to_stop)
        self.selector.register(woken, selectors.EVENT_READ, partial(woken.recv, 64))

    def run(self, parts: Sequence[Part]) -> None:
        """Until told to stop. The parts run on; `stop` ends them."""
        self.parts += parts
        while not self.is_told_to_stop:
            for part in self.parts:
                if part.process is not None and part.process.poll() is not None:
                    self._ended(part, part.process.returncode)
                if part.process is None and time.monotonic() >= part.due_at and part.is_wanted():
                    self._start(part)
            self._listen(0.2)

    def stop(self, *names: str) -> None:
        """Ends these parts one after another, those that do not obey by force."""
        for part in sorted(
            (part for part in self.parts if part.name in names), key=lambda part: names.index(part.name)
        ):
            process, part.process = part.process, None
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            if not self.wait_until(partial(_has_ended, process), part.stop_seconds):
                if not part.may_be_waiting:
                    self.say(f"{part.name} did not stop within {part.stop_seconds:g} s and is killed")
                process.kill()
                process.wait()
            self._listen(0)

    def wait_until(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Whether it came to be so in time; what the parts say meanwhile is passed on."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                return False
            self._listen(0.05)
        return True

    def say(self, line: str, name: str = "hindsight") -> None:
        """One line of output, after the name of who says it."""
        print(f"{name:{NAME_WIDTH}} | {line if sys.stdout.isatty() else COLOUR.sub('', line)}", flush=True)

    def _start(self, part: Part) -> None:
        try:
            part.process = subprocess.Popen(
                part.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches every process of a terminal; the supervisor decides
                preexec_fn=self.before_exec,
            )
        except OSError as error:  # no memory, no more processes
            self._try_again(part, f"cannot start: {error}")
            return
        part.started_at = time.monotonic()
        assert part.process.stdout is not None
        os.set_blocking(part.process.stdout.fileno(), False)
        read = partial(self._read, part, part.process.stdout, bytearray())
        self.selector.register(part.process.stdout, selectors.EVENT_READ, read)

    def _ended(self, part: Part, code: int) -> None:
        part.process = None
        if code == 0 and part.again_seconds is not None:
            part.due_at, part.delay = time.monotonic() + part.again_seconds, FIRST_DELAY_SECONDS
            return
        if time.monotonic() - part.started_at > STEADY_SECONDS:
            part.delay = FIRST_DELAY_SECONDS
        self._try_again(part, f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}")

    def _try_again(self, part: Part, why: str) -> None:
        self.say(f"{part.name} {why}; it starts again in {part.delay:.1f} s")
        part.due_at = time.monotonic() + part.delay
        part.delay = min(2 * part.delay, LONGEST_DELAY_SECONDS)

    def _listen(self, seconds: float) -> None:
        for key, _ in self.selector.select(seconds):
            key.data()

    def _read(self, part: Part, pipe: IO[bytes], unfinished: bytearray) -> None:
        """Passes on the whole lines in `pipe`, and at its end the rest."""
        said = os.read(pipe.fileno(), 65_536)
        unfinished += said or b"\n"
        *lines, rest = unfinished.split(b"\n")
        unfinished[:] = rest
        for line in filter(None, (line.decode(errors="replace").rstrip() for line in lines)):
            self.say(line, part.name)
            part.heard(line)
        if not said:
            self.selector.unregister(pipe)
            pipe.close()

    def _told_to_stop(self, number: int, _: object) -> None:
        self.is_told_to_stop = True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None
