"""The most memory that a process holds while it records, and while it learns, over two months and over two years."""

from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import ETH, MODEL, TWO_YEARS, begin_learning_at, new_folder, record, settings_in
from hindsight.market.streams import Window

LIMIT = 1.5
LEARNED = timedelta(days=3)
TWO_MONTHS = Window(start=datetime(2023, 11, 1, tzinfo=UTC), end=TWO_YEARS.end)
MEBIBYTE = 2**20


def measure(repeats: int) -> Figure:
    """Peaks of two processes each: one that records the history, one that then learns its last three days."""
    peaks: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, window in (("2 months", TWO_MONTHS), ("24 months", TWO_YEARS)):
            home = new_folder("memory")
            span = {"home": str(home), "start": window.start.isoformat(), "end": window.end.isoformat()}
            peaks.setdefault(f"recording {name}", []).append(fresh.run(record_history, **span).peak_bytes)
            begin_learning_at(home, ETH, window.end - LEARNED)
            peaks.setdefault(f"learning on top of {name}", []).append(fresh.run(learn_to_the_end, **span).peak_bytes)
    peak = {name: median(found) / MEBIBYTE for name, found in peaks.items()}
    recording = peak["recording 24 months"] / peak["recording 2 months"]
    learning = peak["learning on top of 24 months"] / peak["learning on top of 2 months"]
    longest = max(peak[f"{what} 24 months"] for what in ("recording", "learning on top of"))
    shortest = max(peak[f"{what} 2 months"] for what in ("recording", "learning on top of"))
    return Figure(
        name="memory: peak over 24 months against 2 months",
        goal=f"within {LIMIT:g}×",
        measured=f"{longest:.0f} MiB against {shortest:.0f} MiB",
        ratio=f"{longest / shortest:.2f}× (recording alone {recording:.2f}×, learning alone {learning:.2f}×)",
        is_reached=longest / shortest <= LIMIT,
        notes=(
            *(f"{name}: {size:.0f} MiB" for name, size in peak.items()),
            f"only the last {LEARNED.days} days are learned; the peak of a whole two-year backfill is in "
            "docs/benchmarks.md",
        ),
    )


def record_history(home: str, start: str, end: str) -> dict[str, Any]:
    """Records candles, indicators and pivots."""
    record(home, ETH, Window(start=datetime.fromisoformat(start), end=datetime.fromisoformat(end)))
    return {}


def learn_to_the_end(home: str, start: str, end: str) -> dict[str, Any]:
    """Learns from the watermark to the end."""
    from hindsight.learn import learn

    return {"closes": learn(settings_in(home), ETH, MODEL, datetime.fromisoformat(end)).closes}
