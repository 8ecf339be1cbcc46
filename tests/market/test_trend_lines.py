"""Trend lines and the name of their direction."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from hindsight.market.trend_lines import TRENDS, line_through, trend_codes

START = datetime(2022, 1, 1, tzinfo=UTC)


def test_a_line_goes_through_both_its_points():
    line = line_through(start_time=START, start_price=100.0, end_time=START + timedelta(minutes=10), end_price=94.0)
    assert line.slope == pytest.approx(-0.01)
    assert (line.intercept, line.price_change, line.time_duration) == (100.0, -6.0, 600.0)
    assert line.price_at(line.start_time) == 100.0
    assert line.price_at(line.end_time) == pytest.approx(94.0)
    assert line.price_at(START + timedelta(minutes=20)) == pytest.approx(88.0)


@pytest.mark.parametrize("minutes", [0, -1])
def test_a_line_needs_two_instants_in_order(minutes):
    with pytest.raises(ValueError, match="order of time"):
        line_through(start_time=START, start_price=1.0, end_time=START + timedelta(minutes=minutes), end_price=2.0)


@pytest.mark.parametrize(
    ("change", "atr", "flat_fraction", "expected"),
    [
        pytest.param(2.0, 1.0, 1.0, "up", id="up"),
        pytest.param(-2.0, 1.0, 1.0, "down", id="down"),
        pytest.param(0.5, 1.0, 1.0, "sideways", id="small"),
        pytest.param(1.0, 1.0, 1.0, "sideways", id="must exceed"),
        pytest.param(-1.0, 1.0, 1.0, "sideways", id="must exceed, down"),
        pytest.param(1.0, 2.0, 0.4, "up", id="a fraction of ATR"),
        pytest.param(0.0, 1.0, 0.0, "sideways", id="equal prices"),
        pytest.param(1e-9, 1.0, 0.0, "up", id="no flat zone"),
        pytest.param(0.0, 0.0, 1.0, "sideways", id="a dead market"),
    ],
)
def test_up_or_down_where_the_change_exceeds_the_flat_zone(change, atr, flat_fraction, expected):
    assert TRENDS[trend_codes(change, atr, flat_fraction)] == expected


def test_codes_are_the_places_of_the_names():
    chance = np.random.default_rng(0)
    change, atr = chance.normal(size=500), chance.random(500)
    codes = trend_codes(change, atr, 1.0)
    assert codes.dtype == np.int8
    assert codes.tolist() == [int(trend_codes(*pair, 1.0)) for pair in zip(change, atr, strict=True)]
    assert set(codes) == {0, 1, 2}
    np.testing.assert_array_equal(trend_codes(-change, atr, 1.0), 2 - codes)
    assert len(trend_codes([], [], 1.0)) == 0


@pytest.mark.parametrize(("change", "atr"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0)])
def test_a_missing_number_has_no_trend(change, atr):
    with pytest.raises(ValueError, match="warm ATR14"):
        trend_codes([0.0, change], [1.0, atr], 1.0)
