"""A backfill from the command line: one Dagster run per stream, the streams in parallel processes.

Run through `hindsight backfill`. The processes do nothing that a run started from the UI does not do: kill them at any
moment, and the next run, from wherever it is started, goes on from the tables.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from queue import Empty

import dagster as dg

from hindsight.errors import HindsightError
from hindsight.inference.shape import frame_shape
from hindsight.market.streams import Stream, Window
from hindsight.settings import Settings, load
from pipelines.home.instance import open_instance
from pipelines.runs.processes import Process
from pipelines.runs.run_process import PID
from resources.progress import Listener, Progress


@dataclass(frozen=True, slots=True)
class Heard:
    """What a worker said: how far a stage is; or, with stage `done` or `failed`, that it has ended and how."""

    stream: str
    stage: str
    done: int = 0
    total: int = 0
    message: str = ""


def backfill(settings: Settings, streams: list[Stream], window: Window) -> Iterator[Heard]:
    """Runs the whole chain over `window`, and yields what the workers say until the last has ended.

    Where frames hold other streams, every stream is recorded before any is learned. Leaving the iteration early
    (Ctrl-C, an exception) ends the workers.
    """
    open_instance(settings)  # its databases are created here, once, before the workers meet at them
    for job, chosen in _waves(settings, streams):
        yield from _run(settings, job, chosen, window)


def _waves(settings: Settings, streams: list[Stream]) -> Iterator[tuple[str, list[Stream]]]:
    """Which job to run over which streams, one after the other."""
    predicted = [stream for stream in streams if stream in settings.predicted_streams]
    shapes = [
        frame_shape(settings.frame, stream, lookback=settings.lookback, warmup=settings.warmup) for stream in predicted
    ]
    if any(len(shape.candles) > 1 for shape in shapes) or len(predicted) < len(streams):
        yield "record", streams
    yield "backfill", predicted


def _run(settings: Settings, job: str, streams: list[Stream], window: Window) -> Iterator[Heard]:
    """Runs one job over each stream in a process of its own."""
    context = multiprocessing.get_context("spawn")
    heard: Queue[Heard] = context.Queue()
    workers = {
        str(stream): context.Process(
            target=_work, args=(settings.threads, job, stream, window, heard), name=str(stream)
        )
        for stream in streams
    }
    for worker in workers.values():
        worker.start()
    try:
        while workers:
            try:
                news = heard.get(timeout=0.5)
            except Empty:
                for name in [name for name, worker in workers.items() if worker.exitcode not in (None, 0)]:
                    code = workers.pop(name).exitcode
                    yield Heard(name, "failed", message=f"its process ended with {code}")
                continue
            if news.stage in ("done", "failed"):
                workers.pop(news.stream).join()
            yield news
    finally:
        for worker in workers.values():
            worker.terminate()
        for worker in workers.values():
            worker.join(10)
            worker.kill()


def _work(threads: int, job: str, stream: Stream, window: Window, heard: "Queue[Heard]") -> None:
    """The body of one worker process: one run of a job over one stream."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        run_job(job, stream, window, lambda name, stage, done, total: heard.put(Heard(name, stage, done, total)))
        heard.put(Heard(str(stream), "done"))
    except HindsightError as error:
        heard.put(Heard(str(stream), "failed", message=str(error)))
    except dg.DagsterExecutionInterruptedError:
        heard.put(Heard(str(stream), "failed", message="stopped"))
    except Exception:
        heard.put(Heard(str(stream), "failed", message=traceback.format_exc()))
    heard.close()
    heard.join_thread()
    os._exit(0)  # duckdb complains on stderr about what is alive when an interpreter ends


def run_job(job: str, stream: Stream, window: Window, listener: Listener) -> dg.ExecuteInProcessResult:
    """One run of the job `record` or `backfill` in this process, shown in the UI like any other."""
    from assets.partitions import range_tags
    from hindsight.training.models.registry import in_order
    from pipelines.definitions import defs

    in_order(load().models)  # a typing error is told before a candle is fetched

    scope = {"since": window.start.isoformat(), "until": window.end.isoformat()}
    return defs.resolve_job_def(job).execute_in_process(
        # The run's log is in the UI; the terminal belongs to the progress bars.
        run_config={
            "resources": {"scope": {"config": scope}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        instance=dg.DagsterInstance.get(),
        tags={**range_tags(stream, window), PID: str(Process.this())},
        resources={"progress": Progress(listener)},
    )


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
