"""Hindsight: frames of references, gathered from the tape in memory."""

import time
from pathlib import Path

import numpy as np

from hindsight.inference.frames import CANDLE_COLUMNS, COLUMN
from hindsight.market.streams import Stream, Window, from_ms
from hindsight.settings import load
from hindsight.store import tape as tapes
from hindsight.store.warehouse import Warehouse


def prepare(
    home: str, stream: dict[str, str], first_ms: int, end_ms: int, windows: str, length: int, batch: int,
    answer: str | None,
):  # fmt: skip
    """The work that gathers all frames, `batch` at a time; `windows` is an .npy of first and last close (ms)."""
    settings = load(home=Path(home))
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    window, began = Window(start=from_ms(first_ms), end=from_ms(end_ms)), time.perf_counter()
    with warehouse.reading() as con:
        tape = tapes.load(con, settings.tape_path, Stream(**stream), window, window.start)
    took = time.perf_counter() - began
    rows = np.load(windows)[:, 1] // tape.step_ms - 1
    parts = np.split(rows, range(batch, len(rows), batch))

    def work() -> dict[str, object]:
        count = 0
        found = []
        for part in parts:
            frames = tape.gather(part, length)
            count += frames.shape[0] * frames.shape[1]
            if answer:
                found.append(frames[:, :, [COLUMN[name] for name in CANDLE_COLUMNS]])
        if answer:
            np.save(answer, np.concatenate(found))
        return {"candles": count, "load_seconds": took}

    return work
