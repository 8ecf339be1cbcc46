"""How the models of a trial did, day by day, beside the baselines and each other, and how sure that is.

A loss is the mean of a UTC day; what two predictors lost on the same days is compared with the evidence that also
decides who serves: the days are the blocks, each seven times as long as the longest answer takes. Judged are the days
after the one on which weights were frozen, on which all ways speak.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.figure import wide_console
from benchmarks.real_trial import (
    FROZEN,
    HINDSIGHT,
    REFIT,
    WITHOUT_REPLAY,
    Trial,
    is_said,
    recalled,
    refit_file,
)
from benchmarks.sampling import machine
from hindsight.inference.evidence import Evidence, paired_evidence
from hindsight.inference.gate_state import GateState
from hindsight.inference.mixture import CONTEXT, Closes, GateRule, mix
from hindsight.inference.predictions import BUY, SERVED, WIDTH
from hindsight.market.streams import to_ms
from hindsight.recall import Market
from hindsight.store.inference_tables import learned_until
from hindsight.store.warehouse import Warehouse
from hindsight.training.memory import Memory
from hindsight.training.scores import score_days

TARGETS = ("action", "trend", "next_pivot")
PRIOR, MIXTURE, EQUAL = "class_prior", "mixture", "equal average"
WAYS = (HINDSIGHT, WITHOUT_REPLAY, FROZEN, REFIT)
DAY_MS, DAY_ROWS = 86_400_000, 1440


def report(trial: Trial) -> None:
    """Prints who lost how much, and by how much less than the class prior and than the same model in hindsight."""
    console = wide_console()
    found = {model: said_by(trial, model) for model in trial.models if is_learned(trial, HINDSIGHT, model)}
    if not found:
        console.print(f"{trial.symbol}: nothing is learned up to {trial.until:%Y-%m-%d}")
        return
    market, memory = recalled(trial.settings(HINDSIGHT), next(iter(found)), trial.until)
    scores = [
        _scored(trial, market, memory, predictions, model, way)
        for model, ways in found.items()
        for way, predictions in ways.items()
    ]
    scores += [
        _scored(trial, market, memory, predictions, name, way).filter(pl.col("target") == "action")
        for way in WAYS
        for name, predictions in mixed(
            market, memory, {model: ways[way] for model, ways in found.items() if way in ways}
        )
    ]
    together = pl.concat(scores).unique(["predictor", "way", "day", "target"], keep="first", maintain_order=True)
    judged = together.filter(pl.col("day") > trial.frozen_at.date())
    if judged.is_empty():
        console.print(f"{trial.symbol}: no day after {trial.frozen_at:%Y-%m-%d} is complete by {trial.until:%Y-%m-%d}")
        return
    console.print(machine(), highlight=False)
    _show_losses(console, trial, judged)
    _show_ways(console, judged)
    for way in (HINDSIGHT, WITHOUT_REPLAY):
        took = trial.settings(way).home / "took.json"
        for name, (closes, steps, wall, processor) in json.loads(took.read_text()).items() if took.exists() else ():
            each = f"{1000 * processor / closes:.2f} processor ms a close"
            console.print(f"{name}: {closes:,} closes, {steps:,} steps, {wall:.0f} s, {each}", highlight=False)


def is_learned(trial: Trial, way: str, model: str) -> bool:
    """Whether a model has been taken to the end of the trial."""
    settings = trial.settings(way)
    if not settings.warehouse_path.exists():
        return False
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=60).reading() as con:
        until = learned_until(con, model, settings.streams[0])
    return until is not None and until[1] >= trial.until


def said_by(trial: Trial, model: str) -> dict[str, np.ndarray]:
    """The predictions [N, 17] of each way of a model that has been run to the end; NaN where it said nothing."""
    _, memory = recalled(trial.settings(HINDSIGHT), model, trial.until)
    frozen = np.full_like(memory.predictions, np.nan)
    frozen[:, SERVED] = memory.served
    ways = {HINDSIGHT: memory.predictions, FROZEN: frozen}
    if is_learned(trial, WITHOUT_REPLAY, model):
        ways[WITHOUT_REPLAY] = recalled(trial.settings(WITHOUT_REPLAY), model, trial.until)[1].predictions
    if all(is_said(trial, model, stretch) for stretch in trial.refits):
        ways[REFIT] = np.full_like(memory.predictions, np.nan)
        for stretch in trial.refits:
            kept = np.load(refit_file(trial, model, stretch))
            ways[REFIT][kept["rows"] - memory.first_row] = kept["said"]
    return ways


def mixed(market: Market, memory: Memory, said: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """What the gate, and the equal average, make of what several models said: predictions [N, 17] of nothing else."""
    if len(said) < 2:
        return []
    at = np.flatnonzero(memory.made)
    candle = market.labels.candle
    moved = candle.usable & (candle.log_returns[:, 3] != 0)
    angle = 2 * math.pi * ((at + memory.first_row + 1) * market.blocks.own.step_ms % DAY_MS) / DAY_MS
    known = {
        "volatility": np.log(memory.norm_params[at, 1]),
        "day_sine": np.sin(angle),
        "day_cosine": np.cos(angle),
    }
    buy = np.column_stack([predictions[at, BUY] for predictions in said.values()])
    closes = Closes(
        rows=at + memory.first_row,
        buy=buy,
        context=np.column_stack([known.get(feature.name, np.full(len(at), np.nan)) for feature in CONTEXT]),
        up=np.where(moved, candle.log_returns[:, 3] > 0, -1).astype(np.int8)[at],
        settled=candle.settled[at],
    )
    _, found = mix(GateState.initial(tuple(said), [feature.name for feature in CONTEXT]), closes, GateRule())
    heard = np.isfinite(buy)
    equal = np.where(heard.any(axis=1), np.nansum(buy, axis=1) / np.maximum(heard.sum(axis=1), 1), np.nan)
    made = []
    for name, probability in ((MIXTURE, found.probability), (EQUAL, equal)):
        predictions = np.full((len(memory.made), WIDTH), np.nan, np.float32)
        predictions[at, BUY] = probability
        made.append((name, predictions))
    return made


def _scored(trial: Trial, market: Market, memory: Memory, predictions: np.ndarray, name: str, way: str) -> pl.DataFrame:
    """Daily sums of one predictor, and of the baselines on the same references: these are of no way."""
    settings = trial.settings(HINDSIGHT)
    stream, first = settings.streams[0], market.labels.first_row
    end = to_ms(trial.until) // stream.step_ms
    asked = replace(memory, predictions=predictions)
    scores = score_days(market.blocks.own, asked, market.labels, first, end, settings.trend_ttl, stream, name)
    is_model = pl.col("predictor") == "model"
    return scores.filter(pl.col("target").is_in(TARGETS)).select(
        "day",
        "target",
        "settled",
        "correct",
        "log_loss_sum",
        predictor=pl.when(is_model).then(pl.lit(name)).otherwise("predictor"),
        way=pl.when(is_model).then(pl.lit(way)).otherwise(pl.lit("")),
    )


def _daily(scores: pl.DataFrame, predictor: str, way: str, targets: tuple[str, ...]) -> pl.DataFrame:
    """day and loss: the mean of each target, added up."""
    chosen = scores.filter(pl.col("predictor") == predictor, pl.col("way") == way, pl.col("target").is_in(targets))
    return chosen.group_by("day").agg(loss=(pl.col("log_loss_sum") / pl.col("settled")).sum()).sort("day")


def _against(before: pl.DataFrame, after: pl.DataFrame) -> Evidence:
    """What the days that both have say of the second."""
    both = before.join(after, on="day", suffix="_after").sort("day")
    rows = both["day"].to_physical().cast(pl.Int64).to_numpy() * DAY_ROWS
    losses = (both["loss"].to_numpy(), both["loss_after"].to_numpy())
    return paired_evidence(rows, *losses, block=DAY_ROWS, embargo_until_row=0, seed=0)


def _show_losses(console: Console, trial: Trial, scores: pl.DataFrame) -> None:
    title = f"{trial.symbol} 1m, {scores['day'].min()} to {scores['day'].max()}, {scores['day'].n_unique()} days"
    sums = scores.group_by("target", "predictor", "way", maintain_order=True).agg(
        pl.sum("log_loss_sum", "correct", "settled")
    )
    for target in TARGETS:
        of_target = sums.filter(pl.col("target") == target).sort(pl.col("way") != "", "predictor", maintain_order=True)
        table = Table(
            "",
            "weights",
            "log loss",
            "right",
            "less than the class prior by",
            title=f"{title}: {target}, {of_target['settled'].max():,} answers",
            title_justify="left",
        )
        prior = _daily(scores, PRIOR, "", (target,))
        for _, predictor, way, loss, correct, settled in of_target.iter_rows():
            gain = "" if predictor == PRIOR else _gain(_against(prior, _daily(scores, predictor, way, (target,))))
            table.add_row(predictor, way, f"{loss / settled:.5f}", f"{100 * correct / settled:.2f} %", gain)
        console.print(table)


def _show_ways(console: Console, scores: pl.DataFrame) -> None:
    table = Table("", "weights", "loss less than in hindsight by", "days", title="All targets", title_justify="left")
    for predictor, way in scores.select("predictor", "way").unique(maintain_order=True).iter_rows():
        if way in ("", HINDSIGHT):
            continue
        targets = ("action",) if predictor in (MIXTURE, EQUAL) else TARGETS
        daily, own = (_daily(scores, predictor, each, targets) for each in (HINDSIGHT, way))
        evidence = _against(daily, own)
        table.add_row(predictor, way, _gain(evidence), str(evidence.blocks))
    console.print(table)


def _gain(evidence: Evidence) -> str:
    return f"{-evidence.difference:+.5f} ({-evidence.high:+.5f} … {-evidence.low:+.5f})"
