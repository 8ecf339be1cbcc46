"""As-of: a later correction never changes what was known before it."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.market.as_of import REVISIONS, as_first_known, as_of
from hindsight.market.candles import CANDLES

START = datetime(2022, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def row(index, close, revision, known):
    """One candle; `known` is minutes after START."""
    return (START + index * MINUTE, 1.0, 9.0, 0.5, close, 3.0, revision, START + known * MINUTE)


# Candle 0 was corrected at minutes 5 and 8, candle 1 never, candle 2 at minute 6; candle 3 was delivered late, at 20.
CURRENT = pl.DataFrame(
    [row(0, 5.2, 2, 8), row(1, 6.0, 0, 2), row(2, 7.1, 1, 6), row(3, 8.0, 0, 20)], CANDLES, orient="row"
)
REPLACED = pl.DataFrame(
    [
        (*row(2, 7.0, 0, 3), START + 6 * MINUTE),
        (*row(0, 5.0, 0, 1), START + 5 * MINUTE),
        (*row(0, 5.1, 1, 5), START + 8 * MINUTE),
    ],
    REVISIONS,
    orient="row",
)


@pytest.mark.parametrize(
    ("minute", "closes"),
    [
        pytest.param(0, [], id="nothing closed"),
        pytest.param(0.99, [], id="just before the close"),
        pytest.param(1, [5.0], id="known from its close on"),
        pytest.param(4, [5.0, 6.0, 7.0], id="before any correction"),
        pytest.param(5, [5.1, 6.0, 7.0], id="a correction counts from its instant"),
        pytest.param(6, [5.1, 6.0, 7.1], id="another candle's"),
        pytest.param(8, [5.2, 6.0, 7.1], id="the correction of a correction"),
        pytest.param(20, [5.2, 6.0, 7.1, 8.0], id="a late delivery"),
        pytest.param(10_000, [5.2, 6.0, 7.1, 8.0], id="the end"),
    ],
)
def test_each_candle_in_the_revision_current_then(minute, closes):
    found = as_of(CURRENT, REPLACED, START + minute * MINUTE)
    assert found["close"].to_list() == closes
    assert dict(found.schema) == dict(CANDLES)
    assert found["open_time"].is_sorted()


def test_later_rows_change_nothing_that_was_known():
    """Truncating the tables at t leaves the view as of t."""
    for minute in range(25):
        moment = START + minute * MINUTE
        truncated = as_of(
            CURRENT.filter(pl.col("recorded_at") <= moment), REPLACED.filter(pl.col("recorded_at") <= moment), moment
        )
        assert_frame_equal(truncated, as_of(CURRENT, REPLACED, moment))


def test_as_first_known_is_the_lowest_revision_of_each_candle():
    found = as_first_known(CURRENT, REPLACED)
    assert found.select("close", "revision").rows() == [(5.0, 0), (6.0, 0), (7.0, 0), (8.0, 0)]
    assert dict(found.schema) == dict(CANDLES)


def test_without_corrections_both_views_are_the_candles():
    current, none = CURRENT.with_columns(revision=pl.lit(0, pl.Int32)), REPLACED.clear()
    assert_frame_equal(as_first_known(current.reverse(), none), current)
    assert_frame_equal(as_of(current.reverse(), none, START + 99 * MINUTE), current)


def test_two_corrections_at_one_instant_leave_the_newer():
    instant = START + 5 * MINUTE
    current = pl.DataFrame([row(0, 5.2, 2, 5)], CANDLES, orient="row")
    replaced = pl.DataFrame([(*row(0, 5.0, 0, 1), instant), (*row(0, 5.1, 1, 5), instant)], REVISIONS, orient="row")
    assert as_of(current, replaced, instant)["close"].to_list() == [5.2]
    assert as_of(current, replaced, instant - MINUTE)["close"].to_list() == [5.0]
