"""All models and the decision at one close, live: the compute between the market's facts and what to do about them."""

import time
from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.sampling import Sample, Samples

LIMIT_MILLISECONDS = 60.0
CLOSES = 40  # measured one by one, in each run
GATED = 3000  # closes that the gate has seen before
PENDING = 3  # closes that it is told of at once: the newest, and those whose answers it may still wait for


def measure(repeats: int) -> Figure:
    """Frames, models and gate of one close after the other, in processes of their own with one thread."""
    runs = [fresh.run(close_by_close, {"OMP_NUM_THREADS": "1"}).result for _ in range(repeats)]
    whole = Samples([Sample(*each) for run in runs for each in run["closes"]])
    each = {part: 1000 * median(run["parts"][part] for run in runs) for part in runs[0]["parts"]}
    milliseconds = 1000 * whole.median
    return Figure(
        name="four models and the decision at one close, standard frame with the book",
        goal=f"{LIMIT_MILLISECONDS:g} ms of compute",
        measured=f"{milliseconds:.1f} ms",
        ratio=f"{milliseconds / LIMIT_MILLISECONDS:.2f} of the limit",
        is_reached=milliseconds <= LIMIT_MILLISECONDS,
        samples={"a close": whole},
        notes=(
            f"minimum {1000 * whole.minimum:.1f} ms, processor {1000 * whole.processor:.1f} ms; medians of its parts:",
            *(f"  {took:6.2f} ms  {part}" for part, took in each.items()),
            f"a frame is {runs[0]['frame_bytes'] / 1000:.0f} kB; digests and tables are not counted",
        ),
    )


def close_by_close() -> dict[str, Any]:
    """Seconds of CLOSES closes, wall and processor, and the medians of their parts."""
    from copy import deepcopy

    import numpy as np
    import torch

    from benchmarks.made_up import MODELS, STANDARD, scene
    from hindsight.configured import decision_rule, hyperparameters
    from hindsight.inference.decisions import decide
    from hindsight.inference.gate_state import GateState
    from hindsight.inference.mixture import CONTEXT, Closes, GateRule, mix
    from hindsight.inference.normalisation import norm_params
    from hindsight.inference.predictions import BUY
    from hindsight.training.learner import new_learner
    from hindsight.training.predict import forward

    torch.set_num_threads(1)
    market, chance, rule = scene(STANDARD), np.random.default_rng(0), GateRule()
    blocks = {model: market.blocks(model) for model in MODELS}
    learners = {
        model: new_learner(model, hyperparameters(market.settings), torch.device("cpu"), blocks[model].shape)
        for model in MODELS
    }
    for learner in learners.values():  # a champion speaks beside each
        learner.serving, learner.serving_id = deepcopy(learner.average), 0
    candle = market.labels.candle
    spent: dict[str, list[float]] = defaultdict(list)

    def closes_of(rows: np.ndarray, buy: np.ndarray) -> Closes:
        at = rows - market.first
        return Closes(
            rows=rows,
            buy=buy,
            context=np.zeros((len(rows), len(CONTEXT))),
            up=(candle.log_returns[at, 3] > 0).astype(np.int8),
            settled=candle.settled[at],
        )

    past = np.arange(market.now - GATED, market.now)
    state, _ = mix(
        GateState.initial(MODELS, [feature.name for feature in CONTEXT]),
        closes_of(past, chance.uniform(0.4, 0.6, (GATED, len(MODELS)))),
        rule,
    )
    recent, found = chance.uniform(0.4, 0.6, (PENDING, len(MODELS))), []
    for row in range(market.now, market.now + CLOSES + 2):
        rows, said = np.array([row]), []
        began, processor = time.perf_counter(), time.process_time()
        for model in MODELS:
            started = time.perf_counter()
            norm = norm_params(blocks[model].own.gather(rows, blocks[model].shape.own.length))
            frame = blocks[model].gather(rows, norm)
            gathered = time.perf_counter()
            said.append(forward(learners[model], frame).predictions[:, BUY])
            spent[f"{model}: frame"].append(gathered - started)
            spent[f"{model}: forward"].append(time.perf_counter() - gathered)
        started = time.perf_counter()
        recent = np.concatenate([recent[1:], np.stack(said, axis=1)])
        state, mixed = mix(state, closes_of(np.arange(row - PENDING + 1, row + 1), recent), rule)
        decide(mixed.probability, decision_rule(market.settings)).reasons()
        spent["gate and decision"].append(time.perf_counter() - started)
        found.append((time.perf_counter() - began, time.process_time() - processor))
    seen = blocks["cnn"].gather(np.array([market.now]), np.empty((1, 4), np.float32)).seen
    return {
        "closes": found[2:],  # the first ones make room for what the later ones use again
        "parts": {part: median(seconds[2:]) for part, seconds in spent.items()},
        "frame_bytes": sum(block.nbytes for block in seen),
    }
