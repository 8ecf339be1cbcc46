"""As-of: the candles as the tables stood at some instant, before later corrections (DESIGN §3.5).

`current` holds the newest revision of each candle, in the columns of CANDLES; `revisions` what it replaced, with
`superseded_at` besides: a revision was current in [recorded_at, superseded_at).
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl

from hindsight.market.candles import CANDLES, TIME
from hindsight.market.indicators import anchor
from hindsight.market.streams import Window, floor_to

A_MOMENT = timedelta(microseconds=1)

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


def stretches(
    current: pl.DataFrame, revisions: pl.DataFrame, window: Window, step: timedelta
) -> Iterator[tuple[Window, pl.DataFrame]]:
    """The pieces of `window` in which closes know the same revisions, each with the candles that its indicators reach,
    as they were known then."""
    late = pl.concat([current, revisions.select(current.columns)]).filter(
        pl.col("recorded_at") > pl.col("open_time") + step
    )
    # The first candle that closes at or after each change; between two of those, the same revisions are current.
    changes = {floor_to(at - step - A_MOMENT, step) + step for at in late["recorded_at"].unique()}
    edges = sorted({window.start, window.end, *(at for at in changes if window.start < at < window.end)})
    for start, end in pairwise(edges):
        reach = pl.col("open_time").is_between(anchor(start, step), end, closed="left")
        yield Window(start=start, end=end), as_of(current.filter(reach), revisions.filter(reach), end)
