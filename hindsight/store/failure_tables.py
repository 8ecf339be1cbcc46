"""Failures of models in DuckDB: which lesson or decision raised what, how often, and whether it is over.

A note of a failure is not worth a failure: where the warehouse cannot be had, what was to be noted is logged.
"""

import logging
from collections.abc import Collection, Mapping
from datetime import datetime

import duckdb
import polars as pl

from hindsight.errors import (
    CheckpointUnreadable,
    HindsightError,
    ModelBroken,
    ModelUnloadable,
    SchemaMismatch,
    SkipThisCandle,
)
from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, select, stream_key
from hindsight.store.warehouse import Warehouse

logger = logging.getLogger(__name__)
Key = tuple[Stream, str]  # a model of a stream
LONGEST_MESSAGE = 1000
OF_A_MODEL = (ModelBroken, ModelUnloadable, CheckpointUnreadable, SchemaMismatch, SkipThisCandle)
OF_NO_MODEL = (HindsightError, OSError, MemoryError, duckdb.Error)  # but those above


def note_outcomes(warehouse: Warehouse, failures: Mapping[Key, Exception], well: Collection[Key], at: datetime) -> None:
    """Counts the failures of a call, and ends those of the models that have done what was due in it.

    The same call again, at the same instant, counts nothing twice. Never raises for a warehouse that cannot be had.
    """
    if not failures and not well:
        return
    try:
        with warehouse.reading() as con:
            failing = {(stream, model) for stream, model in well if model in failing_models(con, stream)}
        if failures or failing:
            with warehouse.writing() as con:
                for (stream, model), error in failures.items():
                    _count(con, stream, model, error, at)
                for stream, model in failing - failures.keys():
                    _end(con, stream, model, at)
    except (HindsightError, duckdb.Error) as trouble:
        told = ", ".join(f"{model} of {stream}: {error!r}" for (stream, model), error in failures.items())
        logger.warning("failures are not noted (%s): %s", told or "some have ended", trouble)


def failing_models(con: duckdb.DuckDBPyConnection, stream: Stream, *, own: bool = False) -> set[str]:
    """The models whose last lesson on this stream failed; with `own`, those that are at fault themselves."""
    sql = f"select model from model_failures where {OF_STREAM} and ended_at is null and (is_its_own or not $own)"
    return {model for (model,) in con.execute(sql, {"own": own, **stream_key(stream)}).fetchall()}


def read_model_failures(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Every failure in the columns of the table, those that are not over first, then the newest."""
    return select(
        con,
        """
        select *
        from model_failures
        order by ended_at is not null, last_at desc, model, venue, symbol, timeframe, error
        """,
    )


def is_its_own(error: Exception) -> bool:
    """Whether a model is at fault, and not the machine, a setting, or somebody who was faster."""
    return isinstance(error, OF_A_MODEL) or not isinstance(error, OF_NO_MODEL)


def _count(con: duckdb.DuckDBPyConnection, stream: Stream, model: str, error: Exception, at: datetime) -> None:
    key = {"model": model, "error": type(error).__name__, **stream_key(stream)}
    values = {"message": str(error)[:LONGEST_MESSAGE], "own": is_its_own(error), "at": at}
    is_known = con.execute(
        f"""
        update model_failures
        set times = times + if(last_at = $at, 0, 1), message = $message, is_its_own = $own, last_at = $at,
            ended_at = null
        where {OF_STREAM}
          and model = $model
          and error = $error
        """,
        {**key, **values},
    ).fetchall()[0][0]
    if not is_known:
        con.execute(
            """
            insert into model_failures
                (model, venue, symbol, timeframe, error, message, is_its_own, times, first_at, last_at)
            values ($model, $venue, $symbol, $timeframe, $error, $message, $own, 1, $at, $at)
            """,
            {**key, **values},
        )


def _end(con: duckdb.DuckDBPyConnection, stream: Stream, model: str, at: datetime) -> None:
    con.execute(
        f"""
        update model_failures
        set ended_at = $at
        where {OF_STREAM}
          and model = $model
          and ended_at is null
        """,
        {"model": model, "at": at, **stream_key(stream)},
    )
