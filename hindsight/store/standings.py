"""How far the live path has come: per stream, per model and per order book. Read in a few milliseconds, often."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import polars as pl

from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, select, stream_key
from hindsight.store.skills import SkillStanding, read_skill
from hindsight.store.timings import lateness

LOOK_BACK = timedelta(minutes=10)
LEAST_CLOSES = 60  # of a stream; reaches further back than LOOK_BACK from 1m candles on
BOOKS_BACK = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """Seconds of ours between the closes of late (see look_back) and a stage.

    `recent` is how late even the timeliest close of each of the last three passes was; None before there are three.
    """

    closes: int
    newest: float
    recent: float | None
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStanding:
    """`close` is the newest close stored; `stored` is None where none of late was stored live."""

    stream: Stream
    close: datetime | None
    stored: Lateness | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerStanding:
    """One model of one stream. `until` is the last close that it is done with; ages count stored candles."""

    stream: Stream
    model: str
    until: datetime | None
    predicted_at: datetime | None  # its newest reference, of late
    stepped_at: datetime | None
    step_age: int | None
    checkpoint_age: int | None  # of the latest one
    predicted: Lateness | None
    trained: Lateness | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookStanding:
    """`known_at` is when the newest second of a market's book ended; None where none of the last day is stored."""

    venue: str
    symbol: str
    known_at: datetime | None

    def __str__(self) -> str:
        return f"{self.venue} {self.symbol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standings:
    """Everything that is recorded live, as it stood at one reading."""

    streams: Sequence[StreamStanding]
    learners: Sequence[LearnerStanding]
    books: Sequence[BookStanding]
    skills: Sequence[SkillStanding] = ()


def read_standings(
    con: duckdb.DuckDBPyConnection,
    streams: Sequence[Stream],
    learners: Sequence[tuple[Stream, str]],
    now: datetime,
    speed: float,
) -> Standings:
    """How these streams, their markets and these models of streams stand when the venue's clock shows `now` and runs
    at `speed`."""
    closes = {_name(row): row["close"] for row in _newest_closes(con).iter_rows(named=True)}
    late = _lateness(con, streams, now, speed)
    learned = {(row["model"], _name(row)): row for row in _learned(con).iter_rows(named=True)}
    books = {(row["venue"], row["symbol"]): row["known_at"] for row in _books(con, now).iter_rows(named=True)}
    return Standings(
        streams=[
            StreamStanding(
                stream=stream, close=closes.get(str(stream)), stored=late.get((str(stream), "", "stored"))
            )
            for stream in streams
        ],
        learners=[
            _learner(con, stream, model, learned.get((model, str(stream)), {}), late, now)
            for stream, model in learners
        ],
        books=[
            BookStanding(venue=venue, symbol=symbol, known_at=books.get((venue, symbol)))
            for venue, symbol in dict.fromkeys((stream.venue, stream.symbol) for stream in streams)
        ],
        skills=[read_skill(con, stream, model) for stream, model in learners],
    )  # fmt: skip


def look_back(stream: Stream) -> timedelta:
    """How far back its closes are looked at."""
    return max(LOOK_BACK, LEAST_CLOSES * stream.step)


def _learner(
    con: duckdb.DuckDBPyConnection,
    stream: Stream,
    model: str,
    learned: dict[str, Any],
    late: dict[tuple[str, str, str], Lateness],
    now: datetime,
) -> LearnerStanding:
    since = now - look_back(stream)
    predicted_at = con.execute(
        f"select max(made_at) from inference_references where {OF_STREAM} and model = $model and made_at >= $since",
        {**stream_key(stream), "model": model, "since": since},
    ).fetchall()[0][0]
    stepped_at = learned.get("stepped_at")
    return LearnerStanding(
        stream=stream,
        model=model,
        until=learned.get("until"),
        predicted_at=predicted_at,
        stepped_at=stepped_at,
        step_age=_candles_since(con, stream, stepped_at),
        checkpoint_age=_candles_since(con, stream, learned.get("kept_at")),
        predicted=late.get((str(stream), model, "predicted")),
        trained=late.get((str(stream), model, "trained")),
    )


def _candles_since(con: duckdb.DuckDBPyConnection, stream: Stream, close: datetime | None) -> int | None:
    if close is None:
        return None
    sql = f"select count(*) from candles where {OF_STREAM} and open_time >= $close"
    return con.execute(sql, {**stream_key(stream), "close": close}).fetchall()[0][0]


def _newest_closes(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Pivots see every candle in the transaction that stores it, and their states are a table of a few rows."""
    return select(
        con, "select venue, symbol, timeframe, max(as_of) as close from pivot_states group by venue, symbol, timeframe"
    )


def _learned(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    return select(
        con,
        """
        with stepped as (
          select model, venue, symbol, timeframe, max(event_time) as stepped_at
          from training_steps
          group by model, venue, symbol, timeframe),
        latest as (
          select model, venue, symbol, timeframe, event_time as kept_at
          from checkpoints
          where is_latest)
        select model, venue, symbol, timeframe, until, stepped_at, kept_at
        from learned_until
        left join stepped using (model, venue, symbol, timeframe)
        left join latest using (model, venue, symbol, timeframe)
        """,
    )


def _books(con: duckdb.DuckDBPyConnection, now: datetime) -> pl.DataFrame:
    return select(
        con,
        """
        select venue, symbol, max(known_at) as known_at
        from order_book
        where second >= $since
        group by venue, symbol
        """,
        since=now - BOOKS_BACK,
    )


def _lateness(
    con: duckdb.DuckDBPyConnection, streams: Iterable[Stream], now: datetime, speed: float
) -> dict[tuple[str, str, str], Lateness]:
    """By stream, model and stage; each timeframe has its own reach."""
    found = {}
    for timeframe, stream in {stream.timeframe: stream for stream in streams}.items():
        for row in lateness(con, now - look_back(stream), timeframe).iter_rows(named=True):
            recent = row["recent_seconds"]
            found[_name(row), row["model"], row["stage"]] = Lateness(
                closes=row["closes"],
                newest=row["newest_seconds"] / speed,
                recent=None if recent is None else recent / speed,
                **{name: row[name] / speed for name in ("p50", "p95", "p99")},
            )
    return found


def _name(row: dict[str, Any]) -> str:
    return f"{row['venue']} {row['symbol']} {row['timeframe']}"
