"""NautilusTrader: the bars of each window, asked of ParquetDataCatalog one window after the other."""

import numpy as np
import pandas as pd
from nautilus_trader.persistence.catalog import ParquetDataCatalog


def prepare(catalog: str, bar_type: str, windows: str, answer: str | None):
    """The work that asks for every window; `windows` is an .npy of first and last close in milliseconds."""
    opened = ParquetDataCatalog(catalog)
    bounds = [
        (pd.Timestamp(first, unit="ms", tz="UTC"), pd.Timestamp(last, unit="ms", tz="UTC"))
        for first, last in np.load(windows).tolist()
    ]

    def work() -> dict[str, object]:
        found = [opened.bars(bar_types=[bar_type], start=first, end=last) for first, last in bounds]
        if answer:
            np.save(answer, [[_values(bar) for bar in bars] for bars in found])
        return {"bars": sum(map(len, found))}

    return work


def _values(bar) -> tuple[float, ...]:
    return tuple(float(value) for value in (bar.open, bar.high, bar.low, bar.close, bar.volume))
