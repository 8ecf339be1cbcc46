"""Questions about references, outcomes, trends and training: each returns what is wrong in one window of one stream.

Read like `questions.py`; a row belongs to the window in which it became known.
"""

from datetime import UTC, datetime

import polars as pl

from hindsight.market.streams import EPOCH, Stream, Window
from hindsight.store.questions import Connection, ask

SAMPLE = 8  # references resolved per check: some 30 ms each
EVER = Window(start=EPOCH, end=datetime(9999, 1, 1, tzinfo=UTC))

# References ----------------------------------------------------------------------------------------------------------


def references_standing_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which references are stored more than once?"""
    sql = """
        select inference_id, min(model) as model, min(made_at) as made_at, count(*) as times
        from inference_references
        where {of_stream} and made_at > $from and made_at <= $to
        group by inference_id
        having count(*) > 1
        order by made_at"""
    return ask(con, sql, stream, window)


def references_seeing_the_future(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which references saw a candle that had not closed, or aim at one that had already opened?"""
    sql = """
        select inference_id, model, made_at, input_start, input_end, target_time
        from inference_references
        where {of_stream} and made_at > $from and made_at <= $to
          and (input_end > made_at or input_start >= input_end or target_time < made_at)
        order by made_at"""
    return ask(con, sql, stream, window)


