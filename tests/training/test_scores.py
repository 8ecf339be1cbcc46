"""Scores: each day once, by predictions of that day, against baselines that know nothing of it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from hindsight.inference.frames import COLUMN, COLUMNS, Tape
from hindsight.inference.labels import PENDING, Labels, TrendRule, label
from hindsight.inference.predictions import WIDTH
from hindsight.market.candles import TIME
from hindsight.market.pivots import PivotState, advance
from hindsight.market.streams import Stream, from_ms
from hindsight.training.memory import Memory
from hindsight.training.scores import ENOUGH, first_scored, score_days

QUARTERS = Stream(venue="simulated", symbol="ETH/USDT", timeframe="15m")
STEP_MS, PER_DAY, DAYS, TTL = 900_000, 96, 12, 10
FIRST_ROW = 20_000 * PER_DAY  # the midnight of 2024-10-04; made-up candles of 12 days follow
FIRST_DAY = date(2024, 10, 4)


@dataclass(frozen=True)
class Made:
    """A made-up market with a random prediction at every close."""

    tape: Tape
    memory: Memory
    labels: Labels
    ttl: int

    def score(self, first: int, end: int) -> pl.DataFrame:
        """Rows counted from the market's first."""
        span = FIRST_ROW + first, FIRST_ROW + end
        return score_days(self.tape, self.memory, self.labels, *span, self.ttl, QUARTERS, "m").sort(
            "day", "target", "predictor"
        )


@pytest.fixture(scope="module")
def make() -> Callable[..., Made]:
    """Makes the market as it was known after so many candles."""
    count, chance = DAYS * PER_DAY, np.random.default_rng(2)
    close = 300 * np.exp(chance.normal(0, 3e-3, count).cumsum())
    open_ = np.concatenate([close[:1], close[:-1]])
    prices = {"open": open_, "high": np.maximum(open_, close) * 1.001, "low": np.minimum(open_, close) * 0.999}
    prices["close"] = close
    rows = (1 + chance.random((count, len(COLUMNS)))).astype(np.float32)
    for name, values in prices.items():
        rows[:, COLUMN[name]] = values
    opens = pl.Series([from_ms((FIRST_ROW + row) * STEP_MS) for row in range(count)], dtype=TIME)
    candles = pl.DataFrame({"open_time": opens, **prices, "atr_14": np.ones(count)})
    _, pivots = advance(PivotState.initial(), candles, timedelta(minutes=15), max_gap=3)
    predicted = chance.random((count, WIDTH)).astype(np.float32)
    predicted[:, 5:8] /= predicted[:, 5:8].sum(axis=1, keepdims=True)
    norm = np.tile(np.array([300, 3e-3, 1, 1], np.float32), (count, 1))
    made = chance.random(count) < 0.9
    made[0] = False  # its frame would need a candle before the first

    def known_after(end: int, ttl: int = TTL) -> Made:
        known = pivots.filter(pl.col("confirmed_at") <= from_ms((FIRST_ROW + end) * STEP_MS))
        rule = TrendRule(flat_fraction=1.0, trend_ttl=ttl)
        memory = Memory(
            first_row=FIRST_ROW,
            predictable=made[:end],
            norm_params=norm[:end],
            made=made[:end],
            trusted=made[:end],
            predictions=predicted[:end],
            hidden=np.zeros((end, 1), np.float16),
            extras=np.zeros((end, 0), np.float32),
            served=np.full((end, 5), np.nan, np.float32),
            served_by=np.full(end, -1, np.int32),
            trend=np.zeros(end, np.int8),
            checkpoint=np.zeros(end, np.int32),
            uses=np.zeros(end, np.int16),
            trained_as_candle=FIRST_ROW,
        )
        tape = Tape(step_ms=STEP_MS, first_row=FIRST_ROW, rows=rows[:end])
        return Made(tape, memory, label(FIRST_ROW, rows[:end], known, STEP_MS, rule), ttl)

    return known_after


def test_each_day_is_scored_once_when_its_last_trend_has_expired_wherever_history_is_cut(make: Callable):
    """And the same way: what was answered after that moment is not looked at by whoever happens to know it."""
    end = DAYS * PER_DAY
    whole = make(end).score(0, end)
    assert sorted(set(whole["day"])) == [FIRST_DAY + timedelta(days=n) for n in range(DAYS - 1)]
    for cut in (489, 490, 867):
        before, after = make(cut).score(0, cut), make(end).score(cut, end)
        assert set(before["day"]).isdisjoint(after["day"])
        assert pl.concat([before, after]).sort("day", "target", "predictor").equals(whole), cut


