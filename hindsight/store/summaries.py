"""What is stored, in a few rows: read by `hindsight status`, and shown by Dagster beside each asset."""

from datetime import datetime

import duckdb
import polars as pl

from hindsight.market.streams import Stream
from hindsight.store.calibration import calibration
from hindsight.store.rows import OF_STREAM, select, stream_key
from hindsight.store.trading import DAYS

BLOCK_BYTES = 262_144


def decision_scores(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per stream, over those of the newest DAYS days' closes at which all models spoke: accuracy and log loss of the
    next candle's direction, of the decision, of each model that serves, and of their equal average; and how often the
    decision acted and was right.
    """
    return select(
        con,
        """
        with since as (
          select max(made_at) - to_days($days) as moment
          from decisions),
        came as (
          select venue, symbol, timeframe, made_at, any_value(log_return) > 0 as up
          from outcomes
          where made_at > (select moment from since) and kind = 'candle' and status = 'settled' and log_return <> 0
          group by all),
        said as (
          select venue, symbol, timeframe, made_at, model,
                 coalesce(served[1] / 65535.0::float, if(action = 'buy', action_confidence, 1 - action_confidence)) as p
          from inference_references
          where made_at > (select moment from since)),
        everyone as (
          select decisions.*, up, list(p order by model) as spoken, list(said.model order by said.model) as speakers
          from decisions
          join came using (venue, symbol, timeframe, made_at)
          join said using (venue, symbol, timeframe, made_at)
          group by all
          having count(*) = len(decisions.models)),
        opinions as (
          select venue, symbol, timeframe, 'decision' as predictor, action, probability as p, up from everyone
          union all
          select venue, symbol, timeframe, 'equal average', null, list_avg(spoken), up from everyone
          union all
          select venue, symbol, timeframe, unnest(speakers), null, unnest(spoken), up from everyone)
        select venue, symbol, timeframe, predictor, count(*) as closes,
               avg(((p >= 0.5) = up)::int) as accuracy,
               -avg(ln(greatest(if(up, p, 1 - p), 1e-6))) as log_loss,
               avg((action <> 'hold')::int) as acted,
               avg(((action = 'buy') = up)::int) filter (action <> 'hold') as accuracy_where_acted
        from opinions
        group by all
        order by venue, symbol, timeframe, log_loss
        """,
        days=DAYS,
    )


def trend_stats(con: duckdb.DuckDBPyConnection, model: str | None = None, stream: Stream | None = None) -> pl.DataFrame:
    """Per model and stream: total, validated, correct, accuracy (correct / validated), pending, expired; and unusable.

    A trend that straddles a missing candle is unusable: it is counted apart and is in no total, so that
    total = validated + pending + expired.
    """
    sql = """
        with made as (
          select model, venue, symbol, timeframe, count(*) as made
          from inference_references
          group by all),
        graded as (
          select model, venue, symbol, timeframe,
                 count(*) filter (status = 'validated') as validated,
                 count(*) filter (is_correct) as correct,
                 count(*) filter (status = 'expired') as expired,
                 count(*) filter (status = 'unusable') as unusable
          from trend_validations
          group by all)
        select model, venue, symbol, timeframe,
               made - coalesce(unusable, 0) as total,
               coalesce(validated, 0) as validated,
               coalesce(correct, 0) as correct,
               correct / nullif(validated, 0) as accuracy,
               made - coalesce(validated, 0) - coalesce(expired, 0) - coalesce(unusable, 0) as pending,
               coalesce(expired, 0) as expired,
               coalesce(unusable, 0) as unusable
        from made
        left join graded using (model, venue, symbol, timeframe)
        where ($model is null or model = $model)
          and ($stream is null or concat_ws(' ', venue, symbol, timeframe) = $stream)
        order by model, venue, symbol, timeframe"""
    return select(con, sql, model=model, stream=None if stream is None else str(stream))


def first_candle(con: duckdb.DuckDBPyConnection, stream: Stream) -> datetime | None:
    """When the first stored candle of `stream` opens; None before there is one."""
    sql = f"select min(open_time) as first from candles where {OF_STREAM}"
    return select(con, sql, **stream_key(stream))["first"].item()


def last_candles(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per stream, when the last stored candle opens: venue, symbol, timeframe, last."""
    sql = "select venue, symbol, timeframe, max(open_time) as last from candles group by all order by all"
    return select(con, sql)


def stored(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per stream: candles, first and last, missing, refused, those that no model has looked at yet, and pivots."""
    sql = """
        with held as (
          select venue, symbol, timeframe, count(*) as candles, min(open_time) as first, max(open_time) as last
          from candles
          group by all),
        holes as (select venue, symbol, timeframe, sum(candles)::bigint as missing from gaps group by all),
        rejected as (select venue, symbol, timeframe, count(*) as refused from refused_candles group by all),
        unseen as (
          select venue, symbol, timeframe, count(*) as unseen
          from candles
          left join (select venue, symbol, timeframe, max(until) as until from learned_until group by all)
            using (venue, symbol, timeframe)
          where until is null or open_time >= until
          group by all),
        turns as (
          select venue, symbol, timeframe,
                 count(*) filter (level = 1) as level_1, count(*) filter (level = 2) as level_2,
                 count(*) filter (level = 3) as level_3, count(*) filter (level = 4) as level_4,
                 count(*) filter (level = 5) as level_5
          from pivots
          group by all)
        select held.*, coalesce(missing, 0) as missing, coalesce(refused, 0) as refused,
               coalesce(unseen, 0) as not_yet_learned, level_1, level_2, level_3, level_4, level_5
        from held
        left join holes using (venue, symbol, timeframe)
        left join rejected using (venue, symbol, timeframe)
        left join unseen using (venue, symbol, timeframe)
        left join turns using (venue, symbol, timeframe)
        order by venue, symbol, timeframe"""
    return select(con, sql)


def learned(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per model and stream: references, outcomes, unusable ones, steps, how far it has learned, and candles due."""
    sql = """
        with made as (
          select model, venue, symbol, timeframe, count(*) as made, max_by(inference_id, made_at) as newest_reference
          from inference_references
          group by all),
        answered as (
          select model, venue, symbol, timeframe,
                 count(*) filter (kind = 'candle' and status = 'settled') as settled,
                 count(*) filter (status = 'unusable') as unusable
          from outcomes
          group by all),
        trained as (
          select model, venue, symbol, timeframe, count(*) as steps, count(*) / nullif(sum(seconds), 0) as per_second
          from training_steps
          group by all),
        waiting as (
          select model, venue, symbol, timeframe, count(*) as due
          from learned_until
          join candles using (venue, symbol, timeframe)
          where open_time >= until
          group by all)
        select model, venue, symbol, timeframe, coalesce(made, 0) as "references", newest_reference,
               coalesce(settled, 0) as settled, coalesce(unusable, 0) as unusable_outcomes,
               coalesce(steps, 0) as steps, per_second as steps_per_second,
               until as learned_until, coalesce(due, 0) as candles_due
        from learned_until
        left join made using (model, venue, symbol, timeframe)
        left join answered using (model, venue, symbol, timeframe)
        left join trained using (model, venue, symbol, timeframe)
        left join waiting using (model, venue, symbol, timeframe)
        order by model, venue, symbol, timeframe"""
    return select(con, sql)


def checkpoints_held(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """The checkpoints that are kept for what they are: best, latest, serving, pinned.

    Best first, by the metric of the newest; those that were measured by another one come last.
    """
    sql = """
        select model, venue, symbol, timeframe, checkpoint_id, event_time, metric, metric_value, scored,
               is_serving, is_best, is_latest, is_pinned, file
        from checkpoints
        where evicted_at is null and (is_serving or is_best or is_latest or is_pinned)
        order by model, venue, symbol, timeframe,
                 metric <> max_by(metric, checkpoint_id) over (partition by model, venue, symbol, timeframe),
                 if(direction = 'higher', -metric_value, metric_value) nulls last, checkpoint_id"""
    return select(con, sql)


def scores(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Prequential scores per model, stream, target and predictor (the model and its baselines), over all days.

    The model's rows also say how far its confidence is from the probability that it claims to be.
    """
    sql = """
        select model, venue, symbol, timeframe, target, predictor, sum(settled)::bigint as settled,
               sum(correct) / nullif(sum(settled) filter (correct is not null), 0) as accuracy,
               sum(log_loss_sum) / nullif(sum(settled) filter (log_loss_sum is not null), 0) as log_loss,
               sum(regression_loss_sum)
                 / nullif(sum(settled) filter (regression_loss_sum is not null), 0) as regression_loss
        from scores
        group by model, venue, symbol, timeframe, target, predictor
        order by model, venue, symbol, timeframe, target, log_loss nulls last, regression_loss nulls last, predictor"""
    keys = ["model", "venue", "symbol", "timeframe", "target", "predictor"]
    error = calibration(con).select(*keys[:-1], "expected_calibration_error", predictor=pl.lit("model"))
    return select(con, sql).join(error, on=keys, how="left", maintain_order="left")


def drifts_found(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per model and stream: drifts, the steps that they triggered, and of the last one when it was known, who found it,
    the loss before and after it, and its own steps.
    """
    return select(
        con,
        """
        select model, venue, symbol, timeframe, count(*) as drifts, sum(steps)::bigint as retrain_steps,
               max(event_time) as last_drift, max_by(detector, event_time) as detector,
               max_by(loss_before, event_time) as loss_before, max_by(loss_after, event_time) as loss_after,
               max_by(steps, event_time) as its_steps
        from drifts
        group by model, venue, symbol, timeframe
        order by model, venue, symbol, timeframe
        """,
    )


def bytes_per_reference(con: duckdb.DuckDBPyConnection) -> float | None:
    """Bytes of the DuckDB file that hold references, divided by the references; None where there are none.

    Whole blocks are counted once, so that below some 100,000 references the figure is an upper bound.
    """
    sql = """
        select count(distinct block_id) * $block_bytes
               / nullif((select count(*) from inference_references), 0) as bytes_each
        from pragma_storage_info('inference_references')
        where block_id >= 0"""
    return select(con, sql, block_bytes=BLOCK_BYTES)["bytes_each"].item()
