"""What is made of candles, predictions, learning and books that come in time, late or never; and whom it calls."""

from datetime import UTC, datetime, timedelta

import pytest

from hindsight.health.findings import Finding, Now, Verdict, follows, ok
from hindsight.health.judge_tables import judge_book, judge_candles, judge_learning, judge_predictions
from hindsight.market.streams import Stream
from hindsight.store.standings import BookStanding, Lateness, LearnerStanding, StreamStanding

CLOSE = datetime(2024, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
CONNECTED = ok("connection", "binance ETH/USDT 1m candles", "", {})
DOWN = follows("connection", "binance ETH/USDT 1m candles", "late", "", {})
FRESH = ok("candles", str(ETH), "", {})
STALE = follows("candles", str(ETH), "dead", "", {})


def now(seconds: float, speed: float = 1.0) -> Now:
    """So many seconds of ours after CLOSE."""
    return Now(at=CLOSE + timedelta(seconds=seconds * speed), speed=speed, late_seconds=10.0)


def lateness(newest: float, recent: float | None = 0.5) -> Lateness:
    return Lateness(closes=60, newest=newest, recent=recent, p50=0.5, p95=newest, p99=newest)


def candles(
    seconds: float,
    part: Finding = CONNECTED,
    *,
    close: datetime | None = CLOSE,
    stored: Lateness | None = None,
    waiting: datetime | None = None,
    speed: float = 1.0,
) -> Finding:
    standing = StreamStanding(stream=ETH, close=close, stored=stored)
    return judge_candles(standing, part, waiting, now(seconds, speed))


def learner(**changed: object) -> LearnerStanding:
    usual = {"until": CLOSE, "predicted_at": CLOSE, "stepped_at": CLOSE, "step_age": 4, "checkpoint_age": 4}
    usual |= {"predicted": lateness(0.8), "trained": lateness(1.0)}
    return LearnerStanding(stream=ETH, model="transformer", **(usual | changed))  # pyright: ignore[reportArgumentType]


def judged(finding: Finding) -> tuple[Verdict, bool]:
    return finding.verdict, finding.needs_a_person


# Candles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        pytest.param(0.3, "ok", id="just closed"),
        pytest.param(69, "ok", id="the next one just closed"),
        pytest.param(71, "late", id="ten seconds overdue"),
        pytest.param(121, "dead", id="a minute overdue"),
    ],
)
def test_candles_are_late_when_the_next_close_is_overdue(seconds: float, verdict: str):
    assert candles(seconds, waiting=CLOSE + MINUTE).verdict == verdict


def test_seconds_count_on_this_machine_where_the_venue_runs_sixty_times_faster():
    assert candles(1.5, speed=60.0).verdict == "ok"  # 30 s overdue at the venue, half a second here
    assert candles(12, speed=60.0).verdict == "late"


def test_candles_that_landed_and_are_not_taken_up_call_for_a_look_at_the_runs():
    found = candles(75, waiting=CLOSE + MINUTE)
    assert judged(found) == ("late", True)
    assert "nobody takes up" in found.sentence
    assert "advance" in found.sentence


def test_a_gap_at_the_venue_is_never_dead_and_calls_only_where_it_lasts():
    found = candles(90)
    assert judged(found) == ("late", False)
    assert "gap at the venue" in found.sentence
    assert judged(candles(600)) == ("late", True)


def test_candles_that_a_lost_connection_keeps_away_call_nobody_but_for_the_connection():
    found = candles(600, DOWN)
    assert judged(found) == ("dead", False)
    assert DOWN.name in found.sentence


def test_a_stream_of_which_nothing_is_stored_yet_is_off_unless_its_connection_is_down():
    assert judged(candles(0, close=None)) == ("off", False)
    assert judged(candles(0, DOWN, close=None)) == ("late", False)


@pytest.mark.parametrize(
    ("stored", "verdict"),
    [
        pytest.param(lateness(0.4), ("ok", False), id="in time"),
        pytest.param(lateness(40, recent=0.6), ("late", False), id="one late pass"),
        pytest.param(lateness(40, recent=35), ("late", True), id="all of late were late"),
        pytest.param(lateness(40, recent=None), ("late", False), id="the first passes"),
        pytest.param(None, ("ok", False), id="nothing stored live of late"),
    ],
)
def test_candles_stored_late_call_where_none_of_the_last_passes_was_in_time(
    stored: Lateness | None, verdict: tuple[str, bool]
):
    assert judged(candles(1, stored=stored)) == verdict


