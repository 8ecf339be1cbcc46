"""The learning loop on real ETH/USDT 1m: candles a second, the share inside the model, and where the rest goes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import BTC, ETH, MODEL, copied, new_folder, record, settings_in
from benchmarks.sampling import Sample, Samples
from benchmarks.timers import Watched, watching
from hindsight.market.streams import Stream, Window

GOAL, SHARE = 500.0, 0.85
# Whole pieces of `learn`, and before them as much as replay draws from, so that the loop is at its usual weight.
WARM = Window(start=datetime(2023, 1, 1, tzinfo=UTC), end=datetime(2023, 1, 15, tzinfo=UTC))
UNTIL = WARM.end + timedelta(days=4)


def measure(repeats: int) -> Figure:
    """One stream with one thread and with two, and two streams side by side, which is how `hindsight backfill` runs."""
    home = warmed_up()
    contenders = {
        "one stream, 1 thread": lambda: _learnt(home, [ETH], threads=1),
        "one stream, 2 threads (a day)": lambda: _learnt(home, [ETH], threads=2, until=WARM.end + timedelta(days=1)),
        "two streams in two processes": lambda: _learnt(home, [ETH, BTC], threads=1),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            found[name].append(run())
    rate = {name: median(run["rate"] for run in runs) for name, runs in found.items()}
    share = {name: median(run["share"] for run in runs) for name, runs in found.items()}
    per_processor = {name: median(run["per_processor_second"] for run in runs) for name, runs in found.items()}
    one, both = rate["one stream, 1 thread"], rate["two streams in two processes"]
    inside = share["one stream, 1 thread"]
    return Figure(
        name="the learning loop: predict, settle, train",
        goal=f"{GOAL:g} candles/s, {SHARE:.0%} inside the model",
        measured=f"{one:.0f} candles/s, {inside:.0%} inside; two streams at once {both:.0f} candles/s",
        ratio=f"{one / GOAL:.2f} of the goal, two streams {both / GOAL:.2f}",
        is_reached=one >= GOAL and inside >= SHARE,
        samples={
            name: Samples([Sample(run["wall"], run["processor"]) for run in runs]) for name, runs in found.items()
        },
        notes=(
            *(
                f"{name}: {rate[name]:.0f} candles/s (fastest {max(run['rate'] for run in runs):.0f}), "
                f"{per_processor[name]:.0f} per processor second, {share[name]:.1%} inside, "
                f"{median(run['step_milliseconds'] for run in runs):.1f} ms per training step inside"
                for name, runs in found.items()
            ),
            *_where_it_goes(home),
        ),
    )


def warmed_up() -> Path:
    """A home in which both streams have learned for as long as replay reaches back; candles lie ready beyond."""
    home = new_folder("warm")
    for stream in (ETH, BTC):
        record(home, stream, Window(start=WARM.start, end=UNTIL))
    learners = [_start(home, stream, WARM.end, threads=1) for stream in (ETH, BTC)]
    for learner in learners:
        learner.outcome()
    return home


def _start(home: Path, stream: Stream, until: datetime, *, threads: int) -> fresh.Running:
    # As `hindsight backfill` starts its workers.
    environment = {"OMP_NUM_THREADS": str(threads)}
    return fresh.start(learn, environment, home=str(home), stream=str(stream), until=until.isoformat(), threads=threads)


def _learnt(home: Path, streams: list[Stream], *, threads: int, until: datetime = UNTIL) -> dict[str, float]:
    copy = copied(home)
    running = [_start(copy, stream, until, threads=threads) for stream in streams]
    learnt = [each.outcome().result for each in running]
    wall = max(each["ended"] for each in learnt) - min(each["began"] for each in learnt)
    closes, processor = sum(each["closes"] for each in learnt), sum(each["processor"] for each in learnt)
    return {
        "wall": wall,
        "processor": processor,
        "rate": closes / wall,
        "per_processor_second": closes / processor,
        "share": sum(each["inside"] for each in learnt) / sum(each["seconds"] for each in learnt),
        "step_milliseconds": 1000 * sum(each["inside"] for each in learnt) / sum(each["steps"] for each in learnt),
    }


def learn(home: str, stream: str, until: str, threads: int) -> dict[str, Any]:
    """Learns up to `until`; what a process does once, however long it then learns, is done before."""
    learn_in_hindsight = _imported()
    began, processor = time.time(), time.process_time()
    report = learn_in_hindsight(
        settings_in(home, threads=threads), Stream.parse(stream), MODEL, datetime.fromisoformat(until)
    )
    return {
        "began": began,
        "ended": time.time(),
        "processor": time.process_time() - processor,
        "closes": report.closes,
        "steps": report.steps,
        "seconds": report.seconds,
        "inside": report.seconds_inside,
    }


def _imported() -> Callable[..., Any]:
    import torch

    from hindsight.learn import learn as learn_in_hindsight

    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # torch imports its compiler with the first optimizer
    return learn_in_hindsight


def _where_it_goes(home: Path) -> list[str]:
    spent = fresh.run(learn_watched, {"OMP_NUM_THREADS": "1"}, home=str(copied(home))).result["spent"]
    whole = sum(spent.values())
    ranked = sorted(spent.items(), key=lambda item: -item[1])
    return ["one run, taken apart:"] + [f"  {seconds / whole:6.1%}  {name}" for name, seconds in ranked]


def learn_watched(home: str) -> dict[str, Any]:
    """The same run with every part timed by itself."""
    _imported()
    import hindsight.learn as verb

    with watching(_watched()) as spent:
        verb.learn(settings_in(home, threads=1), ETH, MODEL, UNTIL)
    return {"spent": spent}


def _watched() -> list[Watched]:
    import hindsight.learn as verb
    from hindsight import piece, recall, recall_blocks, write
    from hindsight.inference.blocks import Blocks
    from hindsight.training import engine, loop, objective

    return [
        (engine, "train_step", "training steps (forward, backward, optimizer)"),
        (engine, "ask", "predictions (forward)"),
        (loop, "land", "predictions, to memory"),
        (Blocks, "gather", "frames gathered"),
        (objective.Supervised, "batch", "answers of a batch, to tensors"),
        (objective.Supervised, "corrective", "which were wrong"),
        (loop, "_replayed", "replay: who may be drawn, and the draw"),
        (loop, "newly_settled", "what an event settles"),
        (loop, "drifted", "a look for drift"),
        (verb, "alone", "the rest of the loop: records of steps"),
        (piece, "recall_market", "recall: market tables"),
        (recall, "label", "recall: labels"),
        (recall_blocks.tapes, "load", "recall: tape"),
        (piece, "recall_memory", "recall: references made so far"),
        (verb, "relive", "recall: weights"),
        (Blocks, "digests", "digests"),
        (write, "score_days", "scores of the model and its baselines"),
        (write, "save_snapshots", "checkpoint files"),
        (write, "_references", "rows of references"),
        (write, "_outcomes", "rows of outcomes"),
        (write, "trend_records", "rows of trend validations"),
        (write, "step_records", "rows of training steps"),
        (write, "append", "DuckDB: insert"),
        (write, "append_hidden", "DuckDB: hidden states"),
        (write, "retain", "DuckDB: checkpoints on record"),
        (write, "replace_scores", "DuckDB: scores"),
        (verb, "write", "DuckDB: open, commit, close"),
        (verb, "learn", "the rest of learn"),
    ]
