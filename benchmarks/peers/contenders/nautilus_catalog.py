"""NautilusTrader: candles of a Parquet file into a catalog, as its documentation loads them: wrangler, write_data."""

from pathlib import Path

import pandas as pd
from nautilus_trader.model.data import BarType
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.test_kit.providers import TestInstrumentProvider


def prepare(candles: str, catalog: str, bar_type: str, first_ms: int, end_ms: int, monthly: bool):
    """The work that writes the candles that open in [first_ms, end_ms): one file, or one for each month."""
    frame = pd.read_parquet(candles)
    frame = frame[(frame["ts_ms"] >= first_ms) & (frame["ts_ms"] < end_ms)]
    closed = pd.to_datetime(frame.pop("ts_ms") + 60_000, unit="ms", utc=True)
    frame = frame.set_index(pd.DatetimeIndex(closed, name="timestamp"))
    wrangler = BarDataWrangler(BarType.from_str(bar_type), TestInstrumentProvider.ethusdt_binance())

    def work() -> dict[str, object]:
        written = ParquetDataCatalog(catalog)
        parts = [part for _, part in frame.groupby([closed.dt.year.values, closed.dt.month.values])]
        for part in parts if monthly else [frame]:
            written.write_data(wrangler.process(part))
        return {"files": len(list(Path(catalog).rglob("*.parquet")))}

    return work
