"""Decisions for the terminal: what was decided and from what, how good it was; and where nothing could be predicted."""

import polars as pl
from rich.console import Console
from rich.table import Table

from hindsight.fact_table import print_facts, shown, slim_table
from hindsight.store.trading import DAYS

STREAM = ("venue", "symbol", "timeframe")


def print_decisions(console: Console, decisions: pl.DataFrame, scores: pl.DataFrame) -> None:
    """Nothing where nothing was decided."""
    names = [" ".join(stream) for stream in decisions.select(STREAM).rows()]
    facts = {name.replace("_", " "): values.to_list() for name, values in decisions.drop(STREAM).to_dict().items()}
    print_facts(console, "Decided", facts, names)
    for stream, part in scores.group_by(STREAM, maintain_order=True):
        title = f"Decisions of {' '.join(map(str, stream))} where all models spoke, last {DAYS} days"
        table = Table("predictor", title=title, title_justify="left", title_style="bold")
        for name in ("closes", "accuracy", "loss", "acted", "right where acted"):
            table.add_column(name, justify="right")
        for row in part.sort("log_loss").iter_rows(named=True):
            figures = ("closes", "accuracy", "log_loss", "acted", "accuracy_where_acted")
            style = "bold" if row["predictor"] == "decision" else None
            table.add_row(row["predictor"], *(shown(row[name]) for name in figures), style=style)
        console.print(table)


def print_refused(console: Console, refused: pl.DataFrame) -> None:
    """Nothing where every frame was whole."""
    if refused.is_empty():
        return
    table = slim_table("Refused: closes without a prediction, because a block was not whole")
    for name in ("model", "block"):
        table.add_column(name)
    for name in ("closes", "fewest"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first, last", no_wrap=True)
    for row in refused.iter_rows(named=True):
        about = f"{row['model']}\n{row['symbol']} {row['timeframe']}"  # all streams of a home are of one venue
        span = f"{shown(row['first'])}\n{shown(row['last'])}"
        table.add_row(about, row["block"], shown(row["closes"]), f"{row['fewest']} of {row['need']}", span)
    console.print(table)
