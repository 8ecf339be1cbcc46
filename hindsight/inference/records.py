"""From the loop's arrays to the rows of the tables: references made, outcomes settled, trends validated.

All of them are pure functions of what was predicted and what the market answered; each row carries when it was true and
when it was known.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.inference import predictions as columns
from hindsight.inference.frames import Frames
from hindsight.inference.labels import EXPIRED, PENDING, PIVOT_TARGETS, UNUSABLE, VALIDATED, Labels
from hindsight.inference.losses import huber, log_loss, of_what_came
from hindsight.inference.references import inference_ids, target_times_ms
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.market.trend_lines import TRENDS

Rows = NDArray[np.int64]
ACTIONS = ("sell", "buy")
STATUS = {VALIDATED: "validated", EXPIRED: "expired", UNUSABLE: "unusable"}


def reference_records(
    model: str,
    stream: Stream,
    rows: Rows,
    norm_params: Frames,
    predicted: Frames,
    served: Frames,
    served_by: NDArray[np.int32],
    extras: Frames,
    checkpoint: NDArray[np.int32],
    reach: int,
) -> pl.DataFrame:
    """One row per reference made at `rows`, which address `reach` own candles; the arrays stand beside them.

    Digest, device and mode follow later.
    """
    made_ms = (rows + 1) * stream.step_ms
    buys = predicted[:, columns.BUY] >= 0.5
    return pl.DataFrame(
        {
            "inference_id": inference_ids(model, stream, made_ms),
            "model": pl.repeat(model, len(rows), eager=True, dtype=pl.String),
            "made_at": _times(made_ms),
            "target_time": _times(target_times_ms(made_ms, stream.step_ms)),
            "input_start": _times(made_ms - reach * stream.step_ms),
            "input_end": _times(made_ms),
            "norm_params": _array(norm_params),
            "action": _names(ACTIONS, buys),
            "action_confidence": of_what_came(predicted[:, columns.BUY], buys),
            "predicted_candle": _array(predicted[:, columns.CANDLE]),
            "trend": _names(TRENDS, columns.trend_predicted(predicted)),
            "trend_probabilities": _array(predicted[:, columns.TREND]),
            "next_pivot_high": predicted[:, columns.NEXT_HIGH],
            "predicted_pivots": _array(
                predicted[:, [9, 13, 10, 14, 11, 15, 12, 16]]  # return and candles of each type side by side
            ),
            "serving_id": pl.Series(served_by).replace(-1, None),
            "served": _served(served),
            "extras": _extras(extras),
            "checkpoint_id": checkpoint,
        }
    )


def predictions_of(references: pl.DataFrame) -> Frames:
    """The predictions [N, 17] that rows of inference_references hold: the inverse of `reference_records`."""
    predicted = np.empty((len(references), columns.WIDTH), np.float32)
    confidence = references["action_confidence"].to_numpy()
    predicted[:, columns.BUY] = of_what_came(confidence, references["action"].to_numpy() == "buy")
    predicted[:, columns.CANDLE] = references["predicted_candle"].to_numpy()
    predicted[:, columns.TREND] = references["trend_probabilities"].to_numpy()
    predicted[:, columns.NEXT_HIGH] = references["next_pivot_high"].to_numpy()
    pivots = references["predicted_pivots"].to_numpy()
    predicted[:, columns.PIVOT_RETURN], predicted[:, columns.PIVOT_CANDLES] = pivots[:, 0::2], pivots[:, 1::2]
    return predicted


def candle_records(
    model: str, stream: Stream, labels: Labels, at: Rows, predicted: Frames, norm: Frames
) -> pl.DataFrame:
    """Outcomes of kind `candle` for the references at positions `at` of the labels."""
    candle = labels.candle
    usable, returns = candle.usable[at], candle.log_returns[at]
    moved = usable & (returns[:, 3] != 0)
    rose = returns[:, 3] > 0
    error = (predicted[at, columns.CANDLE] - returns) / norm[at, 1:2]
    return _outcomes(
        model,
        stream,
        labels.first_row + at,
        kind="candle",
        usable=usable,
        true_row=labels.first_row + at + 1,
        settled_row=candle.settled[at],
        log_return=returns[:, 3],
        candles=np.ones(len(at), np.int64),
        is_next=np.zeros(len(at), np.bool_),
        decided=moved,
        is_correct=(predicted[at, columns.BUY] >= 0.5) == rose,
        log_loss=log_loss(of_what_came(predicted[at, columns.BUY], rose)),
        regression_loss=huber(error).mean(axis=1),
    )


def pivot_records(
    model: str, stream: Stream, labels: Labels, kind: int, at: Rows, predicted: Frames, norm: Frames
) -> pl.DataFrame:
    """Outcomes of one pivot target for the references at positions `at` of the labels."""
    pivot = labels.pivot
    log_return, candles = pivot.log_return[at, kind], pivot.candles[at, kind]
    came_high = pivot.next_type[at] == 1
    is_next = (pivot.next_type[at] == kind) if kind < 2 else np.zeros(len(at), np.bool_)
    price_error = (predicted[at, 9 + kind] - log_return) / (norm[at, 1] * np.sqrt(columns.TARGET_AGES[kind]))
    time_error = np.log(np.maximum(predicted[at, 13 + kind], 1e-3) / np.maximum(candles, 1))
    return _outcomes(
        model,
        stream,
        labels.first_row + at,
        kind=PIVOT_TARGETS[kind],
        usable=pivot.usable[at, kind],
        true_row=pivot.row[at, kind],
        settled_row=pivot.settled[at, kind],
        log_return=log_return,
        candles=candles,
        is_next=is_next,
        decided=is_next & pivot.usable[at, kind],
        is_correct=(predicted[at, columns.NEXT_HIGH] >= 0.5) == came_high,
        log_loss=log_loss(of_what_came(predicted[at, columns.NEXT_HIGH], came_high)),
        regression_loss=huber(price_error) + huber(time_error),
    )


def trend_records(model: str, stream: Stream, labels: Labels, at: Rows, predicted: Frames) -> pl.DataFrame:
    """Trend validations for the references at positions `at`, all of them settled."""
    trend, step_ms = labels.trend, stream.step_ms
    made_ms = (labels.first_row + at + 1) * step_ms
    status = trend.status[at]
    validated = pl.Series(status == VALIDATED)
    guess, actual = columns.trend_predicted(predicted[at]), trend.trend[at]
    right = guess == actual
    seconds = (trend.end_row[at] - trend.start_row[at]) * step_ms / 1000
    change = trend.end_price[at] - trend.start_price[at]
    frame = pl.DataFrame(
        {
            "inference_id": inference_ids(model, stream, made_ms),
            "model": pl.repeat(model, len(at), eager=True, dtype=pl.String),
            "made_at": _times(made_ms),
            "status": _names([STATUS[code] for code in range(3)], status),
            "reason": pl.Series(np.where(status == UNUSABLE, "a candle is missing before it was settled", "")).cast(
                pl.String
            ),
            "settled_at": _times((trend.settled[at] + 1) * step_ms),
            "side": _names(("low", "high"), np.maximum(trend.side[at], 0)),
            "start_time": _times(trend.start_row[at] * step_ms),
            "end_time": _times(trend.end_row[at] * step_ms),
            "slope": change / np.where(seconds > 0, seconds, 1),
            "intercept": trend.start_price[at],
            "price_change": change,
            "time_duration": seconds,
            "predicted_trend": _names(TRENDS, guess),
            "actual_trend": _names(TRENDS, np.maximum(actual, 0)),
            "is_correct": right,
            "log_loss": log_loss(predicted[at][np.arange(len(at)), columns.TREND.start + np.maximum(actual, 0)]),
            "priority": _names(("high", "normal"), right),
            "signal": _names(("corrective", "positive"), right),
        }
    )
    only_validated = frame.columns[frame.columns.index("side") :]
    only_validated.remove("predicted_trend")
    return frame.with_columns(
        pl.when(pl.col("status") == "unusable").then("reason").alias("reason"),
        *(pl.when(validated).then(name).alias(name) for name in only_validated),
    )


def settled_between(settled: Rows, made: NDArray[np.bool_], first: int, end: int) -> Rows:
    """Positions whose answer became known at the close of a row in [first, end)."""
    return np.flatnonzero(made & (settled >= first) & (settled < end) & (settled < PENDING))


def _outcomes(
    model: str,
    stream: Stream,
    rows: Rows,
    *,
    kind: str,
    usable: NDArray[np.bool_],
    true_row: Rows,
    settled_row: Rows,
    log_return: Frames,
    candles: Rows,
    is_next: NDArray[np.bool_],
    decided: NDArray[np.bool_],
    is_correct: NDArray[np.bool_],
    log_loss: Frames,
    regression_loss: Frames,
) -> pl.DataFrame:
    made_ms = (rows + 1) * stream.step_ms
    frame = pl.DataFrame(
        {
            "inference_id": inference_ids(model, stream, made_ms),
            "model": pl.repeat(model, len(rows), eager=True, dtype=pl.String),
            "made_at": _times(made_ms),
            "kind": pl.repeat(kind, len(rows), eager=True, dtype=pl.String),
            "status": _names(("unusable", "settled"), usable),
            "reason": pl.repeat("a candle is missing before it was settled", len(rows), eager=True, dtype=pl.String),
            "true_at": _times(true_row * stream.step_ms),
            "settled_at": _times((settled_row + 1) * stream.step_ms),
            "log_return": log_return.astype(np.float32),
            "candles": candles.astype(np.int32),
            "is_next": is_next,
            "is_correct": is_correct,
            "log_loss": log_loss.astype(np.float32),
            "regression_loss": regression_loss.astype(np.float32),
        }
    )
    known, judged = pl.Series(usable), pl.Series(decided)
    return frame.with_columns(
        pl.when(~known).then("reason").alias("reason"),
        *(pl.when(known).then(name).alias(name) for name in ("log_return", "regression_loss")),
        *(pl.when(judged).then(name).alias(name) for name in ("is_correct", "log_loss")),
    )


def _times(milliseconds: Rows) -> pl.Series:
    return pl.Series(milliseconds * 1000, dtype=pl.Int64).cast(TIME)


def _names(names: tuple[str, ...] | list[str], codes: NDArray[np.generic]) -> pl.Series:
    return pl.Series(names, dtype=pl.String)[codes.astype(np.uint32)]


def _served(probabilities: Frames) -> pl.Series:
    """Probabilities in 65,535ths; null where none serve."""
    units = np.round(np.nan_to_num(probabilities) * columns.SERVED_UNIT).astype(np.uint16)
    rows = pl.Series(units, dtype=pl.Array(pl.UInt16, len(columns.SERVED)))
    return pl.select(pl.when(pl.Series(~np.isnan(probabilities[:, 0]))).then(rows)).to_series()


def _extras(values: Frames) -> pl.Series:
    """A list per row; null where the model says nothing more."""
    dtype = pl.List(pl.Float32)
    if not values.shape[1]:
        return pl.repeat(None, len(values), dtype=dtype, eager=True)
    return _array(values).cast(dtype)


def _array(values: Frames) -> pl.Series:
    return pl.Series(np.ascontiguousarray(values, np.float32), dtype=pl.Array(pl.Float32, values.shape[1]))
