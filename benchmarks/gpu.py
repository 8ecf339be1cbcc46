"""What a GPU makes of the loop: checked against the processor first, then measured. Where none is, all of it runs on
the processor, says so, and is held against no goal.

    python -m benchmarks.gpu            (`make bench-gpu`)

The market is made up in memory (made_up.py), so that nothing but this package is needed; the default model and cadence.
"""

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figure import Figure, show, summarise, wide_console
from benchmarks.made_up import OWN, Scene, scene
from benchmarks.sampling import Sample, Samples, machine, take_turns, timed
from hindsight.configured import cadence_of, hyperparameters, replay_of
from hindsight.inference.blocks import Blocks
from hindsight.training.engine import alone
from hindsight.training.learner import Learner, new_learner
from hindsight.training.loop import Learned, lesson
from hindsight.training.memory import Memory
from hindsight.training.resident import Gathers, Resident, on_device
from hindsight.training.stack import Stack, can_be_stacked, together

MODEL = "transformer"
YEAR = 525_600
BATCH, LENGTH = 4096, 300  # of the goal for gathering, which speaks of 32 columns: a tape has 43
MOST = 256  # learners of a sweep
GIB = 2**30


class Closes(NamedTuple):
    """How many closes of what: `begun` are those before what is timed, in which a GPU records what it does."""

    begun: int
    tried: int
    swept: int


ON_CPU, ON_GPU = Closes(begun=120, tried=2000, swept=500), Closes(begun=1000, tried=20_000, swept=2000)


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
    market = scene(OWN, new=sum(closes_on(device)))
    agreement(market, device)
    console.print(f"Checked: the frames, to the bit, and the first losses of {device} are those of the processor.")
    figures = []
    for measure in (gathering, one_learner, sweeping):
        for figure in measure(market, device, repeats):
            figures.append(figure)
            show(figure, console)
    summarise(figures, console)


def closes_on(device: torch.device) -> Closes:
    """As many as that device takes seconds for."""
    return ON_GPU if device.type == "cuda" else ON_CPU


@dataclass(slots=True, kw_only=True)
class Learning:
    """Learners from nothing, of other seeds: one by itself, many as one computation over what they share."""

    market: Scene
    device: torch.device
    blocks: Blocks
    seen: Gathers
    learners: list[Learner]
    memories: list[Memory]
    stack: Stack | None
    row: int  # up to which they have learned

    @classmethod
    def of(cls, market: Scene, device: torch.device, count: int = 1) -> "Learning":
        blocks, memory = market.blocks(MODEL), market.memory(MODEL)
        hyper = hyperparameters(market.settings)
        learners = [new_learner(MODEL, replace(hyper, seed=seed), device, blocks.shape) for seed in range(count)]
        assert can_be_stacked(learners[0])
        return cls(
            market=market,
            device=device,
            blocks=blocks,
            seen=on_device(blocks, device),
            learners=learners,
            memories=[deepcopy(memory) for _ in learners],
            stack=Stack(learners) if count > 1 else None,
            row=market.now,
        )

    def go(self, closes: int) -> list[Learned]:
        """What each does over the next closes."""
        market = self.market
        lessons = [
            lesson(
                learner,
                self.blocks,
                market.labels,
                memory,
                self.row,
                self.row + closes,
                market.l2_rows,
                cadence=replace(cadence_of(market.settings), snapshot_every=2**31),
                replay=replay_of(market.settings),
                snapshot=lambda _: {},
                seen=self.seen,
            )
            for learner, memory in zip(self.learners, self.memories, strict=True)
        ]
        self.row += closes
        return together(self.stack, lessons) if self.stack else [alone(self.learners[0], lessons[0])]

    def timed(self, closes: int) -> Sample:
        """How long they take for the next closes, to the end on the device."""
        return waited(lambda: self.go(closes), self.device)


def begun(market: Scene, device: torch.device, count: int = 1) -> Learning:
    """Learners that are at it, so that nothing is made or recorded for the first time in what they do next."""
    learning = Learning.of(market, device, count)
    learning.go(closes_on(device).begun)
    return learning


def agreement(market: Scene, device: torch.device) -> None:
    """Raises AssertionError unless the device gathers the frames of the host, and learns what it does."""
    blocks, rows = market.blocks(MODEL), market.now + np.arange(64)
    norm = np.ones((64, 4), np.float32)
    found, expected = Resident(blocks, device).gather(rows, norm), blocks.gather(rows, norm)
    for block, wanted in zip(found.seen, expected.seen, strict=True):
        np.testing.assert_array_equal(block.cpu().numpy(), wanted)
    losses = []
    for each in (torch.device("cpu"), device):
        (learned,) = Learning.of(market, each).go(120)
        losses.append([step.loss["total"] for step in learned.steps])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


