"""As-of: the candles as the tables stood at some instant, before later corrections (DESIGN §3.5).

`current` holds the newest revision of each candle, in the columns of CANDLES; `revisions` what it replaced, with
`superseded_at` besides: a revision was current in [recorded_at, superseded_at).
"""

from datetime import datetime

import polars as pl

from hindsight.market.candles import CANDLES, TIME

REVISIONS = pl.Schema({**CANDLES, "superseded_at": TIME})


def as_of(current: pl.DataFrame, revisions: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """The candles known at `moment`, each in the revision current then, sorted, in the columns of CANDLES."""
    known = pl.col("recorded_at") <= moment
    return (
        pl.concat(
            [
                current.filter(known).select(CANDLES.names()),
                revisions.filter(known & (moment < pl.col("superseded_at"))).select(CANDLES.names()),
            ]
        )
        .sort("open_time", "revision")
        # A correction of a correction within one microsecond leaves an empty interval; the newest stands.
        .unique("open_time", keep="last", maintain_order=True)
    )


def as_first_known(current: pl.DataFrame, revisions: pl.DataFrame) -> pl.DataFrame:
    """Each candle as it was first delivered, its lowest revision, sorted, in the columns of CANDLES."""
    if revisions.is_empty():
        return current.select(CANDLES.names()).sort("open_time")
    return (
        pl.concat([current.select(CANDLES.names()), revisions.select(CANDLES.names())])
        .sort("open_time", "revision")
        .unique("open_time", keep="first", maintain_order=True)
    )
