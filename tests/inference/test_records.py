"""Records: what the tables say of references and answers is what the loop's arrays said, and nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.labels import EXPIRED, PENDING, PIVOT_TARGETS, UNUSABLE, VALIDATED, Labels, TrendRule, label
from hindsight.inference.predictions import BUY, SERVED, SERVED_UNIT, WIDTH, trend_predicted
from hindsight.inference.records import (
    candle_records,
    pivot_records,
    predictions_of,
    reference_records,
    settled_between,
    trend_records,
)
from hindsight.inference.references import inference_ids, made_at_ms
from hindsight.market.streams import Stream, from_ms
from hindsight.market.trend_lines import TRENDS, line_through

STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
FIRST_ROW, STEP_MS, COUNT = 28_000_000, 60_000, 700
REACH = 600  # own candles that a reference addresses
MINUTE = timedelta(minutes=1)
MODEL = "transformer"
probability = st.floats(0, 1, width=32)


def records_of(
    predicted: np.ndarray, first: int = FIRST_ROW, served: np.ndarray | None = None, extras: np.ndarray | None = None
) -> pl.DataFrame:
    count = len(predicted)
    norm = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    rows, checkpoint = first + np.arange(count), np.arange(count, dtype=np.int32)
    if served is None:
        served = np.full((count, len(SERVED)), np.nan, np.float32)
    served_by = np.where(np.isnan(served[:, 0]), -1, 7).astype(np.int32)
    if extras is None:
        extras = np.empty((count, 0), np.float32)
    return reference_records(MODEL, STREAM, rows, norm, predicted, served, served_by, extras, checkpoint, REACH)


def random_predictions(count: int, seed: int = 0) -> np.ndarray:
    predicted = np.random.default_rng(seed).random((count, WIDTH)).astype(np.float32)
    predicted[:, BUY] = 1 - (1 - predicted[:, BUY])  # as `natural_units` leaves it
    return predicted


@given(
    row=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=WIDTH, max_size=WIDTH),
    buy=probability,
)
def test_predictions_come_back_from_their_records_to_the_bit(row: list[float], buy: float):
    predicted = np.array([row], np.float32)
    predicted[0, BUY] = 1 - (1 - np.float32(buy))
    assert predictions_of(records_of(predicted)).tobytes() == predicted.tobytes()


def test_a_reference_names_what_it_saw_and_aims_at_the_candle_that_opens_as_it_is_made():
    """Trap 13: made at 10:00:00.000 of candles that open before, about the candle of 10:00."""
    first = datetime(2024, 3, 1, 9, 59, tzinfo=UTC)
    frame = records_of(random_predictions(3), first=int(first.timestamp()) // 60)
    made = [first + n * MINUTE for n in (1, 2, 3)]
    assert frame["made_at"].to_list() == frame["target_time"].to_list() == frame["input_end"].to_list() == made
    assert frame["input_start"].to_list() == [moment - 600 * MINUTE for moment in made]
    assert frame["checkpoint_id"].to_list() == [0, 1, 2]
    found = made_at_ms(MODEL, STREAM, frame["inference_id"].to_numpy())
    assert [from_ms(each) for each in found] == made


def test_what_the_serving_weights_say_stands_beside_what_the_learning_ones_say_and_is_null_while_none_serve():
    predicted = random_predictions(3)
    served = np.array([[0, 0.25, 0.5, 0.25, 1], [np.nan] * 5, [0.7, 0.1, 0.2, 0.7, 0.3]], np.float32)
    frame = records_of(predicted, served=served)
    assert frame["serving_id"].to_list() == [7, None, 7]
    assert frame["served"][1] is None
    for at in (0, 2):
        np.testing.assert_allclose(np.array(frame["served"][at]) / SERVED_UNIT, served[at], atol=0.5 / SERVED_UNIT)
    assert records_of(predicted)["serving_id"].null_count() == 3


def test_extras_are_stored_in_their_order_and_are_null_where_a_model_has_none():
    extras = np.array([[1.5, -2, 0], [3, 4, 5]], np.float32)
    frame = records_of(random_predictions(2), extras=extras)
    assert frame["extras"].to_list() == extras.tolist()
    assert records_of(random_predictions(2))["extras"].null_count() == 2


def test_action_trend_and_confidence_say_the_same_as_the_probabilities():
    predicted = random_predictions(200)
    predicted[0, BUY] = 0.5
    frame = records_of(predicted)
    for row, said in zip(frame.iter_rows(named=True), predicted, strict=True):
        assert row["action"] == ("buy" if said[BUY] >= 0.5 else "sell")
        assert row["action_confidence"] >= 0.5
        assert row["action_confidence"] == pytest.approx(max(said[BUY], 1 - said[BUY]))
        assert row["trend"] == TRENDS[int(np.argmax(row["trend_probabilities"]))]
        for kind in range(4):
            assert list(row["predicted_pivots"][2 * kind : 2 * kind + 2]) == [said[9 + kind], said[13 + kind]]


@pytest.fixture(scope="module")
def labels(walk: Callable) -> Labels:
    rows, pivots = walk(COUNT, seed=9, missing=0.005)
    return label(FIRST_ROW, rows, pivots, STEP_MS, TrendRule(trend_ttl=60))


def norm_of(count: int) -> np.ndarray:
    return np.tile(np.array([300, 1e-3, 4, 1], np.float32), (count, 1))


@pytest.mark.parametrize("cut", [1, 250, 699])
def test_what_settles_before_and_after_a_cut_is_together_what_settles_at_all_each_once(labels: Labels, cut: int):
    made = np.random.default_rng(0).random(COUNT) < 0.8
    for settled in (labels.candle.settled, *labels.pivot.settled.T, labels.trend.settled):
        edges = (FIRST_ROW, FIRST_ROW + cut, FIRST_ROW + COUNT)
        before, after = (settled_between(settled, made, *span) for span in pairwise(edges))
        assert sorted([*before, *after]) == np.flatnonzero(made & (settled < PENDING)).tolist()


def pivots_settled(labels: Labels, kind: int, predicted: np.ndarray) -> pl.DataFrame:
    """The outcomes of one pivot target, all that settled."""
    at = settled_between(labels.pivot.settled[:, kind], np.ones(COUNT, np.bool_), FIRST_ROW, FIRST_ROW + COUNT)
    return pivot_records(MODEL, STREAM, labels, kind, at, predicted, norm_of(COUNT))


def test_an_outcome_is_known_at_the_close_of_the_candle_that_settles_it_and_never_before(labels: Labels):
    predicted, made = random_predictions(COUNT), np.ones(COUNT, np.bool_)
    at = settled_between(labels.candle.settled, made, FIRST_ROW, FIRST_ROW + COUNT)
    candles = candle_records(MODEL, STREAM, labels, at, predicted, norm_of(COUNT))
    usable = candles.filter(pl.col("status") == "settled")
    assert (usable["true_at"] == usable["made_at"]).all()
    assert (usable["settled_at"] == usable["made_at"] + MINUTE).all()
    unusable = candles.filter(pl.col("status") == "unusable")
    assert len(unusable)
    assert (unusable["settled_at"] > unusable["made_at"] + MINUTE).any()
    for frame in (
        candles,
        *(pivots_settled(labels, kind, predicted) for kind in range(4)),
    ):
        assert (frame["settled_at"] > frame["made_at"]).all()
        assert (frame["settled_at"] > frame["true_at"]).all()
        assert (frame["true_at"] >= frame["made_at"]).all()
        said = ["log_return", "regression_loss", "is_correct", "log_loss"]
        assert frame.filter(pl.col("status") == "unusable").select(pl.col(said).is_null().all()).row(0) == (True,) * 4
        assert frame.filter(pl.col("status") == "settled")["reason"].null_count() == len(
            frame.filter(pl.col("status") == "settled")
        )
        assert frame.filter(pl.col("status") == "unusable")["reason"].null_count() == 0


def test_the_side_of_the_next_pivot_is_judged_once_by_the_one_that_came_first(labels: Labels):
    predicted = random_predictions(COUNT)
    frames = [pivots_settled(labels, kind, predicted) for kind in range(4)]
    together = pl.concat(frames)
    judged = together.filter(pl.col("is_correct").is_not_null())
    assert judged["inference_id"].is_unique().all()
    assert set(judged["kind"]) == {"L2L", "L2H"}
    for kind, frame in zip(PIVOT_TARGETS, frames, strict=True):
        assert set(frame["kind"]) == {kind}
        assert frame["inference_id"].is_unique().all()  # once per (reference, type)
    is_next = together.filter(pl.col("is_next"))
    others = together.filter(pl.col("kind").is_in(["L2L", "L2H"]), ~pl.col("is_next"))
    pairs = is_next.join(others, on="inference_id")
    assert (pairs["settled_at"] <= pairs["settled_at_right"]).all()


def test_a_trend_is_graded_once_and_its_line_is_the_line_through_its_pivots(labels: Labels):
    """Trap 25: total = validated + expired + unusable + pending, each reference in one of them."""
    predicted, made = random_predictions(COUNT), np.random.default_rng(3).random(COUNT) < 0.9
    made &= np.isfinite(labels.candle.log_returns[:, 3])  # nobody predicts at a missing candle
    at = settled_between(labels.trend.settled, made, FIRST_ROW, FIRST_ROW + COUNT)
    frame = trend_records(MODEL, STREAM, labels, at, predicted)
    pending = (labels.trend.settled[made] == PENDING).sum()
    counts = {status: (frame["status"] == status).sum() for status in ("validated", "expired", "unusable")}
    assert sum(counts.values()) + pending == made.sum()
    assert min(counts.values()) > 0
    assert frame["inference_id"].is_unique().all()
    guesses = trend_predicted(predicted)
    ids = inference_ids(MODEL, STREAM, (FIRST_ROW + at + 1) * STEP_MS).tolist()
    for row, position, inference_id in zip(frame.iter_rows(named=True), at.tolist(), ids, strict=True):
        assert row["inference_id"] == inference_id
        assert row["predicted_trend"] == TRENDS[guesses[position]]
        status = int(labels.trend.status[position])
        if status != VALIDATED:
            assert row["status"] == {EXPIRED: "expired", UNUSABLE: "unusable"}[status]
            said = ("side", "start_time", "slope", "actual_trend", "is_correct", "log_loss", "priority", "signal")
            assert {row[name] for name in said} == {None}
            assert (row["reason"] is None) == (status == EXPIRED)
            continue
        line = line_through(
            start_time=row["start_time"],
            start_price=labels.trend.start_price[position],
            end_time=row["end_time"],
            end_price=labels.trend.end_price[position],
        )
        assert (row["slope"], row["intercept"]) == pytest.approx((line.slope, line.intercept))
        assert (row["price_change"], row["time_duration"]) == (line.price_change, line.time_duration)
        assert row["made_at"] <= row["start_time"] < row["end_time"] < row["settled_at"]
        right = row["actual_trend"] == row["predicted_trend"]
        assert row["is_correct"] == right
        assert (row["priority"], row["signal"]) == (("normal", "positive") if right else ("high", "corrective"))
        chosen = predicted[position, 5 + TRENDS.index(row["actual_trend"])]
        assert row["log_loss"] == pytest.approx(-np.log(chosen), rel=1e-5)


def test_records_of_nothing_are_empty_frames_with_the_same_columns(labels: Labels):
    predicted, none = random_predictions(COUNT), np.empty(0, np.int64)
    some = np.array([100])
    for one, other in (
        [candle_records(MODEL, STREAM, labels, at, predicted, norm_of(COUNT)) for at in (none, some)],
        [pivot_records(MODEL, STREAM, labels, 1, at, predicted, norm_of(COUNT)) for at in (none, some)],
        [trend_records(MODEL, STREAM, labels, at, predicted) for at in (none, some)],
        [records_of(predicted[:0]), records_of(predicted[:1])],
    ):
        assert one.is_empty()
        assert one.schema == other.schema
