"""Calibration: whether a confidence is what it claims to be, a probability.

The expected calibration error is the mean gap between confidence and accuracy over bins of confidence, weighted by how
many predictions fall into each: 0 where of all predictions made with 60 % confidence 60 % came true, and so on.
Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, eq. 3
"""

import duckdb
import polars as pl

from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, select, stream_key

BINS = 20
SQL = """
    with made as (
      select *, strftime(make_timestamp(epoch_us(made_at)), '%Y-%m') as month
      from inference_references
      where {asked}),
    said as (
      select made.model, made.venue, made.symbol, made.timeframe, {month} as month,
             if(answer.kind = 'candle', 'action', 'next_pivot') as target,
             if(
               answer.kind = 'candle',
               made.action_confidence,
               greatest(made.next_pivot_high, 1 - made.next_pivot_high)
             ) as confidence,
             answer.is_correct::integer as came
      from outcomes as answer
      join made using (inference_id)
      where answer.is_correct is not null
      union all
      select made.model, made.venue, made.symbol, made.timeframe, {month}, 'trend',
             list_max(made.trend_probabilities::float[]), answer.is_correct::integer
      from trend_validations as answer
      join made using (inference_id)
      where answer.status = 'validated'
    ),
    binned as (
      select model, venue, symbol, timeframe, month, target, count(*) as settled,
             sum(confidence) as confidence, sum(came) as came
      from said
      group by model, venue, symbol, timeframe, month, target, floor(confidence * $bins)
    )
    select model, venue, symbol, timeframe, month, target, sum(settled)::bigint as settled,
           sum(confidence) / sum(settled) as confidence, sum(came) / sum(settled) as accuracy,
           sum(abs(confidence - came)) / sum(settled) as expected_calibration_error
    from binned
    group by model, venue, symbol, timeframe, month, target
    order by model, venue, symbol, timeframe, month, target"""


def calibration(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per model, stream and target (action, trend, next_pivot): settled, mean confidence, accuracy, and the error."""
    return select(con, SQL.format(asked="true", month="''"), bins=BINS).drop("month")


def calibration_by_month(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """The same of the predictions made in each UTC month of `window`, named in the column `month` (2024-01)."""
    asked = f"{OF_STREAM} and made_at >= $start and made_at < $end"
    params = {**stream_key(stream), "start": window.start, "end": window.end, "bins": BINS}
    return select(con, SQL.format(asked=asked, month="made.month"), **params)
