"""Jobs for the tests of launchers: what they do is up to files that the tests write."""

import os
import sys
import threading
import time
from pathlib import Path

import dagster as dg

IMPORTED_BEFORE = set(sys.modules)


class Where(dg.Config):
    """A file to write to, or to wait for."""

    path: str = ""


@dg.op
def note(config: Where) -> None:
    """Writes down the process, its folder, and what it was given."""
    Path(config.path).write_text(f"{os.getpid()}\n{os.getcwd()}\n{os.environ.get('GREETING', '')}")


@dg.op
def wait(config: Where) -> None:
    """Says that it has begun, and waits until it is told to end."""
    Path(config.path).write_text(str(os.getpid()))
    while not Path(f"{config.path}.end").exists():
        time.sleep(0.02)


@dg.op
def fail() -> None:
    raise ValueError("as it was told to")


@dg.op
def vanish() -> None:
    """Ends its process without a word, as one that the kernel kills for its memory."""
    os._exit(3)


@dg.op
def compute(context: dg.OpExecutionContext) -> None:
    """Uses, on several threads where it can, each library that the template imports without using it."""
    import duckdb
    import numpy as np
    import polars as pl
    import torch
    from numba import njit

    frame = pl.DataFrame({"key": np.arange(400_000) % 7, "value": np.arange(400_000.0)})
    grouped = frame.lazy().group_by("key").agg(pl.col("value").sum()).sort("key").collect()
    joined = frame.join(grouped, on="key", how="left").select(pl.col("value").max()).item()
    torch.set_num_threads(4)
    weights = torch.randn(600, 600, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (weights @ weights).square().mean().backward()
    with duckdb.connect() as con:
        rows = con.sql("select count(*), sum(value) from frame").fetchall()
    doubled = njit(lambda x: 2 * x)(21)
    product = np.ones((500, 500)) @ np.ones((500, 500))
    context.log.info(f"computed {joined} {grouped.height} {rows[0][0]} {doubled} {product[0, 0]} {weights.grad.shape}")


@dg.op
def compute_on_gpu() -> None:
    """Uses the GPU, which a process can only if nobody did before it was forked."""
    import torch

    assert torch.ones(8, device="cuda").sum().item() == 8


@dg.op
def count_imports(config: Where) -> None:
    """Writes down how many threads of Python's this process has, and which modules it has imported by itself."""
    late = sorted(set(sys.modules) - IMPORTED_BEFORE)
    Path(config.path).write_text("\n".join([str(threading.active_count()), *late]))


@dg.job
def noting() -> None:
    note()


@dg.job
def waiting() -> None:
    wait()


@dg.job
def failing() -> None:
    fail()


@dg.job
def vanishing() -> None:
    vanish()


@dg.job
def computing() -> None:
    compute()


@dg.job
def computing_on_gpu() -> None:
    compute_on_gpu()


@dg.job
def counting() -> None:
    count_imports()


@dg.sensor(job_name="noting", minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def asked() -> dg.SensorResult | dg.SkipReason:
    """At every tick a run for each line of the file `asked` in the home, with the line as run key; and a note of it."""
    file = Path(os.environ["HINDSIGHT_HOME"], "asked")
    if not file.exists():
        return dg.SkipReason("nobody has asked")
    config = {"ops": {"note": {"config": {"path": str(file.with_name("noted"))}}}}
    requests = [dg.RunRequest(run_key=line, run_config=config) for line in file.read_text().splitlines()]
    with file.with_name("ticks").open("a") as ticks:
        ticks.write("tick\n")
    return dg.SensorResult(run_requests=requests)


defs = dg.Definitions(
    sensors=[asked],
    jobs=[noting, waiting, failing, vanishing, computing, computing_on_gpu, counting],
    executor=dg.in_process_executor,
)
