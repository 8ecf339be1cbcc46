"""Hindsight: candle after candle, from the segment that the feed has landed to the reference and to the new weights."""

import shutil
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.homes import ETH, MODEL, settings_in
from hindsight.advance import advance
from hindsight.exchange.landing import Landing
from hindsight.exchange.sources import open_source
from hindsight.market.streams import Window, from_ms, to_ms

AFTER = timedelta(milliseconds=300)  # the close: when a segment of its candle has landed


def prepare(home: str, end_ms: int, closes: int):
    """The work: `closes` closes after the one that `home` has learned up to at `end_ms`, each learned from.

    It works on a copy of `home`; one close more goes before, so that everything is loaded.
    """
    copy = Path.cwd() / "home"
    shutil.copytree(home, copy)
    settings = settings_in(copy, symbols=(ETH.symbol,), models=(MODEL,), train_every=1, device="cpu")
    landing, end = Landing(settings.landing_path), from_ms(end_ms)
    window = Window(start=end, end=end + (closes + 1) * ETH.step)
    (candles,) = open_source(settings).candles(ETH, window)
    rows = [
        {
            "stream": str(ETH),
            "open_time_ms": to_ms(row["open_time"]),
            **{name: row[name] for name in ("open", "high", "low", "close", "volume")},
            "known_ms": None,
            "closed_by": "flag",
        }
        for row in candles.iter_rows(named=True)
    ]

    def live_through(row: dict[str, object]) -> dict[str, float]:
        close = from_ms(int(str(row["open_time_ms"]))) + ETH.step
        landing.write("candles", [row], to_ms(close), to_ms(close))
        wall, processor, written = time.perf_counter(), time.process_time(), _written()
        parts = advance(settings, lambda: close + AFTER, leave_pivots=True)
        said = next(parts)
        taken = {
            "predicted": time.perf_counter() - wall,
            "predicted_processor": time.process_time() - processor,
            "predicted_written": _written() - written,
        }
        (done,) = parts
        taken |= {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "written": _written() - written,
        }
        lesson = done.lessons.get((ETH, MODEL))
        if done.failures or said.lessons.keys() != done.lessons.keys() or lesson is None or lesson.predicted != 1:
            raise RuntimeError(f"expected one reference at {close}, found {lesson} and {done.failures}")
        return taken | {"steps": lesson.steps}

    live_through(rows[0])

    def work() -> dict[str, object]:
        return {"closes": [live_through(row) for row in rows[1:]]}

    return work


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
