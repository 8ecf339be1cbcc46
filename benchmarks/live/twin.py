"""The twin of a live home: a fresh one, into which the same stretch is backfilled.

`Delivered` gives it what the live home was delivered, with the instants at which it was: whatever the market's tables
were filled with, everything that follows from them must be the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.homes import record_from
from hindsight.exchange.sources import Source
from hindsight.learn import learn
from hindsight.market.candles import CANDLES
from hindsight.market.streams import Stream, Window
from hindsight.settings import Settings
from hindsight.store.inference_tables import learned_until
from hindsight.store.market_tables import pivot_mark
from hindsight.store.rows import OF_STREAM, select, stream_key
from hindsight.store.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Delivered:
    """A source of what a home was delivered: first deliveries and corrections, as its tables have them."""

    settings: Settings

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        """First deliveries and corrections, by open time."""
        names = ", ".join(CANDLES.names())
        with warehouse_of(self.settings).reading() as con:
            sql = f"""
                select {names} from candles where {OF_STREAM}
                union all
                select {names} from candle_revisions where {OF_STREAM}
                order by open_time, revision"""
            yield select(con, sql, **stream_key(stream)).cast(CANDLES)


def warehouse_of(settings: Settings) -> Warehouse:
    """The warehouse of a home."""
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=60.0)


def backfilled(live: Settings, home: Path, source: Source) -> Settings:
    """A fresh home, recorded from `source` and learned from as far as the live one is."""
    twin = live.model_copy(update={"home": home})
    for stream in live.streams:
        with warehouse_of(live).reading() as con:
            mark = pivot_mark(con, stream)
            done = {model: learned_until(con, model, stream) for model in live.models}
        if mark is None:
            continue
        window, warehouse = Window(start=mark.since, end=mark.as_of), warehouse_of(twin)
        record_from(source, twin, warehouse, stream, window)
        for model, until in done.items():
            if until is not None:
                learn(twin, stream, model, until[1])
    return twin
