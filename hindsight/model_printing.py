"""The models for the terminal: the checkpoints that are kept, and the looks that decided which of them serves."""

from collections.abc import Sequence

import polars as pl
from rich.console import Console

from hindsight.fact_table import shown, slim_table
from hindsight.status import ModelStatus

SNAPSHOTS_SHOWN = 5  # of those that are kept for nothing else
PROMOTIONS_SHOWN = 5
FLAGS = ("best", "latest", "serving", "pinned", "snapshot")


def print_models(standings: Sequence[ModelStatus], console: Console) -> None:
    """Per model and stream: a line on what serves, the checkpoints, the last looks."""
    for each in standings:
        if each.checkpoints.is_empty():
            console.print(f"{each.model}, {each.stream}: has not learned yet.", highlight=False)
            continue
        console.print(_heading(each), style="bold", highlight=False)
        metric, direction = each.checkpoints.select("metric", "direction").row(-1)
        console.print(f"Ranked by {metric}; {direction} is better.", highlight=False)
        _print_checkpoints(console, each.checkpoints)
        if len(each.promotions):
            _print_promotions(console, each.promotions)


def _heading(each: ModelStatus) -> str:
    serving = each.checkpoints.filter("is_serving")["checkpoint_id"].to_list()
    changes = each.promotions.filter(pl.col("outcome") != "kept")
    if changes.is_empty() or serving != [changes["serving_after"][-1]]:
        return f"{each.model}, {each.stream}: the newest weights serve; nothing has been promoted yet"
    since = changes["event_time"][-1]
    return f"{each.model}, {each.stream}: checkpoint {serving[0]} serves, since {since:%Y-%m-%d %H:%M}"


def _print_checkpoints(console: Console, checkpoints: pl.DataFrame) -> None:
    is_plain = ~pl.any_horizontal("is_best", "is_latest", "is_serving", "is_pinned")
    plain = checkpoints.filter(is_plain)["checkpoint_id"].tail(SNAPSHOTS_SHOWN)
    table = slim_table()
    for name in ("checkpoint", "trained until", "value", "scored"):
        table.add_column(name, justify="left" if name == "trained until" else "right", no_wrap=True)
    table.add_column("kept as")
    for row in checkpoints.filter(~is_plain | pl.col("checkpoint_id").is_in(plain.implode())).iter_rows(named=True):
        flags = ", ".join(flag for flag in FLAGS if row[f"is_{flag}"]) or "for now"
        value = row["metric_value"] if row["metric"] == checkpoints["metric"][-1] else None
        figures = (str(row["checkpoint_id"]), *(shown(each) for each in (row["event_time"], value, row["scored"])))
        table.add_row(*figures, flags, style="bold" if row["is_serving"] else None)
    console.print(table)
    left_out = len(checkpoints.filter(is_plain)) - len(plain)
    if left_out:
        console.print(f"and {left_out:,} older ones", highlight=False)


def _print_promotions(console: Console, promotions: pl.DataFrame) -> None:
    """Two lines each: the ids above, the mean losses and the interval of their difference below."""
    table = slim_table()
    for name in ("at the close", "outcome", "champion", "challenger", "compared", "difference"):
        table.add_column(name, justify="left" if name in ("at the close", "outcome") else "right", no_wrap=True)
    for row in promotions.tail(PROMOTIONS_SHOWN).iter_rows(named=True):
        before = "-" if row["serving_before"] is None else str(row["serving_before"])
        outcome = row["outcome"].replace("rolled ", "rolled\n")  # eighty columns are few
        cells = [(shown(row["event_time"]),), (outcome,), (before,), (str(row["challenger"]),)]
        if row["references_compared"] is not None:
            cells[2] += (shown(row["loss_champion"]),)
            cells[3] += (shown(row["loss_challenger"]),)
            cells += [
                (shown(row["references_compared"]), f"{row['blocks']} blocks"),
                (signed(row["difference"]), f"[{signed(row['difference_low'])}, {signed(row['difference_high'])}]"),
            ]
        table.add_row(*("\n".join(lines) for lines in cells))
    console.print(table)


def signed(value: float | None) -> str:
    """A difference as a table shows it; "?" where nothing can be said."""
    return "?" if value is None else f"{value:+.4f}"
