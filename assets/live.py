"""What a live run reports: a materialisation of each asset that it moved, with how long after the close that was.

A live run is one op over all streams and no step per asset: Dagster's bookkeeping of a step costs more than the work.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from assets.partitions import market_month, partition_key
from hindsight.health.alerts import alert, recovered, standing
from hindsight.ingest import Taken
from hindsight.market.as_of import A_MOMENT
from hindsight.market.streams import Stream
from hindsight.settings import Settings

if TYPE_CHECKING:
    from hindsight.advance import Advanced  # imports torch, which the definitions do without


def confirmed(advanced: "Advanced") -> Iterator[dg.AssetMaterialization]:
    """`pivots` of each stream of which a level-2 pivot was confirmed: what wakes the sensor `pivot_confirmed`."""
    for stream, taken in advanced.ingested.streams.items():
        if taken.closed and taken.pivots[2]:
            yield _materialised("pivots", stream, taken.closed, _levels(taken))


def recorded(advanced: "Advanced", now: datetime) -> Iterator[dg.AssetMaterialization]:
    """The market's assets, beside the pivots that `confirmed` has told already."""
    for stream, taken in advanced.ingested.streams.items():
        if taken.closed:
            late = (now - taken.closed).total_seconds()
            counts = {"new": taken.candles, "revised": taken.revised, "refused": taken.refused}
            yield _materialised("candles", stream, taken.closed, {**counts, "seconds_after_close": late})
            yield _materialised("indicators", stream, taken.closed, {"computed": taken.indicators})
            if any(taken.pivots.values()) and not taken.pivots[2]:
                yield _materialised("pivots", stream, taken.closed, _levels(taken))
    for (venue, symbol), seconds in advanced.ingested.books.items():
        yield dg.AssetMaterialization(
            "order_book", partition=market_month(venue, symbol, now), metadata={"mode": "live", "seconds": seconds}
        )


def learned(advanced: "Advanced", now: datetime) -> Iterator[dg.AssetMaterialization]:
    """The assets of prediction and learning that each lesson moved."""
    for (stream, model), report in advanced.lessons.items():
        if report.until is not None:
            late = (now - report.until).total_seconds()
            steps = {"steps": report.steps, "seconds_after_close": late, **report.losses}
            for asset, count, figures in (
                ("inference_references", report.predicted, {"made": report.predicted}),
                ("outcomes", report.settled, {"settled": report.settled}),
                ("trend_validations", report.graded, {"graded": report.graded}),
                ("checkpoints", report.steps, steps),
            ):
                if count:
                    yield _materialised(asset, stream, report.until, {"model": model, **figures})


def decided(advanced: "Advanced", now: datetime) -> Iterator[dg.AssetMaterialization]:
    """`decisions` of each stream at which there was something to decide."""
    for stream, report in advanced.decisions.items():
        if report.until is not None:
            late = {"seconds_after_close": (now - report.until).total_seconds()}
            yield _materialised("decisions", stream, report.until, {"decided": report.decided, **late})


def tell_failures(settings: Settings, advanced: "Advanced", now: datetime) -> None:
    """Calls a person where a lesson failed, and tells when it no longer does.

    The run itself goes on as if nothing were: a failed run would hold back the candles of every stream.
    """
    done = {*advanced.lessons, *((stream, "mixture") for stream in advanced.decisions)}
    titles = {key: f"{key[1]} cannot predict or learn on {key[0]}" for key in (*advanced.failures, *done)}
    for key, error in advanced.failures.items():
        alert(settings, titles[key], f"{type(error).__name__}: {error}", "failure", now)
    well = {titles[key] for key in done if key not in advanced.failures}
    if over := well & standing(settings).keys():
        recovered(settings, over, now)


def _levels(taken: Taken) -> dict[str, int]:
    return {f"level_{level}": count for level, count in taken.pivots.items()}


def _materialised(
    asset: str, stream: Stream, closed: datetime, metadata: dict[str, float | int | str]
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset,
        partition=partition_key(stream, closed - A_MOMENT),
        metadata={"mode": "live", "stream": str(stream), "closed": dg.MetadataValue.timestamp(closed), **metadata},
    )
