"""What a model gains over its class prior, read out of the scores of its days."""

from datetime import date, timedelta

import polars as pl
import pytest

from hindsight.market.streams import Stream
from hindsight.store.rows import insert
from hindsight.store.skills import DAYS, read_skill
from hindsight.store.warehouse import Warehouse

ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
FIRST = date(2024, 1, 1)
TARGETS = ("action", "trend", "next_pivot")


def score(warehouse: Warehouse, day: int, targets: tuple[str, ...], loss: float, prior: float) -> None:
    """Stores a day on which each of these targets had ten answers with these mean losses."""
    said = [(target, name, 10 * each) for target in targets for name, each in (("model", loss), ("class_prior", prior))]
    rows = pl.DataFrame(said, schema=["target", "predictor", "log_loss_sum"], orient="row").with_columns(
        model=pl.lit("cnn"),
        day=pl.lit(FIRST + timedelta(days=day)),
        settled=pl.lit(10, pl.Int32),
        correct=pl.lit(5, pl.Int32),
        regression_loss_sum=pl.lit(None, pl.Float64),
    )
    with warehouse.writing() as con:
        insert(con, "scores", rows, ETH)


def skill(warehouse: Warehouse):
    with warehouse.reading() as con:
        return read_skill(con, ETH, "cnn")


def test_without_scores_nothing_is_gained_and_nothing_is_lost(warehouse: Warehouse):
    found = skill(warehouse)
    assert (found.days, found.gain, found.gain_error, found.weeks) == ((), None, None, [])


def test_a_day_that_lacks_a_target_is_no_rise_and_no_fall(warehouse: Warehouse):
    for day in range(10):
        score(warehouse, day, TARGETS if day != 8 else TARGETS[:2], loss=0.6, prior=0.7)
    found = skill(warehouse)
    assert found.days == tuple(FIRST + timedelta(days=day) for day in range(10) if day != 8)
    assert found.gains == pytest.approx([0.3] * 9)
    assert found.losses == pytest.approx([1.8] * 9)


def test_a_target_that_a_model_never_answers_is_not_waited_for(warehouse: Warehouse):
    for day in range(3):
        score(warehouse, day, ("action",), loss=0.6, prior=0.7)
    assert skill(warehouse).gains == pytest.approx([0.1] * 3)


def test_a_target_that_has_long_been_given_up_is_not_waited_for(warehouse: Warehouse):
    score(warehouse, 0, (*TARGETS, "of old"), loss=0.6, prior=0.7)
    for day in range(1, DAYS + 1):
        score(warehouse, day, TARGETS, loss=0.6, prior=0.7)
    found = skill(warehouse)
    assert (len(found.days), found.days[0]) == (DAYS, FIRST + timedelta(days=1))


def test_weeks_are_told_from_the_newest_back(warehouse: Warehouse):
    for day in range(10):
        score(warehouse, day, TARGETS, loss=0.6 if day < 3 else 0.5, prior=0.7)
    found = skill(warehouse)
    assert [pytest.approx(each) for each in found.weeks] == [(1.5, 0.6), (1.8, 0.3)]
    assert found.gain == pytest.approx(0.51)
    assert found.gain_error == pytest.approx(0.3 * (0.7 * 0.3 * 10 / 9) ** 0.5 / 10**0.5)
