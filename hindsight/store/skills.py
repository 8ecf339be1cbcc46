"""What each model gains over its class prior, day by day, out of the prequential scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from statistics import fmean, stdev

import duckdb

from hindsight.market.streams import Stream
from hindsight.store.rows import OF_STREAM, stream_key

DAYS = 28  # looked back on
WEEK = 7  # days; what is compared with what was before


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillStanding:
    """The gain of one model of one stream on each of its newest scored days, in order, and its loss on each.

    A loss is the log loss of action, trend and next pivot added up, by the weights that learn; a gain is how far that
    of the class prior lies above it.
    """

    stream: Stream
    model: str
    days: Sequence[date] = ()
    gains: Sequence[float] = ()
    losses: Sequence[float] = ()

    @property
    def gain(self) -> float | None:
        """The mean of the days; None without any."""
        return fmean(self.gains) if self.gains else None

    @property
    def gain_error(self) -> float | None:
        """The standard error of that mean; None before there are two days."""
        return standard_error(self.gains) if len(self.gains) > 1 else None

    @property
    def weeks(self) -> list[tuple[float, float]]:
        """Mean loss and mean gain of each WEEK of scored days, the newest first; the first week may have fewer."""
        ends = range(len(self.days), 0, -WEEK)
        parts = [slice(max(0, end - WEEK), end) for end in ends]
        return [(fmean(self.losses[part]), fmean(self.gains[part])) for part in parts]


def read_skill(con: duckdb.DuckDBPyConnection, stream: Stream, model: str) -> SkillStanding:
    """Gains and losses of the newest DAYS days that are scored, without those that lack a target that others have.

    A sum over fewer targets would look like a rise or a fall.
    """
    found = con.execute(
        f"""
        with answered as (
            select day, target,
                max(log_loss_sum / settled) filter (predictor = 'model') as loss,
                max(log_loss_sum / settled) filter (predictor = 'class_prior') as prior
            from scores
            where {OF_STREAM}
              and model = $model
              and log_loss_sum is not null
              and settled > 0
            group by day, target
            having loss is not null and prior is not null
            qualify dense_rank() over (order by day desc) <= $days)
        select day, sum(prior - loss), sum(loss)
        from answered
        group by day
        having count(*) = (select count(distinct target) from answered)
        order by day
        """,
        {"model": model, "days": DAYS, **stream_key(stream)},
    ).fetchall()
    days, gains, losses = zip(*found, strict=True) if found else ((), (), ())
    return SkillStanding(stream=stream, model=model, days=days, gains=gains, losses=losses)


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of daily values."""
    return stdev(values) / len(values) ** 0.5
