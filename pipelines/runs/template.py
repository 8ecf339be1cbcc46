"""The warm template: a process that has imported all that a run needs, and forks one child per run.

    python -m pipelines.runs.template DAGSTER_HOME/warm OWNER_PID

What does not survive a fork it never has: threads of Python's, an open Dagster instance, a DuckDB connection, a CUDA
context; polars and torch are imported and not used, so that their thread pools start in each run. It ends with its
owner, and its runs with it; where code or settings are no longer what it has imported, it makes way for a fresh one.
"""

import fcntl
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dagster._core.code_pointer import CodePointer, FileCodePointer
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._serdes import deserialize_value

from hindsight.settings import load
from pipelines.home.instance import CHECKOUT
from pipelines.runs.processes import Process
from pipelines.runs.seen import Seen
from pipelines.runs.warm import Request, Worker, socket_path, workers
from pipelines.runs.worker import LOADED, report_end, work

# What runs import late: inside the ops, and inside Dagster on the way to them.
IMPORTED = (
    "hindsight.advance",
    "hindsight.learn",
    "hindsight.record",
    "matplotlib.pyplot",
    "numba",
    "pyarrow",
    "torch._dynamo",
    "pipelines.home.sqlite",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.legacy_storage",
    "dagster._core.storage.noop_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.system_config.composite_descent",
    "fsspec.implementations.local",
    "upath.implementations.local",
)
DEFINITIONS = FileCodePointer(str(CHECKOUT / "pipelines" / "definitions.py"), "defs", str(CHECKOUT))
STOPPING = (signal.SIGTERM, signal.SIGINT)
WELL = "ended well"
GRACE_SECONDS = 10.0  # between a run's SIGTERM and its SIGKILL


