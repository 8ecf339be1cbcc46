"""The candles' door: what is refused and why, and that everything around it goes on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.market.candles import CANDLES, PRICES, REFUSED, TIME, accept, first_delivery
from hindsight.market.streams import Stream, to_ms

START = datetime(2022, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STREAM = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
NAN, INF = float("nan"), float("inf")


def good(n=5):
    """Well-formed candles from START on."""
    times = pl.datetime_range(START, START + (n - 1) * MINUTE, MINUTE, eager=True).cast(TIME)
    prices = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0}
    return first_delivery(pl.DataFrame({"open_time": times, **prices}), STREAM)


def spoilt(at=2, **values):
    """Well-formed candles with some values of one replaced."""
    here = pl.int_range(pl.len()) == at
    changed = [
        pl.when(here).then(pl.lit(value, CANDLES[name])).otherwise(name).alias(name) for name, value in values.items()
    ]
    return good().with_columns(changed)


def test_a_first_delivery_is_known_at_its_close():
    frame = good()
    assert dict(frame.schema) == dict(CANDLES)
    assert (frame["recorded_at"] - frame["open_time"]).unique().to_list() == [MINUTE]
    assert frame["revision"].unique().to_list() == [0]


def test_well_formed_candles_pass_unchanged():
    accepted, refused = accept(good(), STREAM)
    assert_frame_equal(accepted, good())
    assert refused.is_empty()
    assert dict(refused.schema) == dict(REFUSED)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"open_time": None}, "no open_time", id="no time"),
        pytest.param({"open_time": START + timedelta(seconds=30)}, "not a multiple of 1m", id="misaligned"),
        pytest.param({"close": NAN}, "not a number", id="NaN"),
        pytest.param({"high": INF}, "not a number", id="infinite"),
        pytest.param({"volume": None}, "not a number", id="null"),
        pytest.param({"open": NAN, "high": NAN, "low": NAN, "close": NAN}, "not a number", id="all NaN"),
        pytest.param({"low": 0.0}, "price is not positive", id="zero price"),
        pytest.param({"low": -1.0}, "price is not positive", id="negative price"),
        pytest.param({"volume": -0.1}, "negative volume", id="negative volume"),
        pytest.param({"high": 8.0, "low": 9.0}, "high below low", id="high below low"),
        pytest.param({"close": 12.5}, "open or close above high", id="close above high"),
        pytest.param({"open": 12.5}, "open or close above high", id="open above high"),
        pytest.param({"open": 8.5}, "open or close below low", id="open below low"),
        pytest.param({"close": 8.5}, "open or close below low", id="close below low"),
        pytest.param({"revision": None}, "no revision", id="no revision"),
        pytest.param({"revision": -1}, "no revision", id="negative revision"),
        pytest.param({"recorded_at": START + 2 * MINUTE}, "known before its close", id="a forming candle"),
        pytest.param({"recorded_at": None}, "known before its close", id="unknown when known"),
    ],
)
def test_a_malformed_candle_is_refused_with_its_reason_and_the_rest_goes_on(values, reason):
    accepted, refused = accept(spoilt(**values), STREAM)
    assert_frame_equal(accepted, good().filter(pl.col("open_time") != START + 2 * MINUTE))
    assert len(refused) == 1
    assert reason in refused["reason"].item()
    assert refused["open_time"].item() == values.get("open_time", START + 2 * MINUTE)
    told = {name: value for name, value in values.items() if name in (*PRICES, "volume")}
    assert all(f"{name} {value}".lower() in refused["found"].item().lower() for name, value in told.items() if value)


@pytest.mark.parametrize(
    "stamp",
    [
        pytest.param(to_ms(START) // 1000, id="seconds, 10 digits, read as microseconds"),
        pytest.param(to_ms(START), id="milliseconds, 13 digits, read as microseconds"),
        pytest.param(to_ms(START) // 1000 * 1000, id="seconds read as milliseconds"),
        pytest.param(to_ms(START) * 1_000_000, id="microseconds, 16 digits, read as milliseconds"),
        pytest.param(600_000_000, id="aligned, but in 1970"),
    ],
)
def test_stamps_in_another_unit_are_refused(stamp):
    frame = good(1).with_columns(open_time=pl.lit(stamp, pl.Int64).cast(TIME))
    accepted, refused = accept(frame, STREAM)
    assert accepted.is_empty()
    assert "wrong unit?" in refused["reason"].item()


def test_quiet_candles_are_candles():
    accepted, refused = accept(spoilt(volume=0.0, open=9.0, high=9.0, low=9.0, close=9.0), STREAM)
    assert (len(accepted), len(refused)) == (5, 0)


def test_any_order_comes_out_sorted():
    accepted, refused = accept(good(200).sample(fraction=1, shuffle=True, seed=1), STREAM)
    assert_frame_equal(accepted, good(200))
    assert refused.is_empty()


def test_of_repeated_candles_the_first_delivered_stays():
    again = good().with_columns(close=pl.lit(9.5))
    accepted, refused = accept(pl.concat([good()[1:], again]), STREAM)
    assert_frame_equal(accepted, pl.concat([again[:1], good()[1:]]))
    assert refused["reason"].to_list() == ["duplicate"] * 4
    assert refused["found"].str.contains("close 9.5").all()


def test_a_malformed_delivery_does_not_bar_a_good_one():
    accepted, refused = accept(pl.concat([spoilt(close=NAN), good()[2:3]]), STREAM)
    assert_frame_equal(accepted, good())
    assert refused["reason"].to_list() == ["not a number"]


def test_a_correction_is_no_duplicate():
    correction = good()[2:3].with_columns(
        close=pl.lit(10.5), revision=pl.lit(1, pl.Int32), recorded_at=pl.lit(START + 9 * MINUTE).cast(TIME)
    )
    accepted, refused = accept(pl.concat([correction, good()]), STREAM)
    assert refused.is_empty()
    assert accepted.filter(open_time=START + 2 * MINUTE)["revision"].to_list() == [0, 1]
    assert len(accepted) == 6


def test_what_was_accepted_is_accepted_again():
    accepted, _ = accept(pl.concat([spoilt(low=0.0), good()]), STREAM)
    again, refused = accept(accepted, STREAM)
    assert_frame_equal(again, accepted)
    assert refused.is_empty()


def test_nothing_is_refused_of_nothing():
    accepted, refused = accept(good().clear(), STREAM)
    assert accepted.is_empty()
    assert refused.is_empty()


def test_recorded_candles_all_pass_and_fast(shared_data: Path):
    path = shared_data / "candles" / "ethusdt_1m_binance_spot_2022_2023.parquet"
    frame = pl.read_parquet(path).with_columns(
        open_time=pl.from_epoch("ts_ms", "ms").dt.replace_time_zone("UTC").cast(TIME)
    )
    frame = first_delivery(frame, STREAM)
    start = perf_counter()
    accepted, refused = accept(frame, STREAM)
    seconds = perf_counter() - start
    assert (len(accepted), len(refused)) == (1_051_120, 0)
    assert seconds < 1  # 0.02 s alone on two cores
