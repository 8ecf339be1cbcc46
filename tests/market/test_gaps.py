"""Gaps: every hole, how long it is and when it could be known."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from hindsight.market.candles import TIME
from hindsight.market.gaps import GAPS, find_gaps
from hindsight.market.streams import Stream

START = datetime(2022, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STREAM = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")


def gaps(minutes, previous=None, stream=STREAM):
    """(start, end, candles, known_at) in steps of the stream since START."""
    times = pl.Series([START + m * stream.step for m in minutes], dtype=TIME)
    found = find_gaps(times, stream, None if previous is None else START + previous * stream.step)
    assert dict(found.schema) == dict(GAPS)
    return [
        ((start - START) // stream.step, (end - START) // stream.step, candles, (known - START) // stream.step)
        for start, end, candles, known in found.rows()
    ]


@pytest.mark.parametrize(
    ("minutes", "previous", "expected"),
    [
        pytest.param([0, 1, 2], None, [], id="none"),
        pytest.param([0, 2], None, [(1, 2, 1, 3)], id="one candle"),
        pytest.param([0, 1, 5, 6, 9], None, [(2, 5, 3, 6), (7, 9, 2, 10)], id="two holes"),
        pytest.param([5, 6], None, [], id="nothing is known before the first"),
        pytest.param([5, 6], 4, [], id="goes on from the candle before"),
        pytest.param([5, 6], 1, [(2, 5, 3, 6)], id="a hole before the frame"),
        pytest.param([], 1, [], id="no candle ends the hole yet"),
        pytest.param([], None, [], id="nothing at all"),
    ],
)
def test_holes_between_present_candles(minutes, previous, expected):
    assert gaps(minutes, previous) == expected


@pytest.mark.parametrize("timeframe", ["1s", "1h", "1d"])
def test_every_timeframe_counts_in_its_own_step(timeframe):
    stream = Stream(venue="binance", symbol="ETH/USDT", timeframe=timeframe)
    assert gaps([0, 1, 5], stream=stream) == [(2, 5, 3, 6)]


def test_gaps_in_pieces_are_gaps_in_one_run():
    minutes = [0, 1, 4, 5, 9, 10, 20]
    whole = gaps(minutes)
    for cut in range(1, len(minutes)):
        assert gaps(minutes[:cut]) + gaps(minutes[cut:], previous=minutes[cut - 1]) == whole


def test_the_clock_change_is_no_gap():
    """2022-03-27 01:00 UTC, when Berlin jumps from 02:00 to 03:00, and the hour that it repeats in October."""
    for day in (datetime(2022, 3, 27, tzinfo=UTC), datetime(2022, 10, 30, tzinfo=UTC)):
        times = pl.datetime_range(day, day + timedelta(hours=6), MINUTE, eager=True)
        assert find_gaps(times, STREAM, day - MINUTE).is_empty()


def test_the_recorded_outage(recorded):
    found = find_gaps(recorded["open_time"], STREAM, None)
    assert found.rows() == [
        (
            datetime(2023, 3, 24, 12, 40, tzinfo=UTC),
            datetime(2023, 3, 24, 14, 0, tzinfo=UTC),
            80,
            datetime(2023, 3, 24, 14, 1, tzinfo=UTC),
        )
    ]
