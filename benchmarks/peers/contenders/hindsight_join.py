"""Hindsight: the tape's row of each reference as of its instant."""

from pathlib import Path

import numpy as np

from hindsight.market.streams import Stream, Window, from_ms
from hindsight.settings import load as load_settings
from hindsight.store import tape as tapes
from hindsight.store.warehouse import Warehouse


def prepare(
    home: str, stream: dict[str, str], first_ms: int, end_ms: int, instants: str, is_resident: bool, answer: str | None
):  # fmt: skip
    """The work that finds all columns at all instants (.npy, milliseconds) of the candles in [first_ms, end_ms).

    It opens the warehouse, and the tape on disk, which it checks against the tables; where `is_resident`, that was done
    before.
    """
    settings = load_settings(home=Path(home))
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    window, market = Window(start=from_ms(first_ms), end=from_ms(end_ms)), Stream(**stream)
    asked = np.load(instants)

    def recall() -> tapes.Tape:
        with warehouse.reading() as con:
            return tapes.load(con, settings.tape_path, market, window, window.start)

    resident = recall() if is_resident else None

    def work() -> dict[str, object]:
        tape = resident or recall()
        found = tape.gather(asked // tape.step_ms - 1, 1, asked)[:, 0]
        if answer:
            np.save(answer, found)
        return {"rows": len(found)}

    return work
