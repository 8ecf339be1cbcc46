"""Hindsight: the indicators of each new candle: computed alone, stored in a common transaction, or each in its own."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from hindsight.market.indicators import NAMES, anchor, compute
from hindsight.market.streams import Stream, Window, from_ms
from hindsight.record import months_reached, record_indicators, replace_indicators
from hindsight.settings import load
from hindsight.store.market_tables import read_candles, read_indicators
from hindsight.store.warehouse import Warehouse


def prepare(home: str, stream: dict[str, str], opened_ms: list[int], way: str, loops: int, answer: str | None):
    """The work for the candles that open at `opened_ms`, ascending; `home` holds the candles, and stays as it is."""
    shutil.copytree(home, "home")
    settings, market = load(home=Path("home").resolve()), Stream(**stream)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    windows = [Window(start=from_ms(each), end=from_ms(each + market.step_ms)) for each in opened_ms]
    span = Window(start=windows[0].start, end=windows[-1].end)
    with warehouse.reading() as con:
        candles = read_candles(con, market, Window(start=anchor(span.start, market.step), end=span.end))
    opened = candles["open_time"]
    bounds = [(anchor(each.start, market.step), each.end) for each in windows]
    known = [candles[opened.search_sorted(start) : opened.search_sorted(end)] for start, end in bounds]
    count = (span.end - span.start) // market.step if way == "backfilled" else len(windows)

    def work() -> dict[str, object]:
        computed = []
        for _ in range(loops):
            if way == "computed":
                computed = [compute(each, window, market.step) for each, window in zip(known, windows, strict=True)]
            elif way == "placed":  # as live: in the transaction that also takes the candle and its pivots
                with warehouse.writing() as con:
                    for window in windows:
                        for part in months_reached(con, market, window):
                            replace_indicators(con, market, part)
            elif way == "recorded":
                for window in windows:
                    record_indicators(warehouse, market, window)
            else:
                record_indicators(warehouse, market, span)
        if answer:
            np.save(answer, np.concatenate([each.select(NAMES).to_numpy() for each in computed or stored()]))
        return {"candles": loops * count}

    def stored() -> list[pl.DataFrame]:
        with warehouse.reading() as con:
            return [read_indicators(con, market, window) for window in windows]

    return work
