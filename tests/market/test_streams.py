"""Streams, windows and stamps: what they refuse, and exact conversion."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.market.streams import TIMEFRAMES, Stream, Window, floor_to, from_ms, next_month, to_ms

START = datetime(2022, 1, 1, tzinfo=UTC)


def test_a_stream_is_written_and_read_the_same():
    stream = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
    assert str(stream) == "binance ETH/USDT 1m"
    assert Stream.parse(str(stream)) == stream
    assert (stream.step, stream.step_ms) == (timedelta(minutes=1), 60_000)


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_every_timeframe_divides_a_day(timeframe):
    assert timedelta(days=1) % Stream(venue="x", symbol="A/B", timeframe=timeframe).step == timedelta(0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("binance ETHUSDT 1m", "BASE/QUOTE", id="symbol without a slash"),
        pytest.param("binance ETH/USDT 7m", "not one of 1s, 1m", id="unknown timeframe"),
        pytest.param("binance ETH/USDT 1M", "not one of", id="case matters"),
        pytest.param("ETH/USDT 1m", "venue BASE/QUOTE timeframe", id="no venue"),
        pytest.param("binance  ETH/USDT 1m", "venue BASE/QUOTE timeframe", id="two spaces"),
    ],
)
def test_a_stream_that_is_none_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        Stream.parse(text)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(datetime(2022, 1, 1), START, id="naive start"),  # noqa: DTZ001  the very thing refused
        pytest.param(START, datetime(2022, 1, 2), id="naive end"),  # noqa: DTZ001
        pytest.param(START.astimezone(timezone(timedelta(hours=1))), START, id="another offset"),
        pytest.param(
            datetime(2022, 7, 1, tzinfo=ZoneInfo("Europe/London")), datetime(2022, 8, 1, tzinfo=UTC), id="BST"
        ),
    ],
)
def test_a_window_takes_only_utc(start, end):
    with pytest.raises(ValueError, match="aware UTC"):
        Window(start=start, end=end)


def test_a_window_does_not_end_before_it_starts():
    with pytest.raises(ValueError, match="ends before"):
        Window(start=START, end=START - timedelta(seconds=1))
    assert list(Window(start=START, end=START).months()) == []


def test_a_window_in_a_zone_that_is_utc_only_in_winter_keeps_to_utc():
    """London's clock jumps on 2022-03-27; steps from its winter would land an hour off."""
    london = Window(
        start=datetime(2022, 3, 26, 12, tzinfo=ZoneInfo("Europe/London")), end=datetime(2022, 4, 1, tzinfo=UTC)
    )
    assert london.start.tzinfo is UTC
    assert to_ms(london.start + timedelta(days=1)) - to_ms(london.start) == 86_400_000


def test_a_window_is_cut_at_the_first_instants_of_months():
    end = datetime(2022, 3, 2, tzinfo=UTC)
    months = list(Window(start=datetime(2021, 11, 15, 3, tzinfo=UTC), end=end).months())
    assert [month.start.month for month in months] == [11, 12, 1, 2, 3]
    assert all(a.end == b.start for a, b in pairwise(months))
    assert months[-1].end == end
    assert next_month(datetime(2021, 12, 31, 23, 59, tzinfo=UTC)) == START


@given(st.integers(0, 4_102_444_800_000))
def test_milliseconds_and_back(milliseconds):
    assert to_ms(from_ms(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime(2022, 3, 27, 0, 59, 59, 999000, tzinfo=UTC), id="before Berlin's clock jumps"),
        pytest.param(datetime(2022, 3, 27, 1, tzinfo=UTC), id="as it jumps"),
        pytest.param(datetime(2022, 10, 30, 1, 30, tzinfo=UTC), id="in the hour it repeats"),
        pytest.param(datetime(2024, 2, 29, 23, 59, tzinfo=UTC), id="leap day"),
        pytest.param(datetime(1969, 12, 31, 23, 59, tzinfo=UTC), id="before 1970"),
    ],
)
def test_datetimes_and_back_through_any_zone(moment):
    assert from_ms(to_ms(moment)) == moment
    assert to_ms(moment.astimezone(ZoneInfo("Europe/Berlin"))) == to_ms(moment)
    assert to_ms(moment.astimezone(ZoneInfo("Asia/Kathmandu"))) == to_ms(moment)


def test_the_repeated_hour_of_a_local_clock_is_two_instants():
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2022, 10, 30, 2, 30, fold=fold, tzinfo=berlin) for fold in (0, 1))
    assert to_ms(second) - to_ms(first) == 3_600_000


def test_a_naive_datetime_has_no_milliseconds():
    with pytest.raises(TypeError, match="naive"):
        to_ms(datetime(2022, 1, 1))  # noqa: DTZ001


def test_microseconds_taken_for_milliseconds_are_no_date():
    with pytest.raises(OverflowError):
        from_ms(to_ms(START) * 1000)


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_the_floor_of_a_moment_is_the_open_time_of_its_candle(timeframe):
    step = TIMEFRAMES[timeframe]
    moment = datetime(2022, 10, 30, 13, 37, 42, 123456, tzinfo=UTC)
    opened = floor_to(moment, step)
    assert opened <= moment < opened + step
    assert to_ms(opened) % to_ms(datetime(1970, 1, 1, tzinfo=UTC) + step) == 0
    assert floor_to(opened, step) == opened


def test_a_window_shows_seconds_where_it_has_some():
    start = datetime(2024, 3, 1, 12, 40, tzinfo=UTC)
    assert str(Window(start=start, end=start + timedelta(minutes=1))) == "[2024-03-01 12:40, 2024-03-01 12:41)"
    second = Window(start=start, end=start + timedelta(seconds=1))
    assert str(second) == "[2024-03-01 12:40:00, 2024-03-01 12:40:01)"
