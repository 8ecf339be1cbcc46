"""A sweep for the terminal: a line per variation, the best first."""

import json

import polars as pl
from rich.console import Console
from rich.table import Table

from hindsight.fact_table import shown
from hindsight.model_printing import signed


def print_sweep(rows: pl.DataFrame, console: Console) -> None:
    """The varied settings, the losses, and how far each is behind the first."""
    first = rows.row(0, named=True)
    title = (
        f"{first['model']} over {first['since']:%Y-%m-%d %H:%M} to {first['until']:%Y-%m-%d %H:%M}: prequential loss of"
        f" {first['references_judged']:,} references"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in (*json.loads(first["settings"]), "loss", "second half", "behind the first", "95 % of it", "steps"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows.iter_rows(named=True):
        interval = f"{signed(row['difference_low'])} … {signed(row['difference_high'])}" if row["place"] > 1 else "-"
        table.add_row(
            *(f"{each:g}" if isinstance(each, float) else str(each) for each in json.loads(row["settings"]).values()),
            *(f"{row[name]:.5f}" for name in ("loss", "loss_late")),
            signed(row["difference"]) if row["place"] > 1 else "-",
            interval,
            shown(row["steps"]),
        )
    console.print(table)
    closes = f"{len(rows)} variations in {first['seconds']:,.0f} s on {first['device']}"
    console.print(f"{closes}. Of many, the first is also the luckiest: see the interval and the second half.")
    if broke := rows["loss"].is_nan().sum():
        console.print(f"{broke} came to predict what is not a number, and were taught no further.")
