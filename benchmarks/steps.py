"""One training step of each model: milliseconds, and the share that passes outside forward, backward and optimizer."""

from statistics import median
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.sampling import Sample, Samples
from benchmarks.timers import Watched, watching

SHARE = 0.15
CLOSES = 120  # in each run: some 18 steps
INSIDE = "forward, backward, optimizer"
FRAMES = ("standard", "own")


def measure(repeats: int) -> Figure:
    """Batches of 32 of a stretch of closes, model after model in rounds, with the frame of all blocks and of one."""
    runs = {
        frame: fresh.run(train_in_turn, {"OMP_NUM_THREADS": "1"}, frame=frame, repeats=repeats).result
        for frame in FRAMES
    }
    notes, samples, shares = [], {}, {}
    for frame, by_model in runs.items():
        for model, found in by_model.items():
            parts = {part: 1000 * median(run[part] for run in found["parts"]) for part in found["parts"][0]}
            outside = median(1 - run[INSIDE] / sum(run.values()) for run in found["parts"])
            shares[f"{model}, {frame} frame"] = outside
            samples[f"{model}, {frame} frame"] = Samples([Sample(*each) for each in found["steps"]])
            told = ", ".join(f"{part} {took:.2f}" for part, took in sorted(parts.items(), key=lambda each: -each[1]))
            notes.append(f"{model}, {frame} frame: {outside:.1%} outside; ms: {told}")
    most = max(shares, key=lambda name: shares[name])
    return Figure(
        name="one training step, batch 32",
        goal=f"under {SHARE:.0%} outside forward, backward and optimizer",
        measured=f"at most {shares[most]:.1%} ({most})",
        ratio=f"{shares[most] / SHARE:.2f} of the limit",
        is_reached=shares[most] < SHARE,
        samples=samples,
        notes=notes,
    )


def train_in_turn(frame: str, repeats: int) -> dict[str, Any]:
    """Of each model the seconds of a step, wall and processor, and where they went, for each run of CLOSES closes."""
    import time

    import numpy as np
    import torch

    from benchmarks.made_up import MODELS, OWN, STANDARD, scene
    from hindsight.configured import cadence_of, hyperparameters, replay_of
    from hindsight.training import engine, loop
    from hindsight.training.learner import new_learner
    from hindsight.training.predict import predict
    from hindsight.training.step_records import step_records

    torch.set_num_threads(1)
    market = scene(STANDARD if frame == "standard" else OWN)
    cadence, replay, device = cadence_of(market.settings), replay_of(market.settings), torch.device("cpu")
    blocks = {model: market.blocks(model) for model in MODELS}
    memories = {model: market.memory(model) for model in MODELS}
    learners = {
        model: new_learner(model, hyperparameters(market.settings), device, blocks[model].shape) for model in MODELS
    }
    found: dict[str, dict[str, list[Any]]] = {model: {"steps": [], "parts": []} for model in MODELS}
    for run in range(repeats + 1):
        first = market.now + run * CLOSES
        for model in MODELS:
            every = np.ones(len(memories[model].made), np.bool_)
            predict(learners[model], blocks[model], memories[model], every, first, first + CLOSES)
            with watching(_watched(), clock=time.process_time) as spent:
                began, processor = time.perf_counter(), time.process_time()
                lesson = loop.lesson(
                    learners[model],
                    blocks[model],
                    market.labels,
                    memories[model],
                    first,
                    first + CLOSES,
                    market.l2_rows,
                    cadence=cadence,
                    replay=replay,
                    snapshot=lambda _: {},
                )
                learned = engine.alone(learners[model], lesson)
                recording = time.process_time()
                step_records(model, market.stream, learners[model], learned.steps, "")
                ended, processed = time.perf_counter(), time.process_time()
            spent["records"], steps = processed - recording, len(learned.steps)
            if run:  # the first makes room for what the later ones use again
                found[model]["steps"].append(((ended - began) / steps, (processed - processor) / steps))
                found[model]["parts"].append({name: seconds / steps for name, seconds in spent.items()})
    return found


def _watched() -> list[Watched]:
    from hindsight.inference.blocks import Blocks
    from hindsight.training import engine, loop, objective, q_learning

    return [
        (engine, "alone", "the rest of the loop"),
        (loop, "drifted", "drift"),
        (loop, "newly_settled", "what an event settles"),
        (loop, "_replayed", "replay draw"),
        (Blocks, "gather", "gather"),
        (objective.Supervised, "batch", "batch"),
        (objective.Supervised, "corrective", "corrective"),
        (engine, "train_step", INSIDE),
        (q_learning.QLearning, "corrective", "corrective"),
        (q_learning.QLearning, "batch", "batch"),
        (q_learning.QLearning, "remembered", "transitions"),
    ]
