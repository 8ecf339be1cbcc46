"""Sweeps in DuckDB: how the same model did over the same history with other settings."""

import duckdb
import polars as pl

from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.store.rows import insert, select

SWEEP = pl.Schema(
    {
        "sweep_id": pl.String,
        "model": pl.String,
        "since": TIME,
        "until": TIME,
        "place": pl.Int32,
        "settings": pl.String,
        "references_judged": pl.Int32,
        "steps": pl.Int32,
        "loss": pl.Float64,
        "loss_late": pl.Float64,
        "difference": pl.Float64,
        "difference_low": pl.Float64,
        "difference_high": pl.Float64,
        "weekly_loss": pl.List(pl.Float64),
        "device": pl.String,
        "seconds": pl.Float32,
    }
)


def replace_sweep(con: duckdb.DuckDBPyConnection, stream: Stream, rows: pl.DataFrame) -> None:
    """Puts the rows of one sweep in the place of those that the same sweep has left before."""
    con.execute("delete from sweeps where sweep_id = $sweep_id", {"sweep_id": rows["sweep_id"][0]})
    insert(con, "sweeps", rows, stream)


def read_sweeps(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Every sweep, the best of each first."""
    return select(con, "select * from sweeps order by sweep_id, place")
