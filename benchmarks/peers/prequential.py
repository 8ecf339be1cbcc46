"""What was said of each next candle before it was known: beside FreqAI, which trains anew on a window of days.

Both sides are given the same candles of ETH/USDT and nothing else, and speak of the same candles after END.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from benchmarks.figure import Figure
from benchmarks.homes import ETH, FILES
from benchmarks.peers.environments import take
from benchmarks.peers.freqai import CANDLES, END, FREQAI, JOBS, OURS, THEIRS, our_learning
from benchmarks.peers.turns import Taken
from hindsight.inference.evidence import Evidence, paired_evidence
from hindsight.inference.losses import log_loss, of_what_came
from hindsight.market.streams import to_ms

COUNT, EVERY = 10_000, 500
# What LightGBM is given where it is to lose least, and not what is documented: few, small and slow trees, of all rows
GENTLE = {
    "data_split_parameters": {"test_size": 0},
    "model_training_parameters": {
        "n_jobs": JOBS, "n_estimators": 100, "learning_rate": 0.01, "num_leaves": 7, "min_child_samples": 500,
    },
}  # fmt: skip


def measure(_repeats: int) -> list[Figure]:
    """At its promised size, once: the same command says the same."""
    return [prequential(days=15, candles=COUNT, every=EVERY)]


def prequential(*, days: int, candles: int, every: int, jobs: int = JOBS) -> Figure:
    """The log loss of the direction of each next candle, said before it was known, over the same candles."""
    given = {**CANDLES, "start_ms": to_ms(END), "candles": candles, "days": days, "every": every}
    took = {
        OURS: our_learning(days, candles),
        THEIRS: take(FREQAI, "freqai_prequential", **given, jobs=jobs, freqai={}),
        f"{THEIRS}, gentle": take(FREQAI, "freqai_prequential", **given, jobs=jobs, freqai=_gentle(jobs)),
    }
    rows, came = _directions(candles)
    losses = {name: _losses(run.result, rows, came) for name, run in took.items()}
    found = {
        name: paired_evidence(rows, loss, losses[OURS], block=every, embargo_until_row=0, seed=0)
        for name, loss in losses.items()
        if name != OURS
    }
    documented = found[THEIRS]
    return Figure(
        name=f"prequential log loss of the next candle's direction, {documented.references:,} candles",
        goal="not shown to be worse than FreqAI",
        measured=f"{documented.mean_challenger:.5f}, FreqAI {documented.mean_champion:.5f}",
        ratio=_interval(documented),
        is_reached=documented.low <= 0,
        samples=Taken(runs={name: [run] for name, run in took.items()}).samples,
        notes=(
            f"candles without a change have no direction and are left out; intervals of 95 % from blocks of {every} "
            "candles, each as long as a model of FreqAI's is in use; who knows nothing loses 0.69315",
            f"both begin {days} days before. FreqAI trains anew every {every} candles on those {days} days, the newest "
            f"quarter of them held out, as documented ({-(-candles // every)} trainings; live it would train as often "
            "as it can); ours takes a step every 15 candles",
            f"not documented, but kinder to LightGBM (few, small, slow trees, all rows): "
            f"{found[f'{THEIRS}, gentle'].mean_champion:.5f}; ours against it {_interval(found[f'{THEIRS}, gentle'])}",
            f"right: {', '.join(f'{name} {_right(run.result, came):.2%}' for name, run in took.items())}",
        ),
    )


def _gentle(jobs: int) -> dict[str, Any]:
    return {**GENTLE, "model_training_parameters": {**GENTLE["model_training_parameters"], "n_jobs": jobs}}


def _directions(candles: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of each of `candles` candles after END, and what the next one did: 1 rose, 0 fell, −1 neither."""
    first = to_ms(END)
    end = first + (candles + 1) * ETH.step_ms
    known = pl.scan_parquet(FILES[ETH]).filter(pl.col("ts_ms").is_between(first, end, closed="left")).collect()
    if len(known) != candles + 1:
        raise RuntimeError(f"expected {candles + 1:,} candles after {END}, found {len(known):,}")
    change = np.diff(known["close"].to_numpy())
    return known["ts_ms"].to_numpy()[:-1] // ETH.step_ms, np.where(change > 0, 1, np.where(change < 0, 0, -1))


def _losses(said: Mapping[str, Any], rows: np.ndarray, came: np.ndarray) -> np.ndarray:
    """The log loss at each row, NaN where nothing came. Raises RuntimeError where a side did not speak at a row."""
    if said["rows"] != rows.tolist():
        raise RuntimeError(f"expected a prediction at each of {len(rows):,} rows, found {len(said['rows']):,}")
    losses = log_loss(of_what_came(np.array(said["up"]), came == 1))
    return np.where(came >= 0, losses, np.nan)


def _right(said: Mapping[str, Any], came: np.ndarray) -> float:
    up = np.array(said["up"])[came >= 0] > 0.5
    return float((up == (came[came >= 0] == 1)).mean())


def _interval(evidence: Evidence) -> str:
    """Ours less theirs: below 0 ours is better."""
    return f"{evidence.difference:+.5f} ({evidence.low:+.5f} … {evidence.high:+.5f})"