# Predictions and learning --------------------------------------------------------------------------------------------


def test_a_close_that_was_just_stored_may_wait_for_its_prediction():
    behind = learner(until=CLOSE - MINUTE, predicted_at=CLOSE - MINUTE)
    assert judge_predictions(behind, FRESH, CLOSE, now(3)).verdict == "ok"
    assert judged(judge_predictions(behind, FRESH, CLOSE, now(15))) == ("late", True)
    assert judged(judge_predictions(behind, FRESH, CLOSE, now(65))) == ("dead", True)


def test_a_prediction_counts_from_its_reference_before_anything_is_learned_from_the_close():
    predicted = learner(until=CLOSE - MINUTE)
    predictions = judge_predictions(predicted, FRESH, CLOSE, now(15))
    assert judged(predictions) == ("ok", False)
    assert judged(judge_learning(predicted, predictions, CLOSE, 15, now(15))) == ("late", True)


def test_one_cause_is_one_call_down_the_chain():
    predictions = judge_predictions(learner(), STALE, CLOSE, now(600))
    assert judged(predictions) == ("dead", False)
    learning = judge_learning(learner(), predictions, CLOSE, 15, now(600))
    assert judged(learning) == ("dead", False)
    assert predictions.name in learning.sentence
    behind = learner(until=CLOSE - MINUTE, predicted_at=CLOSE - MINUTE)
    predictions = judge_predictions(behind, FRESH, CLOSE, now(15))
    assert judged(predictions) == ("late", True)
    assert judged(judge_learning(behind, predictions, CLOSE, 15, now(15))) == ("late", False)


def test_a_model_that_has_not_begun_is_off():
    fresh = learner(until=None, predicted_at=None, stepped_at=None, step_age=None, checkpoint_age=None)
    predictions = judge_predictions(fresh, FRESH, CLOSE, now(1))
    assert judged(predictions) == ("off", False)
    assert judged(judge_learning(fresh, predictions, CLOSE, 15, now(1))) == ("off", False)
    assert judged(judge_predictions(fresh, FRESH, None, now(1))) == ("off", False)


def test_frames_with_a_hole_pause_the_predictions_and_call_nobody():
    found = judge_predictions(learner(predicted_at=CLOSE - 30 * MINUTE), FRESH, CLOSE, now(1))
    assert judged(found) == ("ok", False)
    assert "No prediction of late" in found.sentence


def test_weights_that_no_step_has_changed_for_long_call_although_every_close_was_looked_at():
    assert judge_learning(learner(step_age=150), FRESH, CLOSE, 15, now(1)).verdict == "ok"
    found = judge_learning(learner(step_age=151), FRESH, CLOSE, 15, now(1))
    assert judged(found) == ("late", True)
    assert found.figures["candles_since_step"] == 151
    assert found.figures["candles_since_checkpoint"] == 4


# Order books ---------------------------------------------------------------------------------------------------------


def book(age: float, part: Finding = CONNECTED, shortest: timedelta = MINUTE) -> Finding:
    standing = BookStanding(venue="binance", symbol="ETH/USDT", known_at=CLOSE)
    return judge_book(standing, part, shortest, now(age))


def test_a_book_may_be_as_old_as_the_shortest_candle_that_it_is_taken_up_with():
    assert book(65).verdict == "ok"
    assert book(15, shortest=timedelta(seconds=1)).verdict == "late"
    assert book(75).verdict == "late"
    assert judged(book(600)) == ("dead", True)


def test_a_book_that_a_lost_connection_keeps_away_calls_nobody_but_for_the_connection():
    assert judged(book(600, DOWN)) == ("dead", False)


def test_a_market_without_a_book_is_off():
    standing = BookStanding(venue="binance", symbol="ETH/USDT", known_at=None)
    assert judge_book(standing, CONNECTED, MINUTE, now(0)).verdict == "off"
    assert judge_book(standing, DOWN, MINUTE, now(0)).verdict == "late"