def gathering(market: Scene, device: torch.device, repeats: int) -> list[Figure]:
    """Frames gathered by index against a plain copy of as many bytes."""
    blocks = market.blocks(MODEL)
    resident, chance = Resident(blocks, device), np.random.default_rng(0)
    rows = chance.integers(market.first + LENGTH, market.now, BATCH)
    (tape,), made_ms = resident.tapes, (rows + 1) * blocks.own.step_ms
    copied, times = tape.gather(made_ms), 50 if device.type == "cuda" else 1  # in a row: to wait takes a device longer
    room = torch.empty_like(copied)

    def often(work: Callable[[], object]) -> Sample:
        whole = waited(lambda: [work() for _ in range(times)], device)
        return Sample(whole.wall / times, whole.processor / times)

    samples = take_turns(
        repeats,
        {"gather": lambda: often(lambda: tape.gather(made_ms)), "copy": lambda: often(lambda: room.copy_(copied))},
        warm_ups=("gather", "copy"),
    )
    seconds, size = samples["gather"].median, copied.numel() * copied.element_size()
    share = samples["copy"].median / seconds
    return [
        Figure(
            name=f"gather on the device, [{BATCH}, {LENGTH}, {copied.shape[2]}]",
            goal="60 % of the bandwidth of a copy",
            measured=f"{BATCH / seconds:,.0f} frames/s, {size / seconds / GIB:,.1f} GiB/s written",
            ratio=f"{share:.2f} of a copy",
            is_reached=judged(device, share >= 0.6),
            samples=samples,
        )
    ]


def one_learner(market: Scene, device: torch.device, repeats: int) -> list[Figure]:
    """A year of minutes, by a stretch as long as what is remembered (a GPU takes as many of them as make a year); and
    its training steps, by what of the matrix peak they take."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # of the fused one it counts nothing on a processor
        (first,) = Learning.of(market, torch.device("cpu")).go(60)
    each = counter.get_total_flops() / max(len(first.steps), 1)
    took, closes, steps = Samples(), closes_on(device).tried, 0
    for _ in range(-(-YEAR // closes) if device.type == "cuda" else repeats):
        one = begun(market, device)
        before = one.learners[0].number
        took.runs.append(one.timed(closes))
        steps = one.learners[0].number - before  # the same each time
    notes = list(device_share(market, device))
    if graphs := one.learners[0].graphs:
        vain = sum(recorded is None for recorded in graphs.recorded.values())
        notes.append(f"{len(graphs.recorded) - vain} kinds of work are recorded, {vain} could not be")
    peak, whole = matrix_peak(device), took.median * YEAR / closes
    return [
        Figure(
            name="one year of 1m, default model and cadence",
            goal="60 s on one H200; 900 s on two cores",
            measured=f"{closes / took.median:,.0f} closes/s: {whole:,.0f} s at the rate of {closes:,} closes",
            ratio=f"{whole / (60 if device.type == 'cuda' else 900):.2f} of the limit",
            is_reached=judged(device, whole <= 60),
            samples={f"{closes:,} closes": took},
            notes=notes,
        ),
        Figure(
            name="training steps, batch 32, one learner, predictions included",
            goal="reported",
            measured=f"{steps / took.median:,.0f} steps/s, {each / 1e6:,.0f} MFLOP each",
            ratio=f"{steps * each / took.median / peak:.1%} of {peak / 1e12:,.2f} TFLOP/s, float32",
            is_reached=None,
            samples={f"{steps:,} steps": took},
        ),
    ]


def sweeping(market: Scene, device: torch.device, repeats: int) -> list[Figure]:
    """The cost of many learners at once over that of one."""
    counts = [count for count in (1, 4, 16, 64, MOST) if device.type == "cuda" or count <= 16]
    took, closes = {count: Samples() for count in counts}, closes_on(device).swept
    for nth in range(min(repeats, 3)):
        for count in counts:
            if count <= 64 or nth == 0:
                took[count].runs.append(begun(market, device, count).timed(closes))
    costs = {count: each.median / took[1].median for count, each in took.items()}
    most = max(count for count in counts if count <= 64)
    return [
        Figure(
            name="learners at once, as one computation",
            goal="64 for less than 6 times one",
            measured=", ".join(f"{count}: {cost:.1f}" for count, cost in costs.items()),
            ratio=f"{most} cost {costs[most]:.1f} times one",
            is_reached=judged(device, costs[most] < 6),
            samples={f"{count} learners, {closes} closes": each for count, each in took.items()},
        )
    ]


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
    learning, closes = begun(market, device), closes_on(device).swept
    wall = learning.timed(closes).wall  # a profiler would make it longer
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        learning.timed(closes)
    own = [event for event in seen.key_averages() if not event.is_user_annotation]
    busy = sum(event.self_device_time_total for event in own) / 1e6
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
