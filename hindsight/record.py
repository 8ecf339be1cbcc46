"""Recording: from what a source delivers to candles, from candles to indicators, from both to pivots.

Each verb moves its table to where it stands at the end of a window, and does the same whether the window is a year or a
candle: a backfill and a live run call it alike, and calling it again changes nothing.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl

from hindsight.errors import HistoryOutOfOrder
from hindsight.exchange.sources import Source
from hindsight.market.as_of import A_MOMENT, as_first_known, stretches
from hindsight.market.candles import TIME, accept
from hindsight.market.indicators import DAY, WARMUP, anchor, compute
from hindsight.market.pivots import PivotState, advance
from hindsight.market.streams import EPOCH, Stream, Window, floor_to, next_month, to_ms
from hindsight.store import market_tables as tables
from hindsight.store.deliveries import Written, seen_corrections, write_candles
from hindsight.store.warehouse import Warehouse

# Rows per opening of the warehouse. Each closing writes the last, incomplete blocks of a table anew, so that small
# batches cost several times as much; half a million candles are some 100 MB while they are on their way.
BATCH_ROWS = 500_000
RECORD_IN_ORDER = (
    "Record history in the order of time: set HINDSIGHT_HOME to a new folder and backfill from the earliest date"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleReport:
    """What recording candles did: deliveries accepted, candles new and corrected, deliveries refused; gaps now."""

    candles: int
    inserted: int
    revised: int
    refused: int
    gaps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PivotReport:
    """How many pivots of each level were confirmed."""

    level_1: int
    level_2: int
    level_3: int
    level_4: int
    level_5: int


def record_candles(warehouse: Warehouse, source: Source, stream: Stream, window: Window, now: datetime) -> CandleReport:
    """Stores what `source` delivers for `window`: candles, corrections, the gaps they leave, and what was refused.

    Nothing is held while the source is waited for; each batch lands whole or not at all.
    """
    candles = inserted = revised = refused = gaps = 0
    for batch in _batches(source.candles(stream, window)):
        with warehouse.writing() as con:
            written, bad = store_candles(con, stream, batch, now)
            gaps = tables.read_gaps(con, stream, window).height
        candles, refused = candles + batch.height - bad, refused + bad
        inserted, revised = inserted + written.inserted, revised + written.revised
    return CandleReport(candles=candles, inserted=inserted, revised=revised, refused=refused, gaps=gaps)


def store_candles(
    con: duckdb.DuckDBPyConnection, stream: Stream, batch: pl.DataFrame, now: datetime
) -> tuple[Written, int]:
    """Stores one batch of deliveries (the columns of CANDLES) with the gaps that it leaves; counts those refused."""
    good, bad = accept(batch, stream)
    mark = tables.pivot_mark(con, stream)
    if mark is not None:  # also by a clock that is behind: what was made at a close never saw what came after it
        now = max(now, mark.as_of + A_MOMENT)
    good = _known_late(con, good, stream, mark, now)
    written = write_candles(con, stream, good, now)
    tables.append_refused(con, stream, bad, now)
    if written.span is not None:
        tables.find_gaps_again(con, stream, written.span)
    return written, bad.height


def _known_late(
    con: duckdb.DuckDBPyConnection,
    good: pl.DataFrame,
    stream: Stream,
    mark: tables.PivotMark | None,
    now: datetime,
) -> pl.DataFrame:
    """Candles and corrections that arrive after pivots have passed them are known from now: nothing made before has
    seen them.

    Raises HistoryOutOfOrder for a candle that opens before all that pivots have seen, and stores nothing then.
    """
    if mark is None or good.is_empty():
        return good
    is_first = pl.col("revision") == 0
    older = good.filter(is_first, pl.col("open_time") < mark.since)["open_time"].min()
    if older is not None:
        raise HistoryOutOfOrder(
            f"{stream}: expected no candle before {mark.since:%Y-%m-%d %H:%M}, where pivots begin, found one that "
            f"opens at {older:%Y-%m-%d %H:%M}; pivots are never found again. {RECORD_IN_ORDER}"
        )
    is_late = pl.when(is_first).then(pl.col("open_time") < mark.as_of).otherwise(pl.col("recorded_at") <= mark.as_of)
    if not good.select(is_late.any()).item():
        return good
    seen = seen_corrections(con, stream, good.filter(is_late, ~is_first))
    at = pl.max_horizontal("recorded_at", pl.lit(now, TIME))
    return good.join(seen, on=["open_time", "revision"], how="anti", maintain_order="left").with_columns(
        recorded_at=pl.when(is_late).then(at).otherwise("recorded_at")
    )


def _batches(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The frames in order, as many together as make BATCH_ROWS."""
    batch: list[pl.DataFrame] = []
    for frame in frames:
        batch.append(frame)
        if sum(map(len, batch)) >= BATCH_ROWS:
            yield pl.concat(batch)
            batch = []
    if batch:
        yield pl.concat(batch)


def record_indicators(warehouse: Warehouse, stream: Stream, window: Window) -> int:
    """Computes the indicators of `window` and of all rows that a correction recorded in it reaches; counts rows."""
    rows = 0
    due: deque[Window] | None = None
    while due is None or due:
        seen = 0
        with warehouse.writing() as con:
            if due is None:
                due = deque(months_reached(con, stream, window))
            while due and seen < BATCH_ROWS:
                month = due.popleft()
                rows += replace_indicators(con, stream, month)
                seen += _length(month, stream)
    return rows


