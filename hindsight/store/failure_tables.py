"""Failures of models in DuckDB: which lesson or decision raised what, how often, and whether it is over.

A note of a failure is not worth a failure: where the warehouse cannot be had, what was to be noted is logged.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import duckdb
import polars as pl

from hindsight.errors import HindsightError, ModelTimedOut, WarehouseLocked, WarehouseUnusable
from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, select, stream_key
from hindsight.store.warehouse import Warehouse

logger = logging.getLogger(__name__)
Key = tuple[Stream, str]  # a model of a stream
LONGEST_MESSAGE = 1000
MIXTURE = "mixture"  # stands for the decision where a model is named
OF_THE_WAREHOUSE = (WarehouseLocked, WarehouseUnusable)  # to note those, it would be waited for once more


def note_outcomes(warehouse: Warehouse, failures: Mapping[Key, Exception], well: Collection[Key], at: datetime) -> None:
    """Counts the failures of a call, and ends those of the models that have done what was due in it.

    Never raises for a warehouse that cannot be had; what failed because of it is no failure of a model.
    """
    noted = {key: error for key, error in failures.items() if not isinstance(error, OF_THE_WAREHOUSE)}
    if not noted and not well:
        return
    try:
        with warehouse.reading() as con:
            failing = {(stream, model) for stream, model in well if model in failing_models(con, stream)}
        if noted or failing:
            with warehouse.writing() as con:
                for (stream, model), error in noted.items():
                    _count(con, stream, model, error, at)
                for stream, model in failing - noted.keys():
                    _end(con, stream, model, at)
    except (HindsightError, duckdb.Error) as trouble:
        said = {key: f"{type(error).__name__}: {_message(error)}" for key, error in noted.items()}
        told = ", ".join(f"{model} of {stream}: {words}" for (stream, model), words in said.items())
        logger.warning("failures are not noted (%s): %s", told or "some have ended", trouble)


def failing_models(con: duckdb.DuckDBPyConnection, stream: Stream) -> set[str]:
    """The models whose last lesson on this stream failed."""
    sql = f"select model from model_failures where {OF_STREAM} and ended_at is null"
    return {model for (model,) in con.execute(sql, stream_key(stream)).fetchall()}


def timed_out_at(con: duckdb.DuckDBPyConnection, model: str) -> datetime | None:
    """When the model timed out last, on any stream on which it has not gone well since."""
    sql = "select max(last_at) from model_failures where model = $model and error = $error and ended_at is null"
    return con.execute(sql, {"model": model, "error": ModelTimedOut.__name__}).fetchall()[0][0]


def _message(error: Exception) -> str:
    """What a package's exception says, as text that can be stored."""
    try:
        said = str(error)
    except Exception:  # its `__str__` is theirs as well
        return ""
    return said.encode("utf-8", "replace").decode()


def read_model_failures(con: duckdb.DuckDBPyConnection, models: Sequence[str]) -> pl.DataFrame:
    """Every failure of these models, and of decisions, in the columns of the table; those that are not over first, then
    the newest."""
    return select(
        con,
        """
        select *
        from model_failures
        where list_contains($models, model)
        order by ended_at is not null, last_at desc, model, venue, symbol, timeframe, error
        """,
        models=[*models, MIXTURE],
    )


def _count(con: duckdb.DuckDBPyConnection, stream: Stream, model: str, error: Exception, at: datetime) -> None:
    key = {"model": model, "error": type(error).__name__, **stream_key(stream)}
    values = {"message": _message(error)[:LONGEST_MESSAGE], "at": at}
    is_known = con.execute(
        f"""
        update model_failures
        set times = times + 1, message = $message, last_at = $at, ended_at = null
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
                (model, venue, symbol, timeframe, error, message, times, first_at, last_at)
            values ($model, $venue, $symbol, $timeframe, $error, $message, 1, $at, $at)
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
