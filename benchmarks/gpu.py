"""What a GPU makes of the loop: checked against the processor first, then measured. Where none is, all of it runs on
the processor, says so, and is held against no goal.

    python -m benchmarks.gpu            (`make bench-gpu`)

The market is made up in memory (made_up.py), so that nothing but this package is needed; the default model and cadence.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figure import Figure, show, summarise, wide_console
from benchmarks.made_up import OWN, Scene, scene
from benchmarks.sampling import Sample, Samples, machine, take_turns, timed
from hindsight.configured import cadence_of, hyperparameters, replay_of
from hindsight.inference.blocks import Blocks
from hindsight.training.engine import Lesson, alone
from hindsight.training.learner import Learner, new_learner
from hindsight.training.loop import Learned, lesson
from hindsight.training.memory import Memory
from hindsight.training.resident import Gathers, Resident, on_device
from hindsight.training.stack import Stack, can_be_stacked, together

MODEL = "transformer"
YEAR = 525_600
BATCH, LENGTH = 4096, 300  # of the goal for gathering, which speaks of 32 columns: a tape has 43
TRIED = 2000  # closes where a whole year would take too long
MOST = 256  # learners of a sweep
GIB = 2**30


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender; default 5")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    on_gpu, console = torch.cuda.is_available(), wide_console()
    device = torch.device("cuda" if on_gpu else "cpu")
    console.print(machine(), highlight=False)
    console.print(torch.cuda.get_device_name() if on_gpu else "No GPU that torch can use: these are the processor's.")
    market = scene(OWN, new=YEAR if on_gpu else TRIED)
    agreement(market, device)
    console.print(f"Checked: the frames, to the bit, and the first losses of {device} are those of the processor.")
    figures = []
    for measure in (gathering, stepping, a_year, sweeping):
        figures.append(measure(market, device, repeats))
        show(figures[-1], console)
    summarise(figures, console)


def agreement(market: Scene, device: torch.device) -> None:
    """Raises AssertionError unless the device gathers the frames of the host, and learns what it does."""
    blocks, rows = market.blocks(MODEL), market.now + np.arange(64)
    norm = np.ones((64, 4), np.float32)
    found, expected = Resident(blocks, device).gather(rows, norm), blocks.gather(rows, norm)
    for block, wanted in zip(found.seen, expected.seen, strict=True):
        np.testing.assert_array_equal(block.cpu().numpy(), wanted)
    losses = []
    for each in (torch.device("cpu"), device):
        losses.append([step.loss["total"] for step in learn(market, each, 120).steps])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


def gathering(market: Scene, device: torch.device, repeats: int) -> Figure:
    """Frames gathered by index against a plain copy of as many bytes."""
    blocks = market.blocks(MODEL)
    resident, chance = Resident(blocks, device), np.random.default_rng(0)
    rows = chance.integers(market.first + LENGTH, market.now, BATCH)
    (tape,), made_ms = resident.tapes, (rows + 1) * blocks.own.step_ms
    copied = tape.gather(made_ms)
    room = torch.empty_like(copied)
    samples = take_turns(
        repeats,
        {
            "gather": lambda: waited(lambda: tape.gather(made_ms), device),
            "copy": lambda: waited(lambda: room.copy_(copied), device),
        },
        warm_ups=("gather", "copy"),
    )
    seconds, size = samples["gather"].median, copied.numel() * copied.element_size()
    share = samples["copy"].median / seconds
    return Figure(
        name=f"gather on the device, [{BATCH}, {LENGTH}, {copied.shape[2]}]",
        goal="60 % of the bandwidth of a copy",
        measured=f"{BATCH / seconds:,.0f} frames/s, {2 * size / seconds / GIB:,.1f} GiB/s",
        ratio=f"{share:.2f} of a copy",
        is_reached=judged(device, share >= 0.6),
        samples=samples,
    )


def stepping(market: Scene, device: torch.device, repeats: int) -> Figure:
    """Training steps a second, by what of the matrix peak they take."""
    counter = FlopCounterMode(display=False)
    with counter:
        first = learn(market, torch.device("cpu"), 60)
    each = counter.get_total_flops() / max(len(first.steps), 1)
    steps, took = len(learn(market, device, TRIED).steps), Samples()
    for _ in range(repeats):
        whole = waited(lambda: learn(market, device, TRIED), device)
        took.runs.append(Sample(whole.wall / steps, whole.processor / steps))
    peak = matrix_peak(device)
    return Figure(
        name="training steps, batch 32, one learner, predictions included",
        goal="reported",
        measured=f"{1 / took.median:,.0f} steps/s, {each / 1e6:,.0f} MFLOP each",
        ratio=f"{each / took.median / peak:.1%} of {peak / 1e12:,.2f} TFLOP/s, float32",
        is_reached=None,
        samples={"a step": took},
        notes=device_share(market, device),
    )


def a_year(market: Scene, device: torch.device, repeats: int) -> Figure:
    """A year of minutes; where that would take too long, a part of it."""
    took = Samples()
    for _ in range(1 if device.type == "cuda" else repeats):
        took.runs.append(waited(lambda: learn(market, device, market.new), device))
    whole = took.median * YEAR / market.new
    said = f"{market.new / took.median:,.0f} closes/s: {whole:,.0f} s"
    if market.new < YEAR:
        said += f" at the rate of {market.new:,} closes"
    return Figure(
        name="one year of 1m, default model and cadence",
        goal="60 s on one H200; 900 s on two cores",
        measured=said,
        ratio=f"{whole / (60 if device.type == 'cuda' else 900):.2f} of the limit",
        is_reached=judged(device, whole <= 60),
        samples={f"{market.new:,} closes": took},
    )


def sweeping(market: Scene, device: torch.device, repeats: int) -> Figure:
    """The cost of many learners at once over that of one."""
    counts = [count for count in (1, 4, 16, 64, MOST) if device.type == "cuda" or count <= 16]
    closes = TRIED // 4
    took = {count: Samples() for count in counts}
    for _ in range(min(repeats, 3)):
        for count in counts:
            took[count].runs.append(waited(partial(sweep_of, market, device, count, closes), device))
    costs = {count: each.median / took[1].median for count, each in took.items()}
    most = max(count for count in counts if count <= 64)
    return Figure(
        name="learners at once, as one computation",
        goal="64 for less than 6 times one",
        measured=", ".join(f"{count}: {cost:.1f}" for count, cost in costs.items()),
        ratio=f"{most} cost {costs[most]:.1f} times one",
        is_reached=judged(device, costs[most] < 6),
        samples={f"{count} learners, {closes} closes": each for count, each in took.items()},
    )


def learn(market: Scene, device: torch.device, closes: int) -> Learned:
    """What a learner from nothing does over the next closes."""
    learner, memory = learner_of(market, device, 0), market.memory(MODEL)
    return alone(learner, lesson_of(market, learner, memory, closes))


def sweep_of(market: Scene, device: torch.device, count: int, closes: int) -> None:
    """So many learners of other seeds over the next closes, as one computation."""
    learners = [learner_of(market, device, seed) for seed in range(count)]
    assert can_be_stacked(learners[0])
    blocks = market.blocks(MODEL)
    seen = on_device(blocks, device)  # by all of them, as in a sweep
    lessons = [lesson_of(market, learner, market.memory(MODEL), closes, blocks, seen) for learner in learners]
    together(Stack(learners), lessons)


def learner_of(market: Scene, device: torch.device, seed: int) -> Learner:
    hyper = replace(hyperparameters(market.settings), seed=seed)
    return new_learner(MODEL, hyper, device, market.blocks(MODEL).shape)


def lesson_of(
    market: Scene,
    learner: Learner,
    memory: Memory,
    closes: int,
    blocks: Blocks | None = None,
    seen: Gathers | None = None,
) -> Lesson[Learned]:
    return lesson(
        learner,
        blocks or market.blocks(MODEL),
        market.labels,
        memory,
        market.now,
        market.now + closes,
        market.l2_rows,
        cadence=replace(cadence_of(market.settings), snapshot_every=2**31),
        replay=replay_of(market.settings),
        snapshot=lambda _: {},
        seen=seen,
    )


def matrix_peak(device: torch.device) -> float:
    """FLOP/s of a large product of float32 matrices."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.rand(size, size, device=device)
    fastest = min(waited(lambda: a @ a, device).wall for _ in range(5))
    return 2 * size**3 / fastest


def device_share(market: Scene, device: torch.device) -> Sequence[str]:
    """How much of the loop's time the device works, where there is one."""
    if device.type != "cuda":
        return ()
    learn(market, device, TRIED // 4)
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        learn(market, device, TRIED // 4)
    wall = time.perf_counter() - began
    busy = sum(event.self_device_time_total for event in seen.key_averages()) / 1e6
    return (f"the device works {busy / wall:.0%} of the time (goal: 80 %), as the profiler sees it",)


def waited(work: Callable[[], object], device: torch.device) -> Sample:
    """One run, to its end on the device."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    return timed(lambda: (work(), wait()))


def judged(device: torch.device, is_reached: bool) -> bool | None:
    """Goals are those of a GPU: without one there is nothing to judge."""
    return is_reached if device.type == "cuda" else None


if __name__ == "__main__":
    main()
