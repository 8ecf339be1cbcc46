"""NautilusTrader: all bars of one type in the catalog, as its objects."""

import numpy as np
import pandas as pd
from nautilus_trader.persistence.catalog import ParquetDataCatalog


def prepare(catalog: str, bar_type: str, first_close_ms: int, answer: str | None):
    """The work that reads them all."""
    opened = ParquetDataCatalog(catalog)
    # What is made ready late is no part of the work.
    opened.bars(bar_types=[bar_type], end=pd.Timestamp(first_close_ms, unit="ms", tz="UTC"))

    def work() -> dict[str, object]:
        bars = opened.bars(bar_types=[bar_type])
        if answer:
            np.save(answer, [_values(bar) for bar in bars])
        return {"candles": len(bars)}

    return work


def _values(bar) -> tuple[float, ...]:
    values = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return (bar.ts_event // 1_000_000 - 60_000, *(float(value) for value in values))
