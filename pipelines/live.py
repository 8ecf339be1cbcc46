"""The jobs of the live path: one that a closed candle starts, one that a confirmed level-2 pivot starts.

`advance` takes up what has landed, predicts, settles and trains, for all streams in one op; `train_on_pivot` validates
the trends that a pivot has answered and trains on them. Each would do the other's work if it came first: what is due
follows from the tables.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from assets import live
from hindsight.exchange.venue_time import venue_clock
from hindsight.market.streams import Stream
from hindsight.settings import load


class Wake(dg.Config):
    """How much of the newest close is left to the run that a level-2 pivot starts."""

    leave_pivots: bool = True


@dg.op
def take_up_predict_settle_train(config: Wake) -> Iterator[dg.AssetMaterialization | dg.Output[None]]:
    """Everything that is due, in event order; the newest references of all streams stand before any model trains."""
    from hindsight.advance import advance as advance_everything

    settings = load()
    clock = venue_clock(settings.heartbeat_path)
    steps = advance_everything(settings, clock, leave_pivots=config.leave_pivots)
    yield from live.confirmed(next(steps))
    advanced = next(steps)
    yield from live.recorded(advanced, clock())
    yield from live.learned(advanced, clock())
    yield from live.decided(advanced, clock())
    live.tell_failures(settings, advanced, datetime.now(UTC))
    yield dg.Output(None)


@dg.job(description="What a closed candle starts: store, predict, settle, train, all streams at once.")
def advance() -> None:
    take_up_predict_settle_train()


class Lessons(dg.Config):
    """Stream and close of each level-2 pivot, as [stream, ISO instant]."""

    confirmed: list[list[str]]


@dg.op
def validate_trends_and_train(config: Lessons) -> Iterator[dg.AssetMaterialization | dg.Output[None]]:
    """Grades the trends that a level-2 pivot has answered and trains on them, the wrongly predicted ones first."""
    from hindsight.advance import learn_from_pivots

    settings = load()
    clock = venue_clock(settings.heartbeat_path)
    pivots = [(Stream.parse(stream), datetime.fromisoformat(close)) for stream, close in config.confirmed]
    advanced = learn_from_pivots(settings, pivots, clock)
    yield from live.learned(advanced, clock())
    live.tell_failures(settings, advanced, datetime.now(UTC))
    yield dg.Output(None)


@dg.job(
    description="What a confirmed level-2 pivot starts: grade the trends that it answers, train, checkpoint.",
    tags={"dagster/priority": "10"},  # for instances with a queue; ours starts every run at once
)
def train_on_pivot() -> None:
    validate_trends_and_train()
