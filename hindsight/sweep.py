"""Sweep: one model over the same history with many settings, each from nothing, ranked by prequential loss.

It reads the market's tables and leaves its rows in `sweeps`; the learners of the home are not touched. On a GPU all
variations are one computation where the model allows it, otherwise they are taught side by side on the processor's
cores. A variation learns and predicts as the loop does, so every loss is of a prediction that was made before its
answer; but of many, the first is also the luckiest: see the interval of its lead, and the second half. One that comes
to predict what is not a number is taught no further: it comes last, and its loss is NaN.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl
import torch
import xxhash

from hindsight.configured import (
    cadence_of,
    device_of,
    drift_rule,
    gpu_failures_told,
    hyperparameters,
    replay_of,
    schema_of,
    shape_of,
)
from hindsight.errors import ModelBroken, SettingRefused
from hindsight.inference.evidence import paired_evidence
from hindsight.inference.labels import PENDING, Labels
from hindsight.inference.losses import reference_losses
from hindsight.inference.predictions import SERVED
from hindsight.inference.shape import FrameShape
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.promote import HORIZONS_PER_BLOCK
from hindsight.recall import Known, new_memory, recall_stretch
from hindsight.recall_blocks import known_until
from hindsight.settings import Settings, load
from hindsight.store.market_tables import pivot_mark
from hindsight.store.sweep_tables import SWEEP, read_sweeps, replace_sweep
from hindsight.store.warehouse import Warehouse
from hindsight.training.engine import Lesson, alone
from hindsight.training.learner import Learner, new_learner
from hindsight.training.loop import Learned, lesson
from hindsight.training.memory import Memory
from hindsight.training.models.registry import model_of
from hindsight.training.resident import on_device
from hindsight.training.stack import Stack, can_be_stacked, together

# How a model learns: neither what it sees nor what it is asked, so that all are judged on the same references.
VARIED = (
    "learning_rate",
    "weight_decay",
    "clip_norm",
    "average_decay",
    "seed",
    "train_every",
    "batch_size",
    "replay_window",
    "replay_minimum",
    "corrective_weight",
    "max_uses",
    "retrain_steps",
    "drift_cool_down",
)
PIECE = 20_160  # closes at a time
NEVER = 2**31  # steps between snapshots: a sweep keeps none
WEEK_MS = 7 * 86_400_000
Progress = Callable[[int, int], None]
logger = logging.getLogger(__name__)


class Variation(NamedTuple):
    """What is varied, and all settings with it."""

    values: dict[str, object]
    settings: Settings


def grid_of(varied: Sequence[str]) -> dict[str, list[object]]:
    """From lines like "seed=0,1,2" to the values of each setting. Raises SettingRefused for a line of another form."""
    grid: dict[str, list[object]] = {}
    for line in varied:
        name, is_given, values = line.partition("=")
        if not is_given:
            raise SettingRefused(f"to vary a setting: expected NAME=VALUE,VALUE, found {line!r}")
        given = [value.strip() for value in values.split(",") if value.strip()]
        if name.strip() in grid or len(set(given)) < len(given):
            raise SettingRefused(f"to vary a setting: name it once, and each value once; found {line!r}")
        grid[name.strip()] = list(given)
    return grid


def variations(settings: Settings, grid: Mapping[str, Sequence[object]]) -> list[Variation]:
    """Every combination of the values of `grid`. Raises SettingRefused for what cannot be varied or is out of range."""
    for name, values in grid.items():
        if name not in VARIED:
            raise SettingRefused(f"a sweep varies {', '.join(VARIED)}; {name!r} cannot be varied")
        if not values:
            raise SettingRefused(f"a sweep needs values of {name}, as in {name}=1,2")
    kept = settings.model_dump()
    found = []
    for values in product(*grid.values()):
        chosen = load(**kept | dict(zip(grid, values, strict=True)))
        found.append(Variation({name: getattr(chosen, name) for name in grid}, chosen))
    return found


def sweep(
    settings: Settings,
    stream: Stream,
    model: str,
    window: Window,
    grid: Mapping[str, Sequence[object]],
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Teaches every variation over `window`, as far as it is recorded, and returns the rows of `sweeps`, best first.

    The same again replaces those rows. Raises SettingRefused where nothing of the window is recorded.
    """
    started, chosen = time.perf_counter(), variations(settings, grid)
    torch.set_num_threads(settings.threads)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    shape, device = shape_of(settings, stream, model), device_of(settings)
    with warehouse.reading() as con:
        first, end = _recorded(con, settings, stream, shape, window)
    with gpu_failures_told(f"{len(chosen)} variations of {model}"):
        learners = [new_learner(model, hyperparameters(each.settings), device, shape) for each in chosen]
        stack = Stack(learners) if device.type != "cpu" and can_be_stacked(learners[0]) else None
    reach = max(_reach(each.settings) for each in chosen)
    memories: list[Memory] = []
    broken: set[int] = set()
    judged, losses = first, [list[np.ndarray]() for _ in chosen]
    for start in range(first, end, PIECE):
        stop = min(start + PIECE, end)
        with warehouse.reading() as con:
            market = recall_stretch(con, settings, stream, shape, max(first, start - reach), stop)
        empty, _ = new_memory(model_of(model), market.blocks, market.labels, start)
        memories = [continued(deepcopy(empty), memory, start) for memory in memories or [empty for _ in chosen]]
        with gpu_failures_told(f"{len(chosen)} variations of {model}"):
            broken |= _teach(learners, memories, market, chosen, broken, start, stop, stack)
        if len(broken) == len(chosen):
            raise ModelBroken(f"every variation of {model} came to predict what is not a number: vary something else")
        until = max(stop - settings.trend_ttl, judged)
        span = slice(judged - empty.first_row, until - empty.first_row)
        answers = answered_in(market.labels, settings.trend_ttl)
        for kept, memory in zip(losses, memories, strict=True):
            kept.append(reference_losses(answers, memory.predictions[:, SERVED], stop - 1)[span])
        judged = until
        if progress:
            progress(stop - first, end - first)
    rows = _ranked(
        settings,
        stream,
        model,
        Window(start=from_ms(first * stream.step_ms), end=from_ms(end * stream.step_ms)),
        chosen,
        learners,
        np.array([np.concatenate(each) for each in losses], np.float64),
        broken,
        first,
        time.perf_counter() - started,
    )
    with warehouse.writing() as con:
        replace_sweep(con, stream, rows)
    return rows


