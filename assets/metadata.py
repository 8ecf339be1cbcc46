"""What an asset reports: figures per partition that the UI plots, and what the run itself did."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import polars as pl

from assets.partitions import Stretch, partition_key, run_keys
from hindsight.market.streams import Window, next_month
from hindsight.store import monthly, summaries
from hindsight.store.calibration import calibration_by_month
from hindsight.store.inference_tables import learners_of
from hindsight.store.questions import Connection
from hindsight.store.trading import trading_by_month
from hindsight.store.warehouse import Warehouse

TRADED = ("net_return", "sharpe", "max_drawdown", "hit_rate")


def add_figures(
    context: dg.AssetExecutionContext, warehouse: Warehouse, table: str, covered: Iterable[Stretch]
) -> None:
    """Adds to each partition of `table` that this run materialises what the table holds for that month.

    Of the months of a backfill that the page of a job has launched, Dagster knows the first only, because it leaves
    that one's tags on the run; the others are said to be materialised here.
    """
    own = set(run_keys(dict(context.run.tags)))
    known = set(context.partition_keys) if own else own
    for each in covered:
        with warehouse.reading() as con:  # a turn for each, so that a close gets in between
            by_month = figures_by_month(con, table, each)
        for month in each.window.months():
            key = partition_key(each.stream, month.start)
            figures = by_month.get(f"{month.start:%Y-%m}", {})
            if key in known:
                context.add_asset_metadata(_known(figures), asset_key=table, partition_key=key)
            elif key in own:
                context.log_event(dg.AssetMaterialization(table, partition=key, metadata=_known(figures)))


def figures_by_month(con: Connection, table: str, covered: Stretch) -> dict[str, dict[str, Any]]:
    """What `table` holds for each month (2024-01) that `covered` touches: a name and a number for each curve of the UI.

    Where several models learn from the stream, the figures of one end in its name: loss_of_cnn.
    """
    stream, (*_, last) = covered.stream, covered.window.months()
    first = covered.window.start
    window = Window(start=datetime(first.year, first.month, 1, tzinfo=UTC), end=next_month(last.start))
    found = {row.pop("month"): row for row in monthly.by_month(con, table, stream, window).iter_rows(named=True)}
    is_alone = len(learners_of(con, stream)) < 2
    of_models = [*monthly.by_model(con, table, stream, window)]
    if table == "outcomes":
        of_models += [trading_by_month(con, stream, window).select("month", "model", *TRADED)]
    for row in (row for frame in of_models for row in frame.iter_rows(named=True)):
        month, model = row.pop("month"), row.pop("model")
        of = "" if is_alone else f"_of_{model}"
        found.setdefault(month, {}).update({f"{name}{of}": value for name, value in row.items()})
    if table == "outcomes":
        _add_scores(found, monthly.scores_by_month(con, stream, window), is_alone)
        _add_calibration(found, calibration_by_month(con, stream, window))
    return found


def of_run(covered: Iterable[object], reports: Sequence[Any]) -> dict[str, dg.MetadataValue]:
    """What the run did to each thing covered, as JSON under one name; a report is a dataclass or a number."""
    did = {str(each): _plain(report) for each, report in zip(covered, reports, strict=True)}
    return {"report": dg.MetadataValue.json(did)}


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


def _add_scores(found: Mapping[str, dict[str, Any]], scores: pl.DataFrame, is_alone: bool) -> None:
    """Adds to each month how the models and their baselines scored: action_log_loss_cnn, …

    Each model has baselines on its own references: action_log_loss_always_up, or where there are several models
    action_log_loss_always_up_of_cnn.
    """
    for score in scores.iter_rows(named=True):
        of = "" if is_alone else f"_of_{score['model']}"
        predictor = score["model"] if score["predictor"] == "model" else f"{score['predictor']}{of}"
        for measure in ("accuracy", "log_loss", "regression_loss"):
            if score["month"] in found:
                found[score["month"]][f"{score['target']}_{measure}_{predictor}"] = score[measure]


def _add_calibration(found: Mapping[str, dict[str, Any]], calibration: pl.DataFrame) -> None:
    """Adds to each month how far each model's confidences were from what came true: action_calibration_error_cnn, …"""
    for row in calibration.iter_rows(named=True):
        if row["month"] in found:
            name = f"{row['target']}_calibration_error_{row['model']}"
            found[row["month"]][name] = row["expected_calibration_error"]


def _known(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if value is not None}


def _plain(report: Any) -> Any:
    return {"rows": report} if isinstance(report, int) else {k: _jsonable(v) for k, v in asdict(report).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    return value if isinstance(value, int | float | str | None) else str(value)
