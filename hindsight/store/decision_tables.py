"""Decisions in DuckDB, what the gate remembers, and what the models said that it decides from."""

from collections.abc import Sequence
from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, insert, select, stream_key


def read_gate(con: duckdb.DuckDBPyConnection, stream: Stream) -> bytes | None:
    """The state of the stream's gate; None before its first close."""
    found = con.execute(f"select state from gate_states where {OF_STREAM}", stream_key(stream)).fetchall()
    return found[0][0] if found else None


def append_decisions(
    con: duckdb.DuckDBPyConnection, stream: Stream, decisions: pl.DataFrame, before: bytes | None, state: bytes
) -> None:
    """Appends decisions and moves the gate from the state `before` to `state`, in one transaction with them.

    Raises RuntimeError where the gate does not stand at `before`: somebody else has decided in between.
    """
    if read_gate(con, stream) != before:
        raise RuntimeError(f"the gate of {stream} has moved on meanwhile: two runs decided at once")
    con.execute(f"delete from gate_states where {OF_STREAM}", stream_key(stream))
    as_of = decisions["made_at"].tail(1)
    insert(con, "gate_states", pl.DataFrame({"as_of": as_of, "state": [state]}), stream)
    insert(con, "decisions", decisions, stream)


def first_opinion(con: duckdb.DuckDBPyConnection, stream: Stream) -> datetime | None:
    """The first close at which any model made a reference."""
    sql = f"select min(made_at) from inference_references where {OF_STREAM}"
    return con.execute(sql, stream_key(stream)).fetchall()[0][0]


def read_opinions(
    con: duckdb.DuckDBPyConnection, stream: Stream, models: Sequence[str], window: Window
) -> pl.DataFrame:
    """What each model said at the closes in (start, end]: made_at, model, buy, scale; sorted.

    `buy` is the probability of a rise by the weights that serve, or by those that learn while none serve; `scale` the
    return scale of the frame.
    """
    sql = f"""
        select made_at, model,
            coalesce(
                served[1] / 65535.0::float,
                if(action = 'buy', action_confidence, 1 - action_confidence)
            )::float as buy,
            norm_params[2] as scale
        from inference_references
        where {OF_STREAM}
          and made_at > $start
          and made_at <= $until
          and list_contains($models, model)
        order by made_at, model
        """
    return select(con, sql, models=list(models), start=window.start, until=window.end, **stream_key(stream))
