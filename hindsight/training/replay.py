"""Replay: which settled references a step trains on again, drawn by priority, bounded and importance-corrected.

Two priorities exist: `high` for a reference whose trend was predicted wrongly, `normal` for every other settled one. A
high one is `corrective_weight` times likelier to be drawn, but the high ones take no more than half of a draw (an odd
place goes by chance), and a reference that was trained on `max_uses` times is left alone.

Source of the correction: Schaul et al., "Prioritized Experience Replay", https://arxiv.org/abs/1511.05952, §3.4
"""

from dataclasses import dataclass

import numpy as np

from hindsight.inference.frames import Rows

HIGH_QUOTA = 0.5
TRIGGER_CODES = {"candle": 6, "pivot": 5, "drift": 7}  # any, but always the same: seeds are made of them
CORRECTION = 0.5  # the exponent β of the source: 0 corrects nothing, 1 undoes the priority altogether


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRule:
    """From how far back, and how unevenly, replay draws."""

    replay_window: int = 20_160
    replay_minimum: int = 4
    corrective_weight: float = 2.0
    max_uses: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The drawn references, the high ones first, and the importance of one of each kind."""

    rows: Rows
    high: int
    weight_normal: float
    weight_high: float


def step_seed(seed: int, event_row: int, trigger: str, nth: int = 0) -> int:
    """The 64-bit seed of the `nth` step of one event: it follows from event time alone."""
    words = [seed, event_row, TRIGGER_CODES[trigger], *([nth] if nth else [])]
    mixed = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return int(mixed[0])


def draw(normal: Rows, high: Rows, count: int, rule: ReplayRule, seed: int) -> Draw:
    """`count` different references out of those that may be drawn; fewer when there are fewer, or too few normal ones.

    `normal` and `high` are disjoint and hold only references that are settled, recent enough and below `max_uses`.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    available = len(normal) + len(high)
    count = min(count, available)
    pull = rule.corrective_weight * len(high)
    share = min(pull / (pull + len(normal)), HIGH_QUOTA) if count else 0.0
    of_high = min(int(share * count + generator.random()), len(high))
    of_normal = min(count - of_high, len(normal))
    of_high = min(of_high, of_normal + 1)
    count = of_high + of_normal
    if count == 0:
        return Draw(rows=np.empty(0, np.int64), high=0, weight_normal=1.0, weight_high=1.0)
    rows = np.concatenate([_choose(high, of_high, generator), _choose(normal, of_normal, generator)])
    return Draw(
        rows=rows,
        high=of_high,
        weight_normal=_importance(len(normal) / available, of_normal / count),
        weight_high=_importance(len(high) / available, of_high / count),
    )


def _choose(rows: Rows, count: int, generator: np.random.Generator) -> Rows:
    if count == 0:
        return np.empty(0, np.int64)
    return rows[generator.choice(len(rows), size=count, replace=False, shuffle=False)]


def _importance(natural_share: float, drawn_share: float) -> float:
    return (natural_share / drawn_share) ** CORRECTION if drawn_share > 0 else 1.0
