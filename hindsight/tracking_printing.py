"""Each model over time, for the terminal: its skill and its last weeks, where its loss rose, and what fails."""

from collections.abc import Mapping, Sequence
from textwrap import shorten

import polars as pl
from rich.console import Console

from hindsight.fact_table import print_facts, shown, slim_table
from hindsight.health.judge_skill import judge_skill
from hindsight.model_printing import signed
from hindsight.store.skills import DAYS, WEEK, SkillStanding

NAMES_WIDTH, LEARNER_WIDTH = 28, 25  # of a column of facts, and of one per model and stream
LEARNER = ("model", "venue", "symbol", "timeframe")
MESSAGE_LENGTH = 400
WEEKS = [f"{days} to {days + WEEK} days before" if days else f"newest {WEEK} days" for days in range(0, DAYS, WEEK)]


def print_tracking(console: Console, skills: Sequence[SkillStanding], drifts: pl.DataFrame) -> None:
    """Per model and stream: whether it has skill, its loss week by week beside its gain, and its drifts."""
    learners = [(each.model, each.stream.venue, each.stream.symbol, each.stream.timeframe) for each in skills]
    title = "Tracked: loss, and gain over the class prior"
    print_of_learners(console, title, {**_skill_facts(skills), **_drift_facts(learners, drifts)}, learners)


def print_failures(console: Console, failures: pl.DataFrame) -> None:
    """What fails now, with what it says, and what has failed before; nothing where nothing ever did."""
    if failures.is_empty():
        return
    table = slim_table("Failed: lessons and decisions that raised")
    for name in ("model", "error"):
        table.add_column(name)
    table.add_column("times", justify="right", no_wrap=True)
    for name in ("first, last", "over since"):
        table.add_column(name, no_wrap=True)
    for row in failures.iter_rows(named=True):
        about = f"{row['model']}\n{row['symbol']} {row['timeframe']}"  # all streams of a home are of one venue
        span = f"{shown(row['first_at'])}\n{shown(row['last_at'])}"
        over = "fails now" if row["ended_at"] is None else shown(row["ended_at"])
        style = "bold" if row["ended_at"] is None else None
        table.add_row(about, row["error"], shown(row["times"]), span, over, style=style)
    console.print(table)
    for row in failures.filter(pl.col("ended_at").is_null()).iter_rows(named=True):
        said = shorten(row["message"], MESSAGE_LENGTH, placeholder=" …")
        console.print(f"{row['model']}, {row['symbol']} {row['timeframe']}: {said}", markup=False, highlight=False)


def print_of_learners(
    console: Console, title: str, facts: Mapping[str, Sequence[object]], learners: Sequence[tuple[str, ...]]
) -> None:
    """A column per model and stream, in as many tables as the terminal is too narrow for."""
    fitting = max(1, (console.width - NAMES_WIDTH) // LEARNER_WIDTH)
    for some in (slice(start, start + fitting) for start in range(0, len(learners), fitting)):
        told = {name: values[some] for name, values in facts.items()}
        print_facts(console, title, told, [f"{m}\n{v} {s} {t}" for m, v, s, t in learners[some]])


def _skill_facts(skills: Sequence[SkillStanding]) -> dict[str, Sequence[object]]:
    """The gain with its standard error; a line per week, its loss and its gain, the newest first."""
    weeks = [[f"{loss:.4f} {signed(gain)}" for loss, gain in each.weeks] for each in skills]
    return {
        "skill": [judge_skill(each).figures["skill"] for each in skills],
        "days scored": [len(each.days) for each in skills],
        "gain a prediction": [_with_error(each) for each in skills],
        **{name: [told[nth] if nth < len(told) else None for told in weeks] for nth, name in enumerate(WEEKS)},
    }


def _with_error(skill: SkillStanding) -> str | None:
    if skill.gain is None:
        return None
    return f"{signed(skill.gain)} ± {shown(skill.gain_error)}"


def _drift_facts(learners: Sequence[tuple[str, ...]], drifts: pl.DataFrame) -> dict[str, Sequence[object]]:
    found = drifts.rows_by_key(LEARNER, named=True, unique=True)
    rows = [found.get(each, {}) for each in learners]
    losses = [f"{row['loss_before']:.4f}, {row['loss_after']:.4f}" if row else None for row in rows]
    return {
        "drifts": [row.get("drifts", 0) for row in rows],
        "steps they triggered": [row.get("retrain_steps", 0) for row in rows],
        "last drift": [row.get("last_drift") for row in rows],
        "… found by": [row.get("detector") for row in rows],
        "… loss before, after": losses,
        "… steps it triggered": [row.get("its_steps") for row in rows],
    }