def continued(fresh: Memory, before: Memory, start: int) -> Memory:
    """`fresh`, with all that is remembered of the rows before `start` by the one before it."""
    low, high = max(fresh.first_row, before.first_row), min(start, before.first_row + len(before.made))
    if low < high:
        into, source = (slice(low - each.first_row, high - each.first_row) for each in (fresh, before))
        for name in ("norm_params", "made", "predictions", "hidden", "extras", "trend", "checkpoint", "uses"):
            getattr(fresh, name)[into] = getattr(before, name)[source]
    fresh.trained_as_candle = max(before.trained_as_candle, fresh.first_row)
    return fresh


def answered_in(labels: Labels, closes: int) -> Labels:
    """The labels without pivots that came more than so many closes after the prediction: how many there are of those
    depends on how far one looks."""
    rows = np.arange(labels.first_row, labels.first_row + len(labels.pivot.settled))
    settled = np.where(labels.pivot.settled <= rows[:, None] + closes, labels.pivot.settled, PENDING)
    return replace(labels, pivot=replace(labels.pivot, settled=settled))


def _reach(settings: Settings) -> int:
    """How many closes before it a close looks at."""
    drift = 2 * drift_rule(settings).restart_every if settings.retrain_steps else 0
    return max(settings.replay_window, settings.trend_ttl, drift) + settings.predict_every


def _recorded(
    con: duckdb.DuckDBPyConnection, settings: Settings, stream: Stream, shape: FrameShape, window: Window
) -> tuple[int, int]:
    """The rows of the window of which all is known that frames ask for. Raises SettingRefused where there are none."""
    mark, known = pivot_mark(con, stream), known_until(con, settings, stream, shape, None)
    there = (max(window.start, mark.since), min(window.end, known)) if mark and known else (window.start, window.start)
    first, end = (to_ms(moment) // stream.step_ms for moment in there)
    if first >= end:
        raise SettingRefused(f"nothing of {stream} is recorded over {window}. `hindsight backfill` records it")
    return first, end


def stored_sweeps(settings: Settings) -> list[pl.DataFrame]:
    """The rows of every sweep that is stored, the best of each first."""
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds).reading() as con:
        return read_sweeps(con).partition_by("sweep_id", maintain_order=True)