def predictions_not_finite(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which predictions are NaN or infinite, or hold a probability outside 0..1?"""
    sql = """
        select inference_id, model, made_at, action_confidence, trend_probabilities, next_pivot_high,
               predicted_candle, predicted_pivots
        from inference_references
        where {of_stream} and made_at > $from and made_at <= $to
          and not (
            action_confidence between 0 and 1 and next_pivot_high between 0 and 1
            and list_sum(trend_probabilities::float[]) between 0.999 and 1.001
            and isfinite(list_sum(norm_params::float[]))
            and isfinite(list_sum(predicted_candle::float[]))
            and isfinite(list_sum(predicted_pivots::float[])))
        order by made_at"""
    return ask(con, sql, stream, window)


# Decisions -----------------------------------------------------------------------------------------------------------


def decisions_standing_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """At which closes was more than one decision made?"""
    sql = """
        select made_at, count(*) as times
        from decisions
        where {of_stream} and made_at > $from and made_at <= $to
        group by made_at
        having count(*) > 1
        order by made_at"""
    return ask(con, sql, stream, window)


def decisions_not_adding_up(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which decisions act against their threshold, or have contributions that are not shares of 1?"""
    sql = """
        select made_at, action, probability, used, contributions, reason
        from decisions
        where {of_stream} and made_at > $from and made_at <= $to
          and not coalesce(
            if(used = 'none', probability is null and action = 'hold',
              probability between 0 and 1 and list_sum(contributions) between 0.999 and 1.001
              and list_min(contributions) >= 0)
            and (action <> 'buy' or probability >= buy_threshold - 1e-6)
            and (action <> 'sell' or probability <= sell_threshold + 1e-6), false)
        order by made_at"""
    return ask(con, sql, stream, window)


# Outcomes ------------------------------------------------------------------------------------------------------------


def outcomes_standing_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which outcomes were settled more than once?"""
    sql = """
        select inference_id, kind, min(made_at) as made_at, count(*) as times
        from outcomes
        where {of_stream} and settled_at > $from and settled_at <= $to
        group by inference_id, kind
        having count(*) > 1
        order by made_at"""
    return ask(con, sql, stream, window)


def outcomes_settled_too_early(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which outcomes were settled before their candle closed or pivot was confirmed, or answer what came before?"""
    sql = """
        select inference_id, kind, status, outcomes.made_at, true_at, settled_at, confirmed_at
        from outcomes
        left join (
            select pivot_type, pivot_time, min(confirmed_at) as confirmed_at
            from pivots
            where {of_stream} and confirmed_at > $from and confirmed_at <= $to
            group by pivot_type, pivot_time) as answers
          on kind = pivot_type and true_at = pivot_time
        where {of_stream} and settled_at > $from and settled_at <= $to
          and (
            true_at < made_at
            or settled_at < true_at + $step
            or (status = 'settled' and kind <> 'candle' and settled_at is distinct from confirmed_at))
        order by settled_at"""
    return ask(con, sql, stream, window)


def outcomes_not_finite(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which settled outcomes are NaN or infinite, and which unusable ones give no reason?"""
    sql = """
        select inference_id, kind, status, reason, settled_at, log_return, log_loss, regression_loss
        from outcomes
        where {of_stream} and settled_at > $from and settled_at <= $to
          and (
            (status = 'unusable' and reason is null)
            or (status = 'settled' and log_return is null)
            or not isfinite(log_return) or not isfinite(log_loss) or not isfinite(regression_loss))
        order by settled_at"""
    return ask(con, sql, stream, window)


# Trends --------------------------------------------------------------------------------------------------------------


def trends_graded_twice(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which trend predictions were graded more than once?"""
    sql = """
        select inference_id, min(made_at) as made_at, count(*) as times
        from trend_validations
        where {of_stream} and settled_at > $from and settled_at <= $to
        group by inference_id
        having count(*) > 1
        order by made_at"""
    return ask(con, sql, stream, window)


def trends_not_adding_up(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """For which models is references ≠ validated + pending + expired + unusable, each counted by itself?"""
    sql = """
        with made as (
          select model, inference_id
          from inference_references
          where {of_stream} and made_at > $from and made_at <= $to),
        graded as (
          select model, inference_id, status
          from trend_validations
          where {of_stream} and made_at > $from and made_at <= $to),
        totals as (select model, count(*) as total from made group by model),
        pending as (select model, count(*) as pending from made anti join graded using (inference_id) group by model),
        counted as (
          select model,
                 count(*) filter (status = 'validated') as validated,
                 count(*) filter (status = 'expired') as expired,
                 count(*) filter (status = 'unusable') as unusable
          from graded
          group by model)
        select model, coalesce(total, 0) as total, coalesce(validated, 0) as validated,
               coalesce(pending, 0) as pending, coalesce(expired, 0) as expired, coalesce(unusable, 0) as unusable
        from totals
        full join pending using (model)
        full join counted using (model)
        where coalesce(total, 0) <> coalesce(validated, 0) + coalesce(pending, 0) + coalesce(expired, 0)
                                  + coalesce(unusable, 0)
        order by model"""
    return ask(con, sql, stream, window)


def trends_from_before_their_prediction(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which trends were graded by a line that starts before the prediction, or that was not known yet?"""
    sql = """
        select inference_id, status, made_at, start_time, end_time, settled_at, slope, price_change
        from trend_validations
        where {of_stream} and settled_at > $from and settled_at <= $to
          and (
            start_time < made_at or end_time <= start_time or settled_at < end_time + 2 * $step
            or not isfinite(slope) or not isfinite(price_change) or not isfinite(log_loss)
            or (status = 'validated' and (slope is null or is_correct is null or priority is null)))
        order by settled_at"""
    return ask(con, sql, stream, window)


# Training ------------------------------------------------------------------------------------------------------------


def steps_out_of_order(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which training steps skip or repeat a number, go back in time, or start from other weights than the last left?"""
    sql = """
        with numbered as (
          select model, step, event_time, checkpoint_before, checkpoint_after,
                 lag(step) over earlier as step_before, lag(event_time) over earlier as event_before
          from training_steps as steps
          where {of_stream} and event_time <= $to and step >= coalesce((
            select max(step)
            from training_steps
            where {of_stream} and model = steps.model and event_time <= $from), 0)
          window earlier as (partition by model order by step, event_time))
        select *
        from numbered
        where step <> coalesce(step_before, step - 1) + 1 or event_time < event_before
           or checkpoint_before <> step - 1 or checkpoint_after <> step
        order by model, step"""
    return ask(con, sql, stream, window)


def steps_not_finite(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which training steps had a loss of NaN or infinity?"""
    sql = """
        select model, step, event_time, loss, loss_action, loss_candle, loss_trend, loss_pivot, loss_value
        from training_steps
        where {of_stream} and event_time > $from and event_time <= $to
          and not (
            isfinite(loss) and isfinite(loss_action) and isfinite(loss_candle)
            and isfinite(loss_trend) and isfinite(loss_pivot)
            and isfinite(coalesce(loss_value, 0)))
        order by model, step"""
    return ask(con, sql, stream, window)


def checkpoints_not_serving(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """Which models do not have exactly one serving and one latest checkpoint, both there, or a score that is NaN?"""
    sql = """
        select model,
               count(*) filter (is_serving) as serving,
               count(*) filter (is_latest) as latest,
               count(*) filter ((is_serving or is_latest or is_pinned) and evicted_at is not null) as evicted,
               count(*) filter (not isfinite(metric_value)) as not_finite
        from checkpoints
        where {of_stream}
        group by model
        having count(*) filter (is_serving) <> 1 or count(*) filter (is_latest) <> 1
            or count(*) filter ((is_serving or is_latest or is_pinned) and evicted_at is not null) > 0
            or count(*) filter (not isfinite(metric_value)) > 0
        order by model"""
    return ask(con, sql, stream, window)


# Asked further outside the tables -----------------------------------------------------------------------------------


def sampled_references(con: Connection, stream: Stream, window: Window) -> pl.DataFrame:
    """inference_id, schema_hash, made_at and digest of a few references of the window, the same ones each time."""
    sql = """
        select inference_id, schema_hash, made_at, digest
        from inference_references
        where {of_stream} and made_at > $from and made_at <= $to
        order by inference_id"""
    # Ids are mixed, so the lowest are a fair sample.
    return ask(con, sql, stream, window, most=SAMPLE)


def serving_checkpoints(con: Connection, stream: Stream) -> pl.DataFrame:
    """model, checkpoint_id, file and schema_hash of what serves each model of the stream."""
    sql = """
        select model, checkpoint_id, file, schema_hash
        from checkpoints
        where {of_stream} and is_serving
        order by model"""
    return ask(con, sql, stream, EVER)
