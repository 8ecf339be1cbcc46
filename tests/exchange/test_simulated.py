"""The simulated venue: the same market in whatever pieces it is asked for, and as predictable as stated."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.errors import SettingRefused
from hindsight.exchange.simulated import FRAME_ROWS, OPENING, SimulatedVenue
from hindsight.market.candles import CANDLES, accept
from hindsight.market.streams import Stream, Window

START = datetime(2024, 2, 27, tzinfo=UTC)  # the blocks of the chain change on the 1st of March (and it is a leap year)
VALUES = ["open", "high", "low", "close", "volume"]


def _stream(timeframe: str = "1m", symbol: str = "ETH/USDT") -> Stream:
    return Stream(venue="simulated", symbol=symbol, timeframe=timeframe)


def _candles(stream: Stream, start: datetime, end: datetime, phi: float = 0.3, seed: int = 7) -> pl.DataFrame:
    frames = list(SimulatedVenue(seed=seed, phi=phi).candles(stream, Window(start=start, end=end)))
    return pl.concat([pl.DataFrame(schema=CANDLES), *frames])


def _days(start: datetime, days: float) -> datetime:
    return start + timedelta(days=days)


def _rolled_up(seconds: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    return seconds.group_by_dynamic("open_time", every=timeframe).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )


def _current(deliveries: pl.DataFrame) -> pl.DataFrame:
    return deliveries.sort("open_time", "revision").unique("open_time", keep="last", maintain_order=True)


@pytest.mark.parametrize("timeframe", [pytest.param("1s", id="seconds"), "1m", "1h", "1d"])
def test_every_candle_passes_the_candles_door(timeframe: str) -> None:
    stream = _stream(timeframe)
    frame = _candles(stream, START, _days(START, 6))
    good, refused = accept(frame, stream)
    assert frame.schema == CANDLES
    assert refused.is_empty()
    assert_frame_equal(good, frame)  # sorted already


@pytest.mark.parametrize(
    ("timeframe", "cuts"),
    [
        pytest.param(
            "1m", [0.0, 0.25, 1.0, 1.75, 1.75 + 1 / 1440, 3.0, 9.0], id="minutes cut anywhere, also within a day"
        ),
        pytest.param("1s", [0.0, 0.1, 1.0, 2.0], id="seconds"),
        pytest.param("1h", [0.0, 0.5, 1.0, 2.0, 40.0], id="hours"),
        pytest.param("1d", [0.0, 1.0, 2.0, 40.0], id="days"),
    ],
)
def test_partitions_made_by_themselves_equal_the_whole_run(timeframe: str, cuts: list[float]) -> None:
    stream = _stream(timeframe)
    whole = _candles(stream, START, _days(START, cuts[-1]))
    pieces = [_candles(stream, _days(START, a), _days(START, b)) for a, b in reversed(list(pairwise(cuts)))]
    order = ["open_time", "revision"]
    assert_frame_equal(pl.concat(pieces).sort(order), whole.sort(order), check_exact=True)


def test_a_venue_asked_backwards_and_twice_gives_the_same_market() -> None:
    venue, stream = SimulatedVenue(seed=7, phi=0.3), _stream()
    later = Window(start=_days(OPENING, 200), end=_days(OPENING, 201))
    earlier = Window(start=_days(OPENING, 3), end=_days(OPENING, 4))
    first = pl.concat(venue.candles(stream, later))
    assert_frame_equal(pl.concat(venue.candles(stream, earlier)), _candles(stream, earlier.start, earlier.end))
    assert_frame_equal(pl.concat(venue.candles(stream, later)), first)
    assert_frame_equal(_candles(stream, later.start, later.end), first)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    longer = _candles(_stream(), OPENING, _days(OPENING, 5)).filter(pl.col("recorded_at") <= _days(OPENING, 2))
    assert_frame_equal(longer, _candles(_stream(), OPENING, _days(OPENING, 2)))


@pytest.mark.parametrize("timeframe", ["1m", "5m", "15m", "1h", "4h", "1d"])
def test_seconds_as_they_stand_after_all_corrections_add_up_to_every_timeframe(timeframe: str) -> None:
    end = _days(START, 4)
    seconds = _current(_candles(_stream("1s"), START, end + timedelta(hours=1))).filter(pl.col("open_time") < end)
    candles = _current(_candles(_stream(timeframe), START, end + timedelta(hours=1))).filter(pl.col("open_time") < end)
    assert_frame_equal(_rolled_up(seconds, timeframe), candles.select("open_time", *VALUES), check_exact=True)


@pytest.mark.parametrize("timeframe", ["1m", "5m", "1h", "1d"])
def test_a_first_delivery_is_what_the_seconds_known_at_its_close_add_up_to(timeframe: str) -> None:
    days = 12
    minutes = _candles(_stream("1m"), START, _days(START, days))
    corrected = minutes.filter(pl.col("revision") == 1)["open_time"].to_list()
    assert len(corrected) >= 2
    for minute in corrected:
        day = minute.replace(hour=0, minute=0)
        seconds = _candles(_stream("1s"), day, _days(day, 1.01))
        deliveries = _candles(_stream(timeframe), day, _days(day, 1.01))
        opened = deliveries.filter(pl.col("open_time") <= minute)["open_time"].max()
        for candle in deliveries.filter(pl.col("open_time") == opened).iter_rows(named=True):
            inside = seconds.filter(
                pl.col("open_time").is_between(opened, opened + _stream(timeframe).step, closed="left"),
                pl.col("recorded_at") <= candle["recorded_at"],
            )
            expected = _rolled_up(_current(inside), timeframe)
            assert expected.row(0, named=True) == {name: candle[name] for name in ("open_time", *VALUES)}


def test_corrections_never_touch_a_close_and_only_add_trades() -> None:
    deliveries = _candles(_stream(), OPENING, _days(OPENING, 60))
    both = deliveries.filter(pl.col("revision") == 1).join(
        deliveries.filter(pl.col("revision") == 0), on="open_time", suffix="_first"
    )
    assert 10 <= len(both) <= 35
    assert both["close"].equals(both["close_first"])
    assert both["open"].equals(both["open_first"])
    assert (both["volume"] > both["volume_first"]).all()
    assert (both["high"] >= both["high_first"]).all()
    assert (both["high"] > both["high_first"]).any()
    assert (both["low"] <= both["low_first"]).all()
    assert (both["low"] < both["low_first"]).any()
    delays = both["recorded_at"] - both["recorded_at_first"]
    assert delays.min() >= timedelta(seconds=2)
    assert delays.max() <= timedelta(minutes=5)


def test_hours_are_corrected_only_by_trades_that_come_after_their_close() -> None:
    hours = _candles(_stream("1h"), OPENING, _days(OPENING, 90)).filter(pl.col("revision") == 1)
    minutes = _candles(_stream("1m"), OPENING, _days(OPENING, 90)).filter(pl.col("revision") == 1)
    expected = minutes.filter(pl.col("recorded_at") > pl.col("open_time").dt.truncate("1h") + timedelta(hours=1))
    assert len(hours) >= 3
    assert hours["recorded_at"].equals(expected["recorded_at"])


def test_outages_of_up_to_five_minutes_are_missing_from_every_timeframe() -> None:
    end = _days(OPENING, 60)
    minutes = _current(_candles(_stream(), OPENING, end))
    holes = minutes.select(pl.col("open_time"), missing=pl.col("open_time").diff().dt.total_minutes() - 1)
    holes = holes.filter(pl.col("missing") > 0)
    assert 10 <= len(holes) <= 35
    assert holes["missing"].max() == 5
    hole = holes.row(0, named=True)
    before = hole["open_time"] - timedelta(minutes=hole["missing"])
    assert _candles(_stream("1s"), before, hole["open_time"]).is_empty()
    assert _candles(_stream("1m"), before, hole["open_time"]).is_empty()


def test_the_two_symbols_have_markets_and_outages_of_their_own() -> None:
    eth, btc = (_candles(_stream(symbol=symbol), OPENING, _days(OPENING, 20)) for symbol in ("ETH/USDT", "BTC/USDT"))
    both = eth.filter(pl.col("revision") == 0).join(btc.filter(pl.col("revision") == 0), on="open_time")
    assert len(both) < min(len(eth), len(btc))
    returns = both.select(pl.col("close", "close_right").log().diff().drop_nulls()).to_numpy()
    assert abs(np.corrcoef(returns.T)[0, 1]) < 0.03
    assert 2_000 < eth["close"].mean() < 4_500
    assert 40_000 < btc["close"].mean() < 90_000


def test_quiet_seconds_repeat_the_last_price_without_volume() -> None:
    seconds = _candles(_stream("1s"), START, _days(START, 1)).with_columns(before=pl.col("close").shift(1))
    quiet = seconds.filter(pl.col("volume") == 0, pl.col("before").is_not_null())
    assert 0.05 < len(quiet) / len(seconds) < 0.15
    assert quiet.select((pl.col("open", "high", "low", "close") == pl.col("before")).all()).row(0) == (True,) * 4
    assert _candles(_stream(), START, _days(START, 1))["volume"].min() > 0


@pytest.mark.parametrize("phi", [pytest.param(phi, id=f"phi {phi}") for phi in (0.3, 0.0, -0.4, 0.9)])
def test_the_next_sign_is_as_predictable_as_the_known_optimum(phi: float) -> None:
    venue = SimulatedVenue(seed=7, phi=phi)
    assert venue.optimal_accuracy == pytest.approx(0.5 + np.arcsin(abs(phi)) / np.pi)
    frame = pl.concat(venue.candles(_stream(), Window(start=OPENING, end=_days(OPENING, 60))))
    r = np.diff(np.log(frame.filter(pl.col("revision") == 0)["close"].to_numpy()))
    right = np.sign(r[1:]) == np.sign((phi or 1.0) * r[:-1])
    four_standard_errors = 4 * 0.5 / np.sqrt(len(right))  # 0.7 points over 60 days
    assert abs(right.mean() - venue.optimal_accuracy) < four_standard_errors
    assert np.mean(r == 0) < 0.005  # rounding to ticks leaves few minutes without a direction


def test_without_predictability_nothing_of_the_past_tells_the_next_sign() -> None:
    frame = _candles(_stream(), OPENING, _days(OPENING, 60), phi=0.0).filter(pl.col("revision") == 0)
    values = frame.select(
        r=pl.col("close").log().diff(),
        leaning=(pl.col("close") - pl.col("low")) / (pl.col("high") - pl.col("low")),
        volume=pl.col("volume"),
    ).to_numpy()[1:]
    for past in values[:-1].T:
        for lagged in (past, np.abs(past)):
            assert abs(np.corrcoef(lagged[5:], np.sign(values[6:, 0]))[0, 1]) < 0.015


def test_volatility_comes_in_regimes_that_last_for_hours() -> None:
    frame = _candles(_stream(), OPENING, _days(OPENING, 60), phi=0.0).filter(pl.col("revision") == 0)
    by_regime = frame.group_by_dynamic("open_time", every="4h").agg(sigma=pl.col("close").log().diff().std())["sigma"]
    assert 3e-4 < by_regime.mean() < 8e-4
    assert by_regime.quantile(0.9) > 2 * by_regime.quantile(0.1)
    assert pl.select(pl.corr(by_regime, by_regime.shift(1))).item() > 0.5


def test_a_window_gives_candles_closed_by_its_end_and_corrections_recorded_in_it() -> None:
    stream = _stream()
    deliveries = _candles(stream, OPENING, _days(OPENING, 30))
    correction = deliveries.filter(pl.col("revision") == 1).row(0, named=True)
    recorded_at = correction["recorded_at"]

    forming = _candles(stream, START, START + timedelta(minutes=3, seconds=59))
    assert forming["open_time"].max() == START + timedelta(minutes=2)

    until_just_before = _candles(stream, correction["open_time"], recorded_at - timedelta(microseconds=1))
    assert until_just_before["revision"].max() == 0
    until_then = _candles(stream, correction["open_time"], recorded_at)
    assert until_then.filter(pl.col("revision") == 1)["recorded_at"].to_list() == [recorded_at]
    from_then_on = _candles(stream, recorded_at, recorded_at + timedelta(minutes=1))
    assert from_then_on["revision"].to_list() == [0] * len(from_then_on)
    alone = _candles(stream, recorded_at - timedelta(microseconds=1), recorded_at)
    assert alone.row(0, named=True) == correction  # of a candle that opened long before the window


def test_nothing_happened_before_the_venue_opened() -> None:
    frame = _candles(_stream(), _days(OPENING, -40), OPENING + timedelta(minutes=10))
    assert frame["open_time"].min() == OPENING
    with pytest.raises(SettingRefused, match="opened on 2024-01-01"):
        _candles(_stream(), _days(OPENING, -40), OPENING)
    assert _candles(_stream(), START, START).is_empty()


def test_frames_stay_small_however_long_the_window() -> None:
    window = Window(start=START, end=_days(START, 7))
    sizes = [len(frame) for frame in SimulatedVenue(seed=1, phi=0.3).candles(_stream("1s"), window)]
    assert sum(sizes) > 6.9 * 86_400
    assert len(sizes) > 1
    assert max(sizes) <= FRAME_ROWS


def test_seeds_make_different_markets() -> None:
    a, b = (_candles(_stream(), OPENING, _days(OPENING, 1), seed=seed)["close"] for seed in (1, 2))
    assert (a.head(1000) != b.head(1000)).mean() > 0.9


@pytest.mark.parametrize("phi", [-1.0, 1.0, 2.0, float("nan")])
def test_an_impossible_phi_is_refused_by_name(phi: float) -> None:
    with pytest.raises(SettingRefused, match="simulated_phi"):
        SimulatedVenue(seed=0, phi=phi)


def test_streams_of_another_venue_are_refused() -> None:
    stream = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
    with pytest.raises(SettingRefused, match="binance ETH/USDT 1m"):
        next(SimulatedVenue(seed=0, phi=0.1).candles(stream, Window(start=START, end=_days(START, 1))))