def months_reached(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> Iterator[Window]:
    """The stretches whose indicators may have changed with what was delivered for `window`, cut at months, in order."""
    return (month for each in _reached(con, stream, window) for month in each.months())


def replace_indicators(con: duckdb.DuckDBPyConnection, stream: Stream, month: Window) -> int:
    """Computes the indicators of one month, or part of it, and puts them in the place of what was there."""
    candles = tables.read_candles(con, stream, Window(start=anchor(month.start, stream.step), end=month.end))
    values = compute(candles, month, stream.step)
    values = values.insert_column(1, _known_at(candles, month, stream.step))
    return tables.replace_indicators(con, stream, month, values)


def _reached(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> list[Window]:
    """The stretches whose indicators may have changed with the candles delivered for `window`, in order, disjoint."""
    last = tables.last_indicators(con, stream, Window(start=window.end, end=_reach(window.end, stream.step)))
    stretches = [Window(start=window.start, end=window.end if last is None else last + stream.step)]
    for corrected in reversed(tables.corrected_before(con, stream, window)):
        following = stretches[-1]
        end = min(_reach(corrected + stream.step, stream.step), window.start)
        if end >= following.start:
            stretches[-1] = Window(start=corrected, end=following.end)
        else:
            stretches.append(Window(start=corrected, end=end))
    return stretches[::-1]


def _reach(end: datetime, step: timedelta) -> datetime:
    """The first instant whose indicators depend on no candle that opens before `end`."""
    return floor_to(end + WARMUP * step - A_MOMENT, DAY) + DAY


def _known_at(candles: pl.DataFrame, window: Window, step: timedelta) -> pl.Series:
    """When the values of each candle in `window` were known: once all candles were that they depend on."""
    open_ms = candles["open_time"].to_physical().to_numpy() // 1000
    recorded = candles["recorded_at"].to_physical().to_numpy()
    known = [np.empty(0, np.int64)]
    day = floor_to(window.start, DAY)
    while day < window.end:
        bounds = (anchor(day, step), max(day, window.start), min(day + DAY, window.end))
        since, first, end = np.searchsorted(open_ms, [to_ms(bound) for bound in bounds])
        known.append(np.maximum.accumulate(recorded[since:end])[first - since :])
        day += DAY
    return pl.Series("known_at", np.concatenate(known)).cast(TIME)


def record_pivots(warehouse: Warehouse, stream: Stream, until: datetime, *, max_gap: int) -> PivotReport:
    """Confirms the pivots of every candle that closed by `until` and was not seen yet; counts them by level.

    A candle counts as it was first delivered, if that was at its close, and its strength by the ATR14 known then: no
    later correction ever changes a pivot, and pivots found anew are the same ones.
    """
    until = floor_to(until, stream.step)
    confirmed = dict.fromkeys(range(1, 6), 0)
    is_done = False
    while not is_done:
        seen = 0
        with warehouse.writing() as con:
            mark = tables.pivot_mark(con, stream)
            while seen < BATCH_ROWS and not is_done:
                month = unseen_month(con, stream, mark, until)
                is_done = month is None
                if month is not None:
                    found, mark = confirm_pivots(con, stream, mark, month, max_gap)
                    for level, count in found["level"].value_counts().iter_rows():
                        confirmed[level] += count
                    seen += _length(month, stream)
    return PivotReport(**{f"level_{level}": count for level, count in confirmed.items()})


def _length(window: Window, stream: Stream) -> int:
    return (window.end - window.start) // stream.step


def unseen_month(
    con: duckdb.DuckDBPyConnection, stream: Stream, mark: tables.PivotMark | None, until: datetime
) -> Window | None:
    """From the first candle after `mark` to its month's end or `until`; None where pivots have seen all of them."""
    seen_until = EPOCH if mark is None else mark.as_of
    start = None if seen_until >= until else tables.first_candle(con, stream, Window(start=seen_until, end=until))
    return None if start is None else Window(start=start, end=min(next_month(start), until))


def confirm_pivots(
    con: duckdb.DuckDBPyConnection, stream: Stream, mark: tables.PivotMark | None, window: Window, max_gap: int
) -> tuple[pl.DataFrame, tables.PivotMark]:
    """The pivots that the candles of `window`, those after `mark`, confirmed; stored with the mark after them."""
    needed = Window(start=anchor(window.start, stream.step), end=window.end)
    current, revisions = tables.read_candles(con, stream, needed), tables.read_revisions(con, stream, needed)
    last = current["open_time"].max()
    assert isinstance(last, datetime)  # the window starts with a candle
    first_known = as_first_known(current, revisions).filter(
        pl.col("open_time") >= window.start, pl.col("recorded_at") <= pl.col("open_time") + stream.step
    )
    atr = _atr_at_close(current, revisions, window, stream.step)
    candles = first_known.join(atr, on="open_time", how="left", maintain_order="left")
    before = PivotState.initial() if mark is None else PivotState.from_bytes(mark.state)
    after, pivots = advance(before, candles, stream.step, max_gap)
    tables.append_pivots(con, stream, pivots)
    since = window.start if mark is None else mark.since
    moved = tables.PivotMark(since=since, as_of=last + stream.step, state=after.to_bytes())
    tables.write_pivot_mark(con, stream, moved)
    return pivots, moved


def _atr_at_close(current: pl.DataFrame, revisions: pl.DataFrame, window: Window, step: timedelta) -> pl.DataFrame:
    """open_time and atr_14 of the candles in `window`, each from the candles as they were known at its own close."""
    return pl.concat(
        compute(known, part, step).select("open_time", "atr_14")
        for part, known in stretches(current, revisions, window, step)
    )