@pytest.mark.parametrize("target", ["action", "trend", "next_pivot"])
def test_the_class_prior_of_a_day_is_the_share_among_what_was_settled_in_the_seven_days_before_it(
    make: Callable, target: str
):
    """Ten plain lines; the loss of a day then tells which shares were said."""
    made = make(DAYS * PER_DAY, ttl=60)
    labels, row_of = made.labels, {}
    for at in np.flatnonzero(made.memory.made).tolist():
        known = {
            "action": labels.candle.settled[at],
            "trend": labels.trend.settled[at] if labels.trend.status[at] == 0 else PENDING,
            "next_pivot": min(labels.pivot.settled[at, :2]),
        }[target]
        answer = {
            "action": int(labels.candle.log_returns[at, 3] > 0),
            "trend": int(labels.trend.trend[at]),
            "next_pivot": int(labels.pivot.next_type[at]),
        }[target]
        if known < PENDING:
            row_of[at] = (int(known) - FIRST_ROW, answer)
    classes = 3 if target == "trend" else 2
    found = made.score(0, DAYS * PER_DAY).filter(pl.col("target") == target, pl.col("predictor") == "class_prior")
    assert len(found) == DAYS - 1  # the last one waits for its trends
    assert found["settled"].sum() > 100
    for day in range(DAYS - 1):
        counts, loss, right, asked = np.ones(classes), 0.0, 0, 0
        for at, (known, answer) in row_of.items():
            if day - 7 <= (at + 1) // PER_DAY < day and known < day * PER_DAY:
                counts[answer] += 1
        for at, (known, answer) in row_of.items():
            if (at + 1) // PER_DAY == day and known < (day + 1) * PER_DAY + 60:
                loss -= np.log(counts[answer] / counts.sum())
                right += answer == int(np.argmax(counts))
                asked += 1
        (row,) = found.filter(pl.col("day") == FIRST_DAY + timedelta(days=day)).rows(named=True)
        assert (row["settled"], row["correct"]) == (asked, right)
        assert row["log_loss_sum"] == pytest.approx(loss)


def test_nothing_settled_after_a_day_began_changes_what_a_baseline_says_of_it(make: Callable):
    """The prefix property: all answers from day 9 on are turned around. Whoever then says the same of day 9 is right
    exactly where he was wrong."""
    end, day = DAYS * PER_DAY, 9
    plain, turned = make(end), make(end)
    labels, cut = turned.labels, FIRST_ROW + day * PER_DAY
    late = labels.candle.settled >= cut
    labels.candle.log_returns[late, 3] *= -1
    later = labels.pivot.settled[:, :2].min(axis=1) >= cut
    swapped = later & (labels.pivot.next_type >= 0)
    labels.pivot.next_type[swapped] = 1 - labels.pivot.next_type[swapped]
    before, after = plain.score(0, end), turned.score(0, end)
    earlier = pl.col("day") < FIRST_DAY + timedelta(days=day - 1)
    kept = ~pl.col("target").eq("candle")
    assert before.filter(earlier, kept).equals(after.filter(earlier, kept))

    this_day = (pl.col("day") == FIRST_DAY + timedelta(days=day)) & pl.col("target").is_in(["action", "next_pivot"])
    both = before.filter(this_day).join(after.filter(this_day), on=("target", "predictor"))
    assert len(both) == 8
    assert (both["correct"] + both["correct_right"] == both["settled"]).all()


def test_a_class_that_is_too_rare_to_be_fitted_leaves_the_class_prior_in_place(make: Callable):
    """With hardly any sideways trend among them, every third reference may hold none."""
    made = make(DAYS * PER_DAY, ttl=60)
    labels = deepcopy(made.labels)
    answers = np.flatnonzero((labels.trend.status == 0) & made.memory.made)
    labels.trend.trend[answers[labels.trend.trend[answers] == 1]] = 2
    labels.trend.trend[answers[1]] = 1  # the second of all: it is not among every third
    assert len(answers) > ENOUGH
    scored = Made(made.tape, made.memory, labels, 60).score(0, DAYS * PER_DAY)
    assert scored.filter(pl.col("target") == "trend")["log_loss_sum"].is_finite().all()


def test_the_regression_is_fitted_once_there_is_enough_and_is_the_class_prior_before(make: Callable):
    scored = make(DAYS * PER_DAY).score(0, DAYS * PER_DAY).filter(pl.col("target") == "action")
    loss = {
        name: scored.filter(pl.col("predictor") == name)["log_loss_sum"].to_list()
        for name in ("class_prior", "logistic_regression")
    }
    same = [a == b for a, b in zip(*loss.values(), strict=True)]
    assert 2 * PER_DAY < ENOUGH < 3 * PER_DAY
    assert same == [True] * 3 + [False] * (DAYS - 4)


def test_every_predictor_is_asked_about_the_same_references(make: Callable):
    scored = make(DAYS * PER_DAY).score(0, DAYS * PER_DAY)
    assert (scored.group_by("day", "target").agg(pl.col("settled").n_unique())["settled"] == 1).all()
    for target, expected in {
        "action": {"model", "always_up", "class_prior", "logistic_regression"},
        "trend": {"model", "class_prior", "logistic_regression"},
        "next_pivot": {"model", "opposite_side", "class_prior", "logistic_regression"},
        "candle": {"model", "no_change", "last_range"},
    }.items():
        assert set(scored.filter(pl.col("target") == target)["predictor"]) == expected


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [
        pytest.param(100, 105, 100, id="no day becomes complete"),
        pytest.param(10 * PER_DAY + TTL - 1, 10 * PER_DAY + TTL, 2 * PER_DAY - 1, id="day 9, with its last candle"),
        pytest.param(10 * PER_DAY + TTL, 10 * PER_DAY + TTL + 1, 10 * PER_DAY + TTL, id="one candle later"),
        pytest.param(0, 20 * PER_DAY, -8 * PER_DAY - 1, id="many days: the first of them"),
    ],
)
def test_memory_reaches_back_to_what_the_days_that_become_complete_are_fitted_on(first: int, end: int, expected: int):
    assert first_scored(FIRST_ROW + first, FIRST_ROW + end, TTL, QUARTERS) - FIRST_ROW == expected