def _teach(
    learners: Sequence[Learner],
    memories: Sequence[Memory],
    market: Known,
    chosen: Sequence[Variation],
    broken: Set[int],
    start: int,
    stop: int,
    stack: Stack | None,
) -> set[int]:
    """The closes of rows [start, stop), to every learner that is not broken; returns which ones have broken now."""
    seen = on_device(market.blocks, learners[0].device)
    lessons = [
        lesson(
            learner,
            market.blocks,
            market.labels,
            memory,
            start,
            stop,
            market.l2_rows,
            cadence=replace(cadence_of(each.settings), snapshot_every=NEVER),
            replay=replay_of(each.settings),
            snapshot=lambda _: {},
            seen=seen,
        )
        for learner, memory, each in zip(learners, memories, chosen, strict=True)
    ]
    kept = [_unless(at in broken, each) for at, each in enumerate(lessons)]
    if stack is not None:
        whole = together(stack, kept)
    else:
        with ThreadPoolExecutor(os.cpu_count() if learners[0].device.type == "cpu" else 1) as pool:
            whole = list(pool.map(alone, learners, kept))
    return {at for at, is_whole in enumerate(whole) if not is_whole}


def _unless(is_broken: bool, lesson: Lesson[Learned]) -> Lesson[bool]:
    """The lesson as far as it goes; returns whether that is to its end."""
    if is_broken:
        return False
    try:
        yield from lesson
    except ModelBroken as error:
        logger.warning("A variation is taught no further: %s", error)
        return False
    return True


def _ranked(
    settings: Settings,
    stream: Stream,
    model: str,
    window: Window,
    chosen: Sequence[Variation],
    learners: Sequence[Learner],
    losses_SN: np.ndarray,
    broken: Set[int],
    first: int,
    seconds: float,
) -> pl.DataFrame:
    """A row per variation, the least mean loss first, and the broken ones last."""
    whole = [at for at in range(len(chosen)) if at not in broken]
    rows = np.flatnonzero(~np.isnan(losses_SN[whole]).any(axis=0))
    losses_SN = losses_SN[:, rows]
    losses_SN[sorted(broken)] = np.nan  # what one had said before is no measure of it
    if not len(rows):
        raise SettingRefused(f"no reference of {model} on {stream} was answered over {window}: ask for a longer window")
    order = np.argsort(losses_SN.mean(axis=1), kind="stable").tolist()
    best, (_, week) = order[0], np.unique((rows + first) * stream.step_ms // WEEK_MS, return_index=True)
    counts = np.diff(np.append(week, len(rows)))
    asked = sorted(json.dumps(each.values, sort_keys=True) for each in chosen)
    text = (
        f"{model} {stream} {window} {schema_of(settings, stream, model)} {hyperparameters(settings)}"
        f" {cadence_of(settings)} {replay_of(settings)} {asked}"
    )
    name, found = xxhash.xxh3_64_hexdigest(text.encode()), []
    for place, index in enumerate(order, start=1):
        loss_N = losses_SN[index]
        evidence = paired_evidence(
            rows + first,
            losses_SN[best],
            loss_N,
            block=HORIZONS_PER_BLOCK * settings.trend_ttl,
            embargo_until_row=first,
            seed=settings.seed,
        )
        finite = np.isfinite([evidence.low, evidence.high]).all()
        found.append(
            {
                "sweep_id": name,
                "model": model,
                "since": window.start,
                "until": window.end,
                "place": place,
                "settings": json.dumps(chosen[index].values),
                "references_judged": len(rows),
                "steps": learners[index].number,
                "loss": float(loss_N.mean()),
                "loss_late": float(loss_N[len(rows) // 2 :].mean()),
                "difference": evidence.difference,
                "difference_low": evidence.low if finite else None,
                "difference_high": evidence.high if finite else None,
                "weekly_loss": (np.add.reduceat(loss_N, week) / counts).tolist(),
                "device": str(learners[index].device),
                "seconds": seconds,
            }
        )
    return pl.DataFrame(found, schema=SWEEP)
