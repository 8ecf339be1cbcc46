"""The supervisor over real processes: what dies starts again, what is told to stop stops, nothing is left behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.runs.processes import Process
from tests.pipelines.conftest import until

SLEEP = "echo pid $$; exec sleep 600"


@dataclass(frozen=True)
class Supervised:
    """A supervisor in a process of its own, and what it has said so far."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    def hears(self, pattern: str, times: int = 1) -> list[str]:
        """What stands for the group of `pattern` in each line that matches, once there are so many."""
        until(lambda: len(re.findall(pattern, self.said)) >= times, f"{pattern!r} is heard; so far {self.said}")
        return re.findall(pattern, self.said)

    def pids(self, name: str, times: int = 1) -> list[Process]:
        return [Process.of(int(pid)) for pid in self.hears(rf"{name} +\| pid (\d+)", times)]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    started = []

    def start(**parts: str) -> Supervised:
        output = tmp_path / f"output {len(started)}"
        words = [f"{name.replace('_', '-')}={command}" for name, command in parts.items()]
        command = [sys.executable, "-m", "tests.pipelines.up.small_supervisor", *words]
        with output.open("wb") as file:
            started.append(subprocess.Popen(command, stdout=file, stderr=file))
        return Supervised(started[-1], output)

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_what_is_killed_starts_again_and_the_rest_goes_on(supervise: Callable[..., Supervised]) -> None:
    both = supervise(one=SLEEP, other=SLEEP)
    (one,), (other,) = both.pids("one"), both.pids("other")
    one.send(signal.SIGKILL)
    assert both.hears(r"hindsight +\| (one was killed by SIGKILL; it starts again in 0.5 s)")
    assert both.pids("one", times=2)[1].is_alive
    assert other.is_alive


def test_what_ends_again_and_again_waits_longer_each_time(supervise: Callable[..., Supervised]) -> None:
    failing = supervise(bad="echo no use >&2; exit 7")
    assert failing.hears(r"bad ended with 7; it starts again in (\S+) s", times=3)[:3] == ["0.5", "1.0", "2.0"]
    assert failing.said.count("bad       | no use\n") >= 3


def test_what_is_done_starts_again_when_its_time_has_come(supervise: Callable[..., Supervised]) -> None:
    done = supervise(now_and_then="echo done")
    done.hears(r"now-and-then \| (done)", times=3)
    assert "starts again" not in done.said


def test_a_line_that_comes_in_pieces_or_never_ends_is_said_once(supervise: Callable[..., Supervised]) -> None:
    talking = supervise(one=r"printf 'first \033[32mha'; sleep 0.3; printf 'lf\033[0m\nsecond'; exec sleep 0.3")
    talking.hears("one ended with 0")
    assert "one       | first half\none       | second\n" in talking.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_told_to_stop_it_ends_all_in_order(supervise: Callable[..., Supervised], number: signal.Signals) -> None:
    farewell = "trap 'echo bye; exit' TERM; echo pid $$; while :; do sleep 0.05; done"
    both = supervise(one=farewell, other=farewell)
    processes = both.pids("one") + both.pids("other")
    both.process.send_signal(number)
    assert both.process.wait(20) == 0
    assert not any(process.is_alive for process in processes)
    said = [line for line in both.said.splitlines() if "bye" in line or "stopped" in line]
    assert [line.split()[0] for line in said] == ["other", "one", "hindsight"]


def test_what_does_not_obey_is_killed(supervise: Callable[..., Supervised]) -> None:
    stubborn = supervise(one="trap '' TERM; echo pid $$; while :; do sleep 0.05; done")
    (process,) = stubborn.pids("one")
    stubborn.process.send_signal(signal.SIGTERM)
    assert stubborn.process.wait(20) == 0
    assert not process.is_alive
    assert "one did not stop within 1 s and is killed" in stubborn.said


def test_nothing_outlives_a_supervisor_that_is_killed(supervise: Callable[..., Supervised]) -> None:
    both = supervise(one=SLEEP, other=SLEEP)
    processes = both.pids("one") + both.pids("other")
    both.process.kill()
    until(lambda: not any(process.is_alive for process in processes), "the parts have ended")
