"""What tells a live home from its twin: every table, row by row, and the weights.

What is counted, named, timed or recorded must be identical; what models computed may differ by RELATIVE.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.live.twin import warehouse_of
from hindsight.settings import Settings
from hindsight.store.rows import select
from hindsight.training.checkpoints import load as load_weights

RELATIVE, ABSOLUTE = 1e-5, 1e-9
# What makes a row of each table one of its kind, and leaves its stream out.
KEYS = {
    "candles": ("open_time",),
    "candle_revisions": ("open_time", "revision"),
    "gaps": ("start_time",),
    "indicators": ("open_time",),
    "pivots": ("pivot_type", "pivot_time"),
    "pivot_states": ("as_of",),
    "inference_references": ("model", "made_at"),
    "outcomes": ("model", "made_at", "kind"),
    "trend_validations": ("model", "made_at"),
    "training_steps": ("model", "step"),
    "scores": ("model", "day", "target", "predictor"),
    "learned_until": ("model",),
}
OF_MODELS = ("inference_references", "outcomes", "trend_validations", "training_steps", "scores")
MEASURED = ("seconds", "mode")  # how long a step took, and whether a reference was made live: different by nature


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """One table of both homes. `different` counts the rows that both have, in columns that must be identical."""

    table: str
    rows: int
    only_live: int
    only_backfilled: int
    different: int
    farthest: float  # relative difference of any number; 0 where all are the same to the bit

    @property
    def is_same(self) -> bool:
        """Whether nothing tells them apart."""
        return not (self.only_live or self.only_backfilled or self.different)


def likenesses(live: Settings, twin: Settings) -> list[Likeness]:
    """Every table of both homes, and the weights that serve."""
    tables = [_likeness(name, key, _table(live, name), _table(twin, name)) for name, key in KEYS.items()]
    return [*tables, _of_weights(live, twin)]


def _table(settings: Settings, name: str) -> pl.DataFrame:
    with warehouse_of(settings).reading() as con:
        return select(con, f"select * from {name}").drop(MEASURED, strict=False)


def _likeness(name: str, key: tuple[str, ...], live: pl.DataFrame, twin: pl.DataFrame) -> Likeness:
    by = ["venue", "symbol", "timeframe", *key]
    both = live.join(twin, on=by, how="inner", suffix=" of the twin", nulls_equal=True)
    differs, farthest = np.zeros(len(both), dtype=bool), 0.0
    for column in [column for column in live.columns if column not in by]:
        here, there = both[column], both[f"{column} of the twin"]
        if _is_real(here.dtype):
            away = _away(here, there)
            farthest = max(farthest, float(away.max(initial=0.0)))
            differs |= away > (RELATIVE if name in OF_MODELS else 0.0)
        else:
            differs |= here.ne_missing(there).to_numpy()
    return Likeness(
        table=name,
        rows=len(live),
        # Not by join alone: a row that stands twice is one too many.
        only_live=len(live) - len(both.unique(by)),
        only_backfilled=len(twin) - len(both.unique(by)),
        different=int(differs.sum()),
        farthest=farthest,
    )


def _is_real(dtype: pl.DataType) -> bool:
    inner = getattr(dtype, "inner", dtype)
    return inner in (pl.Float32, pl.Float64)


def _away(here: pl.Series, there: pl.Series) -> np.ndarray:
    """By row, how far apart two columns of numbers, or of lists of them, are relative to the larger one; inf where one
    is null."""
    if isinstance(here.dtype, pl.List | pl.Array):
        rows = [np.array(row, dtype=float).reshape(len(here), -1) for row in (here.to_list(), there.to_list())]
    else:
        rows = [row.to_numpy().astype(float).reshape(-1, 1) for row in (here, there)]
    left, right = rows
    apart = np.abs(left - right) / np.maximum(np.maximum(np.abs(left), np.abs(right)), ABSOLUTE / RELATIVE)
    apart = np.where(np.isnan(left) & np.isnan(right), 0.0, np.where(np.isnan(apart), np.inf, apart))
    return apart.max(axis=1, initial=0.0)


def _of_weights(live: Settings, twin: Settings) -> Likeness:
    """The newest weights of every model and stream, a row each."""
    mine, its = _newest_weights(live), _newest_weights(twin)
    differs, farthest = 0, 0.0
    for key in mine.keys() & its.keys():
        away = max(_away(pl.Series(mine[key][n].ravel()), pl.Series(its[key][n].ravel())).max() for n in mine[key])
        differs, farthest = differs + (away > RELATIVE), max(farthest, float(away))
    return Likeness(
        table="newest weights",
        rows=len(mine),
        only_live=len(mine.keys() - its.keys()),
        only_backfilled=len(its.keys() - mine.keys()),
        different=differs,
        farthest=farthest,
    )


def _newest_weights(settings: Settings) -> dict[tuple[object, ...], dict[str, np.ndarray]]:
    """Weights by model, stream and number of the step that left them."""
    sql = """
        select model, venue, symbol, timeframe, checkpoint_id, file, schema_hash
        from checkpoints
        where is_latest"""
    with warehouse_of(settings).reading() as con:
        rows = con.execute(sql).fetchall()
    return {
        tuple(key): {
            name: tensor.numpy() for name, tensor in load_weights(settings.checkpoints_path / file, schema).items()
        }
        for *key, file, schema in rows
    }


def show(found: list[Likeness], console: Console) -> None:
    """Prints them, a table each."""
    headings = ("rows", "only live", "only backfilled", "different", "farthest apart")
    table = Table("table", title="Live against backfill", title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in found:
        counts = (each.rows, each.only_live, each.only_backfilled, each.different)
        table.add_row(each.table, *map(str, counts), f"{each.farthest:.1e}" if each.farthest else "to the bit")
    console.print(table)
