"""What the UI plots: figures per UTC month of one stream, of all models together and of each by itself."""

from collections.abc import Iterator
from typing import NamedTuple

import duckdb
import polars as pl

from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, select, stream_key

# Months are taken of plain timestamps: of a timestamptz they go through the calendar of a time zone, ten times slower.
CANDLES = """
    with held as (
      select date_trunc('month', make_timestamp(epoch_us(open_time))) as start_of_month, count(*) as rows,
             count(*) filter (revision > 0) as revised
      from candles
      where {of_stream} and open_time >= $start and open_time < $end
      group by start_of_month),
    holes as (
      select date_trunc('month', make_timestamp(epoch_us(start_time))) as start_of_month, sum(candles) as missing
      from gaps
      where {of_stream}
      group by start_of_month),
    turned_away as (
      select date_trunc('month', make_timestamp(epoch_us(open_time))) as start_of_month, count(*) as refused
      from refused_candles
      where {of_stream}
      group by start_of_month)
    select strftime(start_of_month, '%Y-%m') as month, rows, revised,
           coalesce(missing, 0)::bigint as missing_candles, coalesce(refused, 0) as refused_candles
    from held
    left join holes using (start_of_month)
    left join turned_away using (start_of_month)
    order by month"""


class Monthly(NamedTuple):
    """Figures of a table by the month of one of its columns: a row per month, or per month and model."""

    table: str
    time: str
    figures: str
    by_model: bool = True

    @property
    def sql(self) -> str:
        """To be asked of one stream and window."""
        keys = "month, model" if self.by_model else "month"
        return f"""
            select strftime(make_timestamp(epoch_us({self.time})), '%Y-%m') as {keys}, {self.figures}
            from {self.table}
            where {{of_stream}} and {self.time} >= $start and {self.time} < $end
            group by {keys}
            order by {keys}"""


# What several models share is counted together; what differs between them is asked of each.
SHARED = {
    "indicators": Monthly(
        "indicators", "open_time", "count(*) as rows, count(*) filter (adx_14 is null) as not_warm", by_model=False
    ),
    "pivots": Monthly(
        "pivots",
        "confirmed_at",
        """
        count(*) as rows,
        count(*) filter (level = 1) as level_1, count(*) filter (level = 2) as level_2,
        count(*) filter (level = 3) as level_3, count(*) filter (level = 4) as level_4,
        count(*) filter (level = 5) as level_5
        """,
        by_model=False,
    ),
    "inference_references": Monthly("inference_references", "made_at", "count(*) as rows", by_model=False),
    "decisions": Monthly(
        "decisions",
        "made_at",
        """
        count(*) as rows,
        avg((action = 'buy')::int) as bought, avg((action = 'sell')::int) as sold,
        avg((used = 'mixture')::int) as by_mixture, avg(probability) as mean_probability
        """,
        by_model=False,
    ),
    "outcomes": Monthly(
        "outcomes",
        "settled_at",
        "count(*) as rows, count(*) filter (status = 'unusable') as unusable",
        by_model=False,
    ),
    "trend_validations": Monthly(
        "trend_validations",
        "settled_at",
        """
        count(*) as rows,
        count(*) filter (status = 'expired') as expired, count(*) filter (priority = 'high') as high_priority
        """,
        by_model=False,
    ),
    "checkpoints": Monthly("training_steps", "event_time", "count(*) as training_steps", by_model=False),
}
MEANS = {
    "inference_references": Monthly("inference_references", "made_at", "avg(action_confidence) as mean_confidence"),
    "outcomes": Monthly(
        "outcomes",
        "settled_at",
        """
        avg(is_correct::int) filter (kind = 'candle') as action_accuracy,
        avg(log_loss) filter (kind = 'candle') as action_log_loss,
        avg(is_correct::int) filter (is_next) as next_pivot_accuracy,
        avg(log_loss) filter (is_next) as next_pivot_log_loss
        """,
    ),
    "trend_validations": Monthly(
        "trend_validations", "settled_at", "avg(is_correct::int) as trend_accuracy, avg(log_loss) as trend_log_loss"
    ),
    "checkpoints": Monthly(
        "training_steps",
        "event_time",
        """
        avg(loss) as loss, avg(loss_action) as loss_action, avg(loss_candle) as loss_candle,
        avg(nullif(loss_trend, 0)) as loss_trend, avg(loss_pivot) as loss_pivot, avg(loss_value) as loss_value,
        count(*) / nullif(sum(seconds), 0) as steps_per_second
        """,
    ),
}
# What is counted is told of every month in which a model has learned: none is a number too.
COUNTS = {
    "inference_references": (Monthly("refused_frames", "day", "sum(closes)::bigint as refused_frames"),),
    "checkpoints": (
        Monthly("drifts", "event_time", "count(*) as drifts, sum(steps)::bigint as retrain_steps"),
        Monthly(
            "promotions",
            "event_time",
            """
            count(*) filter (outcome in ('first', 'promoted', 'kept')) as looks,
            count(*) filter (outcome in ('first', 'promoted')) as promotions,
            count(*) filter (outcome in ('by hand', 'rolled back')) as changes_by_hand
            """,
        ),
    ),
}
LEARNED = """
    select model, strftime(start_of_month, '%Y-%m') as month
    from (
      select *, unnest(range(date_trunc('month', $start::timestamp), $end::timestamp, interval 1 month))
                  as start_of_month
      from learned_until
      where {of_stream})
    where start_of_month between date_trunc('month', since::timestamp) and until::timestamp
    order by month, model"""


def by_month(con: duckdb.DuckDBPyConnection, table: str, stream: Stream, window: Window) -> pl.DataFrame:
    """One row per UTC month of `window`: `month` (2024-01) and the figures of `table`."""
    return _asked(con, CANDLES if table == "candles" else SHARED[table].sql, stream, window)


def by_model(con: duckdb.DuckDBPyConnection, table: str, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
    """Frames with a row per UTC month of `window` and model: `month`, `model` and the figures of `table`."""
    if table in MEANS:
        yield _asked(con, MEANS[table].sql, stream, window)
    if table in COUNTS:
        learned = _asked(con, LEARNED, stream, window)
        for each in COUNTS[table]:
            counted = _asked(con, each.sql, stream, window)
            yield learned.join(counted, on=["month", "model"], how="left", maintain_order="left").fill_null(0)


def scores_by_month(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """Per month, model, target and predictor (the model and its baselines): accuracy, log loss, regression loss."""
    sql = """
        select strftime(day, '%Y-%m') as month, model, target, predictor,
               sum(correct) / nullif(sum(settled) filter (correct is not null), 0) as accuracy,
               sum(log_loss_sum) / nullif(sum(settled) filter (log_loss_sum is not null), 0) as log_loss,
               sum(regression_loss_sum)
                 / nullif(sum(settled) filter (regression_loss_sum is not null), 0) as regression_loss
        from scores
        where {of_stream} and day >= $start::date and day < $end::date
        group by all
        order by all"""
    return _asked(con, sql, stream, window)


def _asked(con: duckdb.DuckDBPyConnection, sql: str, stream: Stream, window: Window) -> pl.DataFrame:
    sql = sql.replace("{of_stream}", OF_STREAM)
    return select(con, sql, **stream_key(stream), start=window.start, end=window.end)
