"""What each model gains over its class prior, day by day, out of the prequential scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, stream_key

DAYS = 28  # looked back on


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillStanding:
    """The gain of one model of one stream on each of its newest scored days, in order.

    A gain is the log loss of the class prior less that of the model, of action, trend and next pivot added up.
    """

    stream: Stream
    model: str
    days: Sequence[date] = ()
    gains: Sequence[float] = ()


def read_skill(con: duckdb.DuckDBPyConnection, stream: Stream, model: str) -> SkillStanding:
    """The gains on the newest days that are scored, at most DAYS of them."""
    found = con.execute(
        f"""
        select day, sum(gain)
        from (
            select day, target,
                max(log_loss_sum / settled) filter (predictor = 'class_prior')
                - max(log_loss_sum / settled) filter (predictor = 'model') as gain
            from scores
            where {OF_STREAM}
              and model = $model
              and log_loss_sum is not null
              and settled > 0
            group by day, target
        )
        group by day
        having sum(gain) is not null
        order by day desc
        limit {DAYS}
        """,
        {"model": model, **stream_key(stream)},
    ).fetchall()
    days, gains = zip(*reversed(found), strict=True) if found else ((), ())
    return SkillStanding(stream=stream, model=model, days=days, gains=gains)
