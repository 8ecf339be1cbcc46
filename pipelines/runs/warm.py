"""The warm template seen from outside: where it listens, how it is started, what it is asked for.

One template serves all launchers of a Dagster home, whichever process they are in. Whoever needs it first starts it; it
lives as long as its owner, the process named in TEMPLATE_OWNER, else the one that started it.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hindsight.store.lock import held
from pipelines.runs.processes import Process

OWNER = "TEMPLATE_OWNER"
IS_POSSIBLE = sys.platform.startswith("linux")
START_SECONDS = 90.0  # the imports take 5 s on an idle machine
ANSWER_SECONDS = 30.0  # a fork takes 0.01 s; definitions that the template has not met yet, seconds
UNNAMED = Process(0, -1)  # whoever holds the lock and has not written who it is; nobody lives under that id
_started: list[subprocess.Popen[bytes]] = []  # by this process, so that it waits for those that have ended


class TemplateUnavailable(Exception):
    """The template cannot be had: the run has to start another way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Fork a run; with an empty `run_id` only load its definitions."""

    run_id: str
    code_pointer: str  # serialised, as all that is Dagster's
    instance: str
    environment: dict[str, str]
    folder: str  # the working directory, in which hindsight.toml is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The process of one run, as its record in `warm/runs/` has it."""

    process: Process
    instance: str

    def write(self, path: Path) -> bool:
        """Puts the record down whole; False where there is one already: the run has a process."""
        self.read(path)  # which removes one that says nothing
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps([str(self.process), self.instance]))
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    @classmethod
    def read(cls, path: Path) -> "Worker | None":
        """The record; None where there is none. One that a power cut has left empty or torn is removed."""
        try:
            process, instance = json.loads(path.read_text())
            return cls(process=Process.noted(process, at=path.stat().st_mtime), instance=str(instance))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError):
            path.unlink(missing_ok=True)
            return None


def folder_of(dagster_home: str | Path) -> Path:
    """`warm/` below a Dagster home: the template's socket, its lock, and a record per running run."""
    folder = Path(dagster_home) / "warm"
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # whoever can connect can run code
    return folder


@contextmanager
def socket_path(folder: Path) -> Iterator[str]:
    """A name for the socket in `folder` that is short enough (107 bytes) however long the folder's own is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/socket"
    finally:
        os.close(descriptor)


def ask(folder: Path, request: Request) -> int:
    """The process id of the run's worker, forked from the template, which is started or replaced where need be.

    Raises TemplateUnavailable with the reason. Asking again for the same run never starts it twice.
    """
    if not IS_POSSIBLE:
        raise TemplateUnavailable(f"it needs Linux, and this is {sys.platform}")
    reason = ""
    for _ in range(3):
        answer = _converse(folder, request)
        if "pid" in answer:
            return int(answer["pid"])
        if "refused" in answer:
            raise TemplateUnavailable(answer["refused"])
        reason = answer["gone"]
        try:
            ensure(folder)
        except OSError as error:  # no room, or a lock that is none
            raise TemplateUnavailable(str(error)) from None
    raise TemplateUnavailable(f"it did not stay: {reason}")


def ensure(folder: Path) -> None:
    """Starts the template where nobody's runs or starts, and returns once it listens. Raises TemplateUnavailable."""
    with held(folder / "start"):
        started: subprocess.Popen[bytes] | None = None
        deadline = time.monotonic() + START_SECONDS
        while not is_running(folder):
            if template_of(folder) is None:  # else somebody's starts, or makes way
                if started is None:
                    started = _start(folder)
                elif started.poll() is not None:
                    code = started.returncode
                    raise TemplateUnavailable(f"it ended with {code} while it started; its output says why")
            if time.monotonic() > deadline:
                if started is not None:
                    started.kill()
                raise TemplateUnavailable(f"it did not start within {START_SECONDS:.0f} s")
            time.sleep(0.02)


def is_running(folder: Path) -> bool:
    """Whether a template listens."""
    with socket_path(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


def template_of(folder: Path) -> Process | None:
    """The template's process, starting or listening; None where nobody holds its lock."""
    found = UNNAMED
    for _ in range(100):  # between taking the lock and naming itself in it a template needs microseconds
        with (folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                found = _named(lock.read())
            else:
                return None
        if found.is_alive:
            break
        time.sleep(0.01)
    return found


def stop(folder: Path, timeout_seconds: float = 15.0) -> None:
    """Ends the template and the runs that it has forked, and returns when they are gone."""
    template = template_of(folder)
    if template is not None:
        template.send(signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        while template.is_alive and time.monotonic() < deadline:
            time.sleep(0.02)
        template.send(signal.SIGKILL)
        for child in _started:
            if child.pid == template.pid:
                child.wait()
    _started[:] = [child for child in _started if child.poll() is None]


def workers(folder: Path) -> dict[str, Worker]:
    """The recorded workers by run id, living or not yet noticed to be dead."""
    found = {path.name: Worker.read(path) for path in (folder / "runs").iterdir() if not path.name.startswith(".")}
    return {run_id: worker for run_id, worker in found.items() if worker is not None}


def _named(record: str) -> Process:
    """The process that a template wrote into its lock."""
    try:
        return Process.noted(record, at=time.time())
    except ValueError:
        return UNNAMED


def _start(folder: Path) -> subprocess.Popen[bytes]:
    owner = os.environ.get(OWNER, str(os.getpid()))
    command = [sys.executable, "-m", "pipelines.runs.template", str(folder), owner]
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    _started[:] = [*(child for child in _started if child.poll() is None), started]
    return started


def _converse(folder: Path, request: Request) -> dict[str, str]:
    """The template's answer: `pid`, `refused` with a reason, or `gone` where it is to be started anew."""
    with socket_path(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(path)
            connection.sendall(json.dumps(asdict(request)).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except TimeoutError:
            template = template_of(folder)
            if template is not None:
                template.send(signal.SIGKILL)
            return {"gone": f"it did not answer within {ANSWER_SECONDS:.0f} s and was killed"}
        except OSError as error:
            return {"gone": str(error)}
    return json.loads(line) if line else {"gone": "it ended before it answered"}
