"""What an asset reports: figures per partition that the UI plots, and what the run itself did."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from assets.partitions import Stretch, partition_key, run_keys
from hindsight.store import summaries
from hindsight.store.warehouse import Warehouse


def add_figures(
    context: dg.AssetExecutionContext, warehouse: Warehouse, table: str, covered: Iterable[Stretch]
) -> None:
    """Adds to each partition of `table` that this run materialises what the table holds for that month.

    Of the months of a backfill that the page of a job has launched, Dagster knows the first only, because it leaves
    that one's tags on the run; the others are said to be materialised here.
    """
    own = set(run_keys(dict(context.run.tags)))
    known = set(context.partition_keys) if own else own
    with warehouse.reading() as con:
        for each in covered:
            monthly = summaries.by_month(con, table, each.stream, each.window).rows_by_key("month", named=True)
            if table == "outcomes":
                _add_scores(monthly, summaries.scores_by_month(con, each.stream, each.window))
            for month in each.window.months():
                key = partition_key(each.stream, month.start)
                (figures,) = monthly.get(f"{month.start:%Y-%m}", [{}])
                if key in known:
                    context.add_asset_metadata(_known(figures), asset_key=table, partition_key=key)
                elif key in own:
                    context.log_event(dg.AssetMaterialization(table, partition=key, metadata=_known(figures)))


def of_run(covered: Iterable[object], reports: Sequence[Any]) -> dict[str, dg.MetadataValue]:
    """What the run did to each thing covered, as JSON; a report is a dataclass or a number."""
    return {str(each): dg.MetadataValue.json(_plain(report)) for each, report in zip(covered, reports, strict=True)}


def standing(warehouse: Warehouse, table: str) -> dict[str, Any]:
    """Where `table` stands as a whole: what one partition alone cannot tell."""
    with warehouse.reading() as con:
        match table:
            case "inference_references":
                return _known({"bytes_per_reference": summaries.bytes_per_reference(con)})
            case "decisions":
                return {"decision_scores": as_table(summaries.decision_scores(con))}
            case "outcomes":
                return {"scores": as_table(summaries.scores(con))}
            case "trend_validations":
                return {"trend_stats": as_table(summaries.trend_stats(con))}
            case _:
                return {"checkpoints": as_table(summaries.checkpoints_held(con))}


def as_table(frame: pl.DataFrame) -> dg.MetadataValue:
    """The rows of `frame` as a Markdown table."""
    cells = frame.with_columns(pl.selectors.float().round(5)).cast(pl.String, strict=False).fill_null("")
    lines = [cells.columns, ["---"] * cells.width, *cells.rows()]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _add_scores(monthly: Mapping[str, list[dict[str, Any]]], scores: pl.DataFrame) -> None:
    """Adds to each month how the models and their baselines scored: action_log_loss_always_up, …"""
    for score in scores.iter_rows(named=True):
        predictor = score["model"] if score["predictor"] == "model" else score["predictor"]
        for measure in ("accuracy", "log_loss", "regression_loss"):
            for figures in monthly.get(score["month"], []):
                figures[f"{score['target']}_{measure}_{predictor}"] = score[measure]


def _known(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if value is not None}


def _plain(report: Any) -> Any:
    return {"rows": report} if isinstance(report, int) else {k: _jsonable(v) for k, v in asdict(report).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    return value if isinstance(value, int | float | str | None) else str(value)
