"""The lock file: one holder, in the order of asking, and nobody is left waiting for the dead."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hindsight.store import lock

HOLD = """
import sys, time
from pathlib import Path
from hindsight.store import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


class Waiting(logging.Handler):
    """Tells when somebody has begun to wait, and what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()
        self.begun.set()


@pytest.fixture
def waiting():
    handler = Waiting()
    before = lock.logger.level
    lock.logger.addHandler(handler)
    lock.logger.setLevel(logging.DEBUG)
    yield handler
    lock.logger.removeHandler(handler)
    lock.logger.setLevel(before)


def test_a_second_thread_waits_and_is_told_who_holds_the_lock(tmp_path: Path, waiting: Waiting):
    path, order = tmp_path / "w.duckdb", []

    def second():
        with lock.held(path):
            order.append("second")

    with lock.held(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.begun.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert f"process {os.getpid()}" in waiting.said


def test_whoever_just_released_the_lock_does_not_overtake_the_one_who_waits(tmp_path: Path, waiting: Waiting):
    path, order = tmp_path / "w.duckdb", []

    def second():
        with lock.held(path):
            order.append("second")

    for _ in range(20):
        waiting.begun.clear()
        order.clear()
        thread = threading.Thread(target=second)
        with lock.held(path):
            thread.start()
            assert waiting.begun.wait(10)
        with lock.held(path):
            order.append("first again")
        thread.join(10)
        assert order == ["second", "first again"]


def test_kill_9_of_the_holder_frees_the_lock(tmp_path: Path, waiting: Waiting):
    path = tmp_path / "w.duckdb"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        taken = threading.Event()

        def take():
            with lock.held(path):
                taken.set()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        assert waiting.begun.wait(10)
        assert f"process {holder.pid}" in waiting.said
        assert not taken.is_set()
        holder.send_signal(signal.SIGKILL)
        assert taken.wait(10)


def test_taking_the_lock_twice_in_one_thread_is_refused_at_once(tmp_path: Path):
    path = tmp_path / "w.duckdb"
    with lock.held(path), pytest.raises(RuntimeError, match="do not nest"), lock.held(path):
        pass
    with lock.held(path), lock.held(tmp_path / "other.duckdb"):
        pass


def test_the_lock_is_free_again_after_an_exception(tmp_path: Path):
    path = tmp_path / "w.duckdb"
    with pytest.raises(KeyError), lock.held(path):
        raise KeyError
    with lock.held(path):
        assert lock.holder(path) == os.getpid()
