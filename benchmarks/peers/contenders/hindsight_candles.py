"""Hindsight: all candles of one stream, from the warehouse into a frame."""

import time
from pathlib import Path

import numpy as np

from hindsight.market.streams import Stream, Window, from_ms
from hindsight.settings import load
from hindsight.store.market_tables import read_candles
from hindsight.store.warehouse import Warehouse


def prepare(home: str, stream: dict[str, str], first_ms: int, end_ms: int, answer: str | None):
    """The work that opens the warehouse and reads them."""
    settings = load(home=Path(home))
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    window, market = Window(start=from_ms(first_ms), end=from_ms(end_ms)), Stream(**stream)
    with warehouse.reading() as con:  # what is made ready late is no part of the work
        read_candles(con, market, Window(start=window.start, end=window.start + market.step))

    def work() -> dict[str, object]:
        began = time.perf_counter()
        with warehouse.reading() as con:
            opened = time.perf_counter()
            frame = read_candles(con, market, window)
            read = time.perf_counter()
        opening = opened - began + time.perf_counter() - read
        if answer:
            open_ms = frame["open_time"].dt.epoch("ms").to_numpy()
            np.save(answer, np.column_stack([open_ms, frame.select("open", "high", "low", "close", "volume")]))
        return {"candles": len(frame), "open_seconds": opening}

    return work
