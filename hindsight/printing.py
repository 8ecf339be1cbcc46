"""Tables for the terminal, narrow enough for eighty columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.table import Table

from hindsight.decision_printing import print_decisions, print_refused
from hindsight.fact_table import print_facts, shown
from hindsight.live_printing import print_live
from hindsight.model_printing import signed
from hindsight.status import Status
from hindsight.store.trading import DAYS
from hindsight.tracking_printing import LEARNER, print_failures, print_of_learners, print_tracking

if TYPE_CHECKING:
    from hindsight.remake import Remade  # imports torch, which takes over a second

MANY_REFERENCES = 100_000  # of fewer, the size of the file says more about DuckDB's blocks than about a reference
PIVOT_TYPES = ("L2L", "L2H", "L3L", "L3H")
PREDICTED = (  # what each of the 17 numbers of a prediction says; see hindsight.inference.predictions
    *("probability of up", "log return of open", "… of high", "… of low", "… of close"),
    *("probability of a downtrend", "… of sideways", "… of an uptrend", "probability that the next L2 pivot is a high"),
    *(f"log return to the next {kind}" for kind in PIVOT_TYPES),
    *(f"candles to the next {kind}" for kind in PIVOT_TYPES),
)


def print_status(status: Status, console: Console) -> None:
    """What is stored; per model and stream, what it has come to, over time and beside the baselines; what was
    decided; the feed."""
    if status.stored.is_empty():
        console.print("Nothing is stored yet. Start with [b]hindsight demo[/b] or [b]hindsight backfill --help[/b].")
        print_live(status.live, console)
        return
    print_facts(console, "Stored", _stored_facts(status), _streams(status.stored))
    learners = status.learned.select(LEARNER).rows()
    print_of_learners(console, "Learned", _learned_facts(status), learners)
    print_tracking(console, status.skills, status.drifts)
    print_failures(console, status.failures)
    print_refused(console, status.refused)
    for learner in learners:
        _print_scores(console, learner, _of(status.scores, learner))
    print_decisions(console, status.decisions, status.decision_scores)
    _print_trading(console, status.trading)
    if status.bytes_per_reference is not None and status.learned["references"].sum() >= MANY_REFERENCES:
        console.print(f"A reference takes at most {status.bytes_per_reference:.0f} bytes on disk, prediction included.")
    print_live(status.live, console)


def print_remade(remade: "Remade", console: Console) -> None:
    """One prediction as it is stored and as it was made again, number by number."""
    console.print(
        f"Reference {remade.inference_id}: {remade.model}, {remade.stream}, made at {remade.made_at:%F %T} UTC"
    )
    console.print(f"by the weights after step {remade.checkpoint_id:,}; the digest {remade.digest:016x} matches")
    table = Table("predicted", title="Stored and made again", title_justify="left")
    for name in ("stored", "made again", "difference"):
        table.add_column(name, justify="right")
    for name, stored, again in zip(PREDICTED, remade.stored.tolist(), remade.remade.tolist(), strict=True):
        table.add_row(name, f"{stored:.6f}", f"{again:.6f}", f"{abs(stored - again):.1e}")
    console.print(table)
    verdict = "the same" if remade.is_same else "NOT the same: another machine, or weights that cannot be brought back"
    console.print(f"Largest difference: {remade.difference:.1e}, {verdict}")


def _stored_facts(status: Status) -> dict[str, Sequence[object]]:
    stored = status.stored
    levels = {f"pivots of level {level}": stored[f"level_{level}"].to_list() for level in range(1, 6)}
    plain = ("candles", "first", "last", "missing", "refused", "not_yet_learned")
    return {**{name.replace("_", " "): stored[name].to_list() for name in plain}, **levels}


def _learned_facts(status: Status) -> dict[str, Sequence[object]]:
    trends = status.trends.rename({"accuracy": "trend_accuracy", "pending": "trends_pending", "total": "trends"})
    serving = status.checkpoints.filter("is_serving").select(*LEARNER, serving_checkpoint="checkpoint_id")
    best = (
        status.checkpoints.filter(pl.col("metric_value").is_not_null())
        .unique(LEARNER, keep="first", maintain_order=True)
        .select(*LEARNER, best_checkpoint="checkpoint_id", its_metric="metric", its_value="metric_value")
    )
    whole = status.learned
    for part in (trends, serving, best, status.looks):
        whole = whole.join(part, on=LEARNER, how="left", maintain_order="left")
    is_promoted = pl.col("serving") == pl.col("serving_checkpoint")
    whole = whole.with_columns(serving_since=pl.when(is_promoted).then("serving_since"))
    names = (
        *("references", "newest_reference", "settled", "unusable_outcomes", "learned_until", "candles_due"),
        *("trends", "validated", "correct", "trend_accuracy", "trends_pending", "expired"),
        *("steps", "steps_per_second", "serving_checkpoint", "serving_since"),
    )
    facts: dict[str, Sequence[object]] = {name.replace("_", " "): whole[name].to_list() for name in names}
    looks = whole.select("event_time", "outcome", "difference", "difference_low", "difference_high").rows()
    facts |= {
        "last look": [when for when, *_ in looks],
        "its outcome": [outcome for _, outcome, *_ in looks],
        "challenger - champion": [None if each is None else signed(each) for _, _, each, *_ in looks],
        "… lies within": [None if low is None else f"{signed(low)}, {signed(high)}" for *_, low, high in looks],
    }
    facts |= {name.replace("_", " "): whole[name].to_list() for name in ("best_checkpoint", "its_metric", "its_value")}
    return facts


def _print_scores(console: Console, learner: tuple[str, ...], scores: pl.DataFrame) -> None:
    """Target by target, best first: the model and its baselines on the same predictions."""
    if scores.is_empty():
        return
    title = f"{learner[0]}, {' '.join(learner[1:])}: scored before it was learned from (lower loss is better)"
    table = Table("target", "predictor", title=title, title_justify="left", title_style="bold")
    for name in ("settled", "accuracy", "loss", "calibration error"):
        table.add_column(name, justify="right")
    for _, part in scores.with_columns(loss=pl.coalesce("log_loss", "regression_loss")).group_by(
        "target", maintain_order=True
    ):
        for row in part.sort("loss").iter_rows(named=True):
            style = "bold" if row["predictor"] == "model" else None
            figures = ("settled", "accuracy", "loss", "expected_calibration_error")
            cells = (row["target"], row["predictor"], *(row[name] for name in figures))
            table.add_row(*(shown(cell) for cell in cells), style=style)
        table.add_section()
    console.print(table)


def _print_trading(console: Console, trading: pl.DataFrame) -> None:
    """What the positions of models have earned of late; one column each."""
    facts = trading.drop(LEARNER).rename({"turnover": "turnover_per_day", "sharpe": "sharpe_per_year"})
    columns = [f"{model}\n{' '.join(stream)}" for model, *stream in trading.select(LEARNER).iter_rows()]
    named = {name.replace("_", " "): facts[name].to_list() for name in facts.columns}
    print_facts(console, f"Traded on paper in the last {DAYS} days, net of fee and half_spread", named, columns)


def _streams(frame: pl.DataFrame) -> list[str]:
    return [" ".join(row) for row in frame.select("venue", "symbol", "timeframe").iter_rows()]


def _of(frame: pl.DataFrame, learner: tuple[str, ...]) -> pl.DataFrame:
    return frame.filter(pl.col(name) == value for name, value in zip(LEARNER, learner, strict=True))
