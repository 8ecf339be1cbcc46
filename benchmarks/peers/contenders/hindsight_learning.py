"""Hindsight: learning days of candles as a backfill does it, in a process that has done nothing else."""

from pathlib import Path

from benchmarks.disk import by_column
from benchmarks.homes import ETH, MODEL, settings_in, warehouse_in
from hindsight.exchange.sources import open_source
from hindsight.inference.predictions import BUY
from hindsight.inference.records import predictions_of
from hindsight.learn import learn
from hindsight.market.streams import Window, from_ms, to_ms
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.store.inference_tables import read_references


def prepare(start_ms: int, said_from_ms: int, end_ms: int):
    """The work: indicators, pivots, and the default model's predictions and steps from `start_ms` to `end_ms`.

    Candles are in the tables before. What was said of the candles that open from `said_from_ms` on comes back.
    """
    home = Path.cwd() / "home"
    settings = settings_in(home, symbols=(ETH.symbol,), models=(MODEL,), device="cpu")
    warehouse, window = warehouse_in(home), Window(start=from_ms(start_ms), end=from_ms(end_ms))
    record_candles(warehouse, open_source(settings), ETH, window, window.end)
    before = _bytes_in(home)

    def work() -> dict[str, object]:
        record_indicators(warehouse, ETH, window)
        record_pivots(warehouse, ETH, window.end, max_gap=settings.max_gap)
        report = learn(settings, ETH, MODEL, window.end)
        after = _bytes_in(home)
        with warehouse.reading() as con:
            references = read_references(con, MODEL, ETH, Window(start=from_ms(said_from_ms), end=window.end))
            columns = by_column(con, "inference_references")
            made = con.execute("select count(*) from inference_references").fetchall()[0][0]
        return {
            "closes": report.closes,
            "predicted": report.predicted,
            "steps": report.steps,
            "disk_bytes": sum(after.values()),
            "added_bytes": sum(after.values()) - sum(before.values()),
            "folders": after,
            "reference_bytes": sum(size for _, _, size in columns) / max(made, 1),
            "rows": [to_ms(made_at) // ETH.step_ms - 1 for made_at in references["made_at"]],
            "up": predictions_of(references)[:, BUY].tolist(),
        }

    return work


def _bytes_in(home: Path) -> dict[str, int]:
    """Bytes of the warehouse and of each folder of a home."""
    sizes: dict[str, int] = {}
    for file in home.rglob("*"):
        if file.is_file():
            part = file.relative_to(home).parts[0]
            sizes[part] = sizes.get(part, 0) + file.stat().st_size
    return sizes