class Template:
    """Answers requests, and watches the processes of runs until each has ended."""

    def __init__(self, folder: Path, owner: Process, lock: int) -> None:
        self.folder, self.lock = folder, lock
        self.seen = Seen()
        self.runs: dict[str, Worker] = {}
        self.waited_for: set[int] = set()
        self.makes_way = False
        self.kill_at: float | None = None
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        woken, self.waker = socket.socketpair()
        self.waker.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno())
        for number in STOPPING:
            signal.signal(number, lambda *_: None)
        for end in (woken, os.pidfd_open(owner.pid)):
            self.selector.register(end, selectors.EVENT_READ, partial(self.stop, end))

    def listen(self) -> None:
        """Takes over the runs that an earlier template has left, and accepts requests from here on."""
        for run_id, worker in workers(self.folder).items():
            self.runs[run_id] = worker
            if worker.process.is_alive:
                self.wait_for(worker.process.pid, partial(self.account_for, run_id))
            else:
                self.account_for(run_id, "is gone")
        with socket_path(self.folder) as path:
            Path(path).unlink(missing_ok=True)
            self.listener.bind(path)
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ, self.answer)

    def serve(self) -> None:
        """Until it makes way; or is stopped, or its home is gone, and the last run has ended."""
        while not self.makes_way:
            for key, _ in self.selector.select(timeout=1.0):
                key.data()
            if self.kill_at is not None and time.monotonic() > self.kill_at:
                self.signal_runs(signal.SIGKILL)
            if not self.waited_for and not (self.folder / "socket").exists():
                return

    def answer(self) -> None:
        """One request, one line each way."""
        connection, _ = self.listener.accept()
        connection.settimeout(2.0)
        try:
            with connection, connection.makefile("rb") as lines:
                line = lines.readline()
                if line:  # else somebody only looked whether anybody listens
                    answer = self.consider(Request(**json.loads(line)), connection)
                    connection.sendall(json.dumps(answer).encode() + b"\n")
        except Exception:  # one request must not cost the others their template; whoever asked hears of an end
            traceback.print_exc()

    def consider(self, request: Request, connection: socket.socket) -> dict[str, object]:
        """`pid` of the worker; `gone` where a fresh template has to answer; `refused` with the reason."""
        changed = self.seen.changed(request.environment, request.folder)
        if changed:
            print(f"the warm template makes way for a fresh one: {changed}", file=sys.stderr, flush=True)
            self.make_way()
            return {"gone": changed}
        try:
            self.load(deserialize_value(request.code_pointer, CodePointer))
        except Exception:
            return {"refused": f"the definitions do not load: {traceback.format_exc()}"}
        if select.select([connection], [], [], 0)[0]:
            return {"refused": "whoever asked has gone"}
        if not request.run_id:
            return {"pid": os.getpid()}
        known = self.runs.get(request.run_id)
        if known is not None:  # the answer was lost on its way
            return {"pid": known.process.pid}
        pid = self.fork(lambda: work(request, self.folder / "runs"))
        self.runs[request.run_id] = Worker(process=Process.of(pid), instance=request.instance)
        self.wait_for(pid, partial(self.account_for, request.run_id))
        return {"pid": pid}

    def load(self, pointer: CodePointer) -> None:
        """Brings definitions into memory, where every run forked from here finds them."""
        if pointer in LOADED:
            return
        LOADED[pointer] = ReconstructableRepository(pointer).get_definition()
        LOADED[pointer].load_all_definitions()
        self.seen.note(*([os.path.abspath(pointer.python_file)] if isinstance(pointer, FileCodePointer) else []))
        gc.collect()
        gc.freeze()  # collecting in a run would copy every page that it looks at

    def make_way(self) -> None:
        """Leaves the runs to the next template, which takes them over from their records."""
        (self.folder / "socket").unlink(missing_ok=True)
        self.listener.close()
        os.close(self.lock)
        self.makes_way = True

    def stop(self, reason: int | socket.socket) -> None:
        """Ends the runs, and itself once they have ended."""
        self.selector.unregister(reason)
        (self.folder / "socket").unlink(missing_ok=True)
        self.kill_at = time.monotonic() + GRACE_SECONDS
        self.signal_runs(signal.SIGTERM)

    def signal_runs(self, number: signal.Signals) -> None:
        for worker in self.runs.values():
            worker.process.send(number)

    def wait_for(self, pid: int, then: Callable[[str], None]) -> None:
        """Calls `then` with how the process ended, once it has."""
        descriptor = os.pidfd_open(pid)

        def ended() -> None:
            self.selector.unregister(descriptor)
            os.close(descriptor)
            self.waited_for.discard(pid)
            then(_how(pid))

        self.waited_for.add(pid)
        self.selector.register(descriptor, selectors.EVENT_READ, ended)

    def account_for(self, run_id: str, how: str) -> None:
        """A run's process has ended: one that did not end by itself is reported, by a process of its own."""
        worker = self.runs.pop(run_id)
        if how != WELL:
            said = f"The process of this run (pid {worker.process.pid}) {how}."
            print(f"run {run_id}: {said}", file=sys.stderr, flush=True)
            self.wait_for(self.fork(lambda: report_end(run_id, worker.instance, said)), lambda _: None)
        (self.folder / "runs" / run_id).unlink(missing_ok=True)

    def fork(self, body: Callable[[], int]) -> int:
        """The process id of a child that runs `body` and ends with what it returns."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # what comes meanwhile waits for the child's own handlers
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            return pid
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in STOPPING:
                signal.signal(number, signal.default_int_handler)
            # With these open, a run that outlives its template would pass for it.
            for own in (self.lock, self.listener.detach(), self.waker.detach(), self.selector.fileno()):
                os.close(own)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            code = body()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _how(pid: int) -> str:
    """How a process ended that has ended."""
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # taken over from another template: nobody can tell any more
        return "has ended"
    return WELL if code == 0 else f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def main(folder: Path, owner: Process) -> None:
    """One template per home; a second one ends at once."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for left in reversed(range(20)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                sys.exit(f"another template has {folder}")
            time.sleep(0.05)  # it may be somebody who only looks whether anybody has it
        else:
            break
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(Process.this()).encode(), 0)
    template = Template(folder, owner, lock)
    for name in (*IMPORTED, *(["pipelines.home.postgres"] if load().postgres_url else [])):
        importlib.import_module(name)
    template.load(DEFINITIONS)
    template.listen()
    template.serve()
    os._exit(0)  # duckdb complains on stderr about what is alive when an interpreter ends


if __name__ == "__main__":
    main(Path(sys.argv[1]), Process.of(int(sys.argv[2])))
