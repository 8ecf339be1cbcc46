"""Tables for the terminal."""

from datetime import datetime

import polars as pl
from rich.console import Console
from rich.table import Table

from hindsight.status import Status

STREAM = pl.concat_str("venue", "symbol", "timeframe", separator=" ").alias("stream")


def print_status(status: Status, console: Console) -> None:
    """What is stored, learned and serving; each table left out while it is empty."""
    if status.stored.is_empty():
        console.print("Nothing is stored yet. Start with [b]hindsight demo[/b] or [b]hindsight backfill --help[/b].")
        return
    _print(console, "Stored", _by_stream(status.stored))
    _print(console, "Learned", _by_stream(status.learned).rename({"reference_rows": "references"}))
    _print(console, "Trends (accuracy = correct / validated)", _by_stream(status.trends))
    _print(console, "Prequential scores: each prediction judged before it was learned from", _by_stream(status.scores))
    _print(console, "Checkpoints", _by_stream(status.checkpoints).drop("file"))
    if status.bytes_per_reference is not None:
        console.print(f"A reference takes {status.bytes_per_reference:.0f} bytes on disk, its prediction included.")


def print_summary(status: Status, console: Console) -> None:
    """What a backfill has come to: one row per model and stream, then the scores against the baselines."""
    best = (
        status.checkpoints.filter(pl.col("prequential_loss").is_not_null())
        .sort("prequential_loss")
        .group_by("model", "venue", "symbol", "timeframe", maintain_order=True)
        .agg(best_checkpoint=pl.col("checkpoint_id").first(), its_loss=pl.col("prequential_loss").first())
    )
    keys = ["venue", "symbol", "timeframe"]
    whole = (
        status.learned.join(status.stored, on=keys)
        .join(status.trends.drop("correct", "unusable"), on=["model", *keys])
        .join(best, on=["model", *keys], how="left")
        .select(
            "model",
            STREAM,
            "candles",
            pl.concat_str([f"level_{level}" for level in range(1, 6)], separator="/").alias("pivots L1/…/L5"),
            references="reference_rows",
            settled="settled",
            expired="expired",
            trend_accuracy="accuracy",
            steps="steps",
            best_checkpoint="best_checkpoint",
            its_loss="its_loss",
            bytes_per_reference=pl.lit(status.bytes_per_reference, pl.Float64).round(0),
        )
    )
    _print(console, "What the main job made", whole)
    _print(console, "Prequential scores against the baselines (lower loss is better)", _by_stream(status.scores))


def _by_stream(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(STREAM, pl.exclude("venue", "symbol", "timeframe"))


def _print(console: Console, title: str, frame: pl.DataFrame) -> None:
    if frame.is_empty():
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for name, dtype in frame.schema.items():
        table.add_column(name.replace("_", " "), justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else ""
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4f}" if value % 1 else f"{value:,.0f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case _:
            return str(value)
