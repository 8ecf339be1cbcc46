"""Sources of candles: the one protocol that the simulated venue, archives and exchanges share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import polars as pl

from hindsight.market.buckets import bucket_sizes
from hindsight.market.streams import Stream, Window
from hindsight.settings import Settings


class Source(Protocol):
    """Where candles come from. What it yields is not yet validated: `candles.accept` is the door."""

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        """Frames with the columns of CANDLES, in time order, at most about 250,000 rows each.

        First deliveries (revision 0, recorded at their close) of the candles that open in `window` and have closed by
        its end, and corrections (revision 1 and up) recorded in (start, end] of any candle, however old. Cut at closes,
        windows side by side therefore yield what one wide window yields.
        """
        ...


def open_source(settings: Settings) -> Source:
    """The source that the setting `source` names: `simulated`, `archive:DIR` or `ccxt:VENUE`.

    Raises SettingRefused where the folder or the venue does not exist.
    """
    # Imported on use: ccxt alone takes half a second, and only one of the three is ever needed.
    kind, _, rest = settings.source.partition(":")
    if kind == "ccxt":
        from hindsight.exchange.ccxt_rest import CcxtRest

        return CcxtRest(rest)
    if kind == "archive":
        from hindsight.exchange.archive import Archive

        return Archive(Path(rest).expanduser())
    from hindsight.exchange.simulated import SimulatedVenue

    return SimulatedVenue(
        seed=settings.simulated_seed,
        phi=settings.simulated_phi,
        signal=settings.simulated_signal,
        sizes=bucket_sizes(settings.bucket_sizes),
    )
