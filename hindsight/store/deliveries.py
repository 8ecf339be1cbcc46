"""Deliveries of candles into `candles` and `candle_revisions`: the same whatever is delivered again, and in what order.

- A first delivery (revision 0) that equals any stored revision of its candle changes nothing: history is asked for
  again and again, and also after a correction.
- A first delivery that differs from all of them is a correction that the venue did not announce: it is known from now.
- A correction (revision 1 and up) is known from its `recorded_at`; the same one again changes nothing.
- The revision that was current until then moves to `candle_revisions`, with the instant at which it was superseded.
"""

from dataclasses import dataclass
from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.as_of import A_MOMENT, REVISIONS
from hindsight.market.candles import CANDLES, PRICES, TIME
from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, delete_with, insert, select, select_with, stream_key

VALUES = (*PRICES, "volume")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write changed: candles that were not there, corrections, and where the new candles lie."""

    inserted: int
    revised: int
    span: Window | None


def write_candles(con: duckdb.DuckDBPyConnection, stream: Stream, frame: pl.DataFrame, now: datetime) -> Written:
    """Stores accepted candles (the columns of CANDLES, sorted by open_time and revision; several revisions may come).

    A correction of a candle that opened before anything stored or delivered first is left out: it corrects nothing.
    """
    if frame.is_empty():
        return Written(inserted=0, revised=0, span=None)
    stored = _stored(con, stream, frame)
    is_new = ~pl.col("open_time").is_in(stored["open_time"].implode()) if len(stored) else pl.lit(True)
    corrected = frame.filter(pl.col("revision") > 0)["open_time"]
    is_plain = is_new & ~pl.col("open_time").is_in(corrected.implode()) if len(corrected) else is_new
    plain, others = frame.filter(is_plain), frame.filter(~is_plain)
    insert(con, "candles", plain, stream)
    inserted, revised = plain["open_time"], 0
    if len(others):
        if len(corrected):
            first = _first(con, stream, frame)
            others = others.filter((pl.col("revision") == 0) | (pl.col("open_time") >= first).fill_null(False))
        late, revised = _revise(con, stream, stored, others, now)
        inserted = pl.concat([inserted, late])
    if inserted.is_empty():
        return Written(inserted=0, revised=revised, span=None)
    first, last = inserted.min(), inserted.max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return Written(inserted=len(inserted), revised=revised, span=Window(start=first, end=last + stream.step))


def seen_corrections(con: duckdb.DuckDBPyConnection, stream: Stream, corrections: pl.DataFrame) -> pl.DataFrame:
    """open_time and revision of those corrections (columns of CANDLES) that are stored, known from then or later."""
    key = ["open_time", "revision"]
    if corrections.is_empty():
        return corrections.select(key)
    stored = _stored(con, stream, corrections).select("open_time", *VALUES, stored_at="recorded_at")
    same = corrections.join(stored, on=["open_time", *VALUES])
    return same.filter(pl.col("stored_at") >= pl.col("recorded_at")).select(key).unique()


def _stored(con: duckdb.DuckDBPyConnection, stream: Stream, frame: pl.DataFrame) -> pl.DataFrame:
    """Every stored revision of the candles in `frame`, in the columns of REVISIONS; null superseded_at if current."""
    span = {"first": frame["open_time"].min(), "last": frame["open_time"].max()}
    within = f"{OF_STREAM} and open_time >= $first and open_time <= $last"
    there = con.execute(f"select 1 from candles where {within} limit 1", {**stream_key(stream), **span}).fetchall()
    if not there:  # the usual case, and by far the cheapest
        return REVISIONS.to_frame()
    columns = ", ".join(CANDLES)
    return select_with(
        con,
        frame.select("open_time").unique(),
        f"""
        select {columns}, null::timestamptz as superseded_at
        from candles
        where {within} and open_time in (select open_time from incoming)
        union all
        select {columns}, superseded_at
        from candle_revisions
        where {within} and open_time in (select open_time from incoming)
        """,
        **stream_key(stream),
        **span,
    ).cast(REVISIONS)


def _first(con: duckdb.DuckDBPyConnection, stream: Stream, frame: pl.DataFrame) -> pl.Expr:
    """The open time of the first candle that is stored or delivered for the first time; null where there is none."""
    stored = select(con, f"select min(open_time) as first from candles where {OF_STREAM}", **stream_key(stream))
    delivered = frame.filter(pl.col("revision") == 0)["open_time"]
    return pl.lit(pl.concat([stored["first"].cast(TIME), delivered]).min(), TIME)


def _revise(
    con: duckdb.DuckDBPyConnection, stream: Stream, stored: pl.DataFrame, delivered: pl.DataFrame, now: datetime
) -> tuple[pl.Series, int]:
    """Writes candles of which several revisions are stored or delivered: the new ones, and how many corrections."""
    known = stored.select(CANDLES.names())
    firsts = delivered.filter(pl.col("revision") == 0).join(known, on=["open_time", *VALUES], how="anti")
    corrections = delivered.filter(pl.col("revision") > 0).join(
        known, on=["open_time", "recorded_at", *VALUES], how="anti"
    )
    has_first = known.filter(pl.col("revision") == 0)
    new = pl.concat(
        [firsts.join(has_first, on="open_time", how="anti"), _unannounced(firsts, known, has_first, now), corrections]
    )
    if new.is_empty():
        return new["open_time"], 0
    touched = known.join(new, on="open_time", how="semi")
    history = _in_order(pl.concat([touched, new]))
    _replace(con, stream, history)
    inserted = new.join(known, on="open_time", how="anti")["open_time"].unique()
    return inserted, history.height - touched.height - len(inserted)


def _unannounced(firsts: pl.DataFrame, known: pl.DataFrame, has_first: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """First deliveries that contradict a stored one: corrections known from now, and after all that is stored."""
    newest = known.group_by("open_time").agg(newest=pl.col("recorded_at").max())
    return (
        firsts.join(has_first, on="open_time", how="semi")
        .join(newest, on="open_time")
        .with_columns(recorded_at=pl.max_horizontal(pl.lit(now, TIME), pl.col("newest") + A_MOMENT))
        .select(CANDLES.names())
    )


def _in_order(revisions: pl.DataFrame) -> pl.DataFrame:
    """Revisions by when they were known, without those that change nothing, numbered upwards, with `superseded_at`."""
    ordered = revisions.sort("open_time", "recorded_at", "revision", maintain_order=True)
    is_repeated = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in ("open_time", *VALUES))
    # As the venue numbers them where it does; one more than the one before where a number is taken. A step at a time:
    # polars takes a sum inside over() for each candle alone, which is twenty times slower.
    return (
        ordered.filter(~is_repeated.fill_null(False))
        .with_columns(place=pl.int_range(pl.len(), dtype=pl.Int32).over("open_time"))
        .with_columns(revision=pl.col("revision") - pl.col("place"))
        .with_columns(
            revision=pl.col("revision").cum_max().over("open_time"),
            superseded_at=pl.col("recorded_at").shift(-1).over("open_time"),
        )
        .with_columns(revision=pl.col("revision") + pl.col("place"))
        .drop("place")
    )


def _replace(con: duckdb.DuckDBPyConnection, stream: Stream, history: pl.DataFrame) -> None:
    """Makes `history` (the columns of REVISIONS; null superseded_at if current) all that is stored of its candles."""
    touched = history.select("open_time").unique()
    span = {"first": touched["open_time"].min(), "last": touched["open_time"].max()}
    for table in ("candles", "candle_revisions"):
        delete_with(
            con,
            touched,
            f"""
            delete from {table}
            where {OF_STREAM} and open_time >= $first and open_time <= $last
              and open_time in (select open_time from incoming)
            """,
            **stream_key(stream),
            **span,
        )
    is_current = pl.col("superseded_at").is_null()
    insert(con, "candles", history.filter(is_current).select(CANDLES.names()), stream)
    insert(con, "candle_revisions", history.filter(~is_current).select(REVISIONS.names()), stream)
