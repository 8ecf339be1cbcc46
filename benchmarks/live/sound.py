"""Whether a home is sound by itself: no question of the store has an answer, and its candles are the venue's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from assets.checks import QUESTIONS
from benchmarks.live.twin import warehouse_of
from hindsight.exchange.sources import open_source
from hindsight.market.streams import Stream, Window, from_ms
from hindsight.settings import Settings
from hindsight.store.book_questions import ORDER_BOOK_QUESTIONS
from hindsight.store.market_tables import pivot_mark, read_candles
from hindsight.store.questions import missing_candles

VALUES = ("open", "high", "low", "close", "volume")


@dataclass(slots=True, kw_only=True)
class Candles:
    """One stream's candles beside the venue's, over the recorded stretch. Times are of candles, oldest first."""

    stored: int = 0
    missing: list[datetime] = field(default_factory=list)  # the venue has them, and was not told to leave them out
    invented: list[datetime] = field(default_factory=list)  # the venue has none
    different: list[datetime] = field(default_factory=list)  # other values than the venue has by now
    left_out: int = 0  # by the venue, as it was told to

    @property
    def is_the_venues(self) -> bool:
        """Whether they are what the venue had."""
        return not (self.missing or self.invented or self.different)


def questions_answered(settings: Settings) -> dict[str, int]:
    """Rows that a question about the tables returned, by question and stream; empty where all is well."""
    asked = {question for questions in QUESTIONS.values() for question in questions} | {*ORDER_BOOK_QUESTIONS}
    asked.discard(missing_candles)  # the venue's doing; compared with the venue below
    found = {}
    for stream in settings.streams:
        with warehouse_of(settings).reading() as con:
            mark = pivot_mark(con, stream)
            if mark is None:
                continue
            window = Window(start=mark.since, end=mark.as_of)
            for question in sorted(asked, key=lambda one: one.__name__):
                rows = question(con, stream, window)
                if len(rows):
                    found[f"{question.__name__}, {stream}"] = len(rows)
    return found


def candles_beside_the_venues(settings: Settings, state: Mapping[str, Any]) -> dict[str, Candles]:
    """By stream, the stored candles against the simulated market's; `state` tells what the venue made of it by faults.

    The values of a candle are those that stand by the end of the recorded stretch, corrections included.
    """
    found = {}
    for stream in settings.streams:
        with warehouse_of(settings).reading() as con:
            mark = pivot_mark(con, stream)
            if mark is None:
                found[str(stream)] = Candles()
                continue
            window = Window(start=mark.since, end=mark.as_of)
            stored = read_candles(con, stream, window)
        found[str(stream)] = _compared(stream, stored, _venues(settings, stream, window), state)
    return found


def absent(settings: Settings, state: Mapping[str, Any]) -> dict[str, set[datetime]]:
    """By stream, the candles of the recorded stretch that the venue has not: outages, and what faults left out."""
    found = {}
    for stream in settings.streams:
        with warehouse_of(settings).reading() as con:
            mark = pivot_mark(con, stream)
        found[str(stream)] = _left_out(stream, state)
        if mark is not None:
            window = Window(start=mark.since, end=mark.as_of)
            opens = set(_venues(settings, stream, window)["open_time"])
            count = (window.end - window.start) // stream.step
            found[str(stream)] |= {window.start + number * stream.step for number in range(count)} - opens
    return found


def _venues(settings: Settings, stream: Stream, window: Window) -> pl.DataFrame:
    """The candles of the simulated market, corrected as they were by the window's end."""
    frames = pl.concat(open_source(settings).candles(stream, window))
    inside = frames.filter(pl.col("open_time") >= window.start)
    return inside.sort("open_time", "revision").unique("open_time", keep="last", maintain_order=True)


def _compared(stream: Stream, stored: pl.DataFrame, venues: pl.DataFrame, state: Mapping[str, Any]) -> Candles:
    expected = {row["open_time"]: tuple(row[name] for name in VALUES) for row in venues.iter_rows(named=True)}
    left_out = _left_out(stream, state)
    corrected = _corrections(stream, state)
    result = Candles(stored=len(stored), left_out=len(left_out & expected.keys()))
    there = {row["open_time"]: tuple(row[name] for name in VALUES) for row in stored.iter_rows(named=True)}
    result.missing = sorted(expected.keys() - there.keys() - left_out)
    result.invented = sorted(there.keys() - expected.keys())
    for moment in sorted(there.keys() & expected.keys()):
        values = dict(zip(VALUES, expected[moment], strict=True)) | corrected.get(moment, {})
        if tuple(values.values()) != there[moment]:
            result.different.append(moment)
    return result


def _name(stream: Stream) -> str:
    return f"{stream.symbol.replace('/', '').lower()}@kline_{stream.timeframe}"


def _left_out(stream: Stream, state: Mapping[str, Any]) -> set[datetime]:
    """The candles that faults left out: from the next one to open when the fault was armed."""
    found: set[datetime] = set()
    for fault in state["faults"]:
        if fault["fault"] == "gap" and fnmatchcase(_name(stream), fault.get("stream", "*")):
            first_ms = -(-fault["since_ms"] // stream.step_ms) * stream.step_ms
            found |= {from_ms(first_ms) + number * stream.step for number in range(fault.get("candles", 1))}
    return found


def _corrections(stream: Stream, state: Mapping[str, Any]) -> dict[datetime, dict[str, float]]:
    """The values that faults gave closed candles."""
    return {
        from_ms(each["open_ms"]): {name: float(each[name]) for name in VALUES if name in each}
        for each in state["corrections"]
        if each["stream"] == _name(stream)
    }
