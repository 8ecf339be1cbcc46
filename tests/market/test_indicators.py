"""Indicators: nothing of the future, the same to the bit from any window, null until warm, TA-Lib's definitions."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.market.indicators import NAMES, TABLE, WARMUP, Columns, anchor, compute
from hindsight.market.streams import Window

START = datetime(2022, 1, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# Rows before the first value, by TA-Lib's definitions.
LOOKBACK = {
    **{"sma_10": 9, "sma_20": 19, "sma_50": 49, "ema_12": 11, "ema_26": 25, "macd": 33, "macd_signal": 33},
    **{"macd_hist": 33, "rsi_14": 14, "atr_14": 14, "bb_upper": 19, "bb_middle": 19, "bb_lower": 19, "stoch_k": 17},
    **{"stoch_d": 17, "adx_14": 27, "obv_change": 1, "volume_sma_20": 19},
}


def whole(frame, step):
    """The indicators of all candles."""
    times = frame["open_time"]
    return compute(frame, Window(start=times[0], end=times[-1] + step), step)


def by_name(block):
    """Every output of TABLE on one block of candles."""
    rows = {}
    for names, formula in TABLE.items():
        found = formula(block)
        rows |= dict(zip(names, found if isinstance(found, tuple) else (found,), strict=True))
    return rows


def columns_of(frame):
    return Columns(*(frame[name].to_numpy() for name in ("high", "low", "close", "volume")))


def test_the_names_are_those_of_the_table():
    assert tuple(LOOKBACK) == NAMES
    assert len(NAMES) == 18


@pytest.mark.parametrize(
    ("moment", "step", "expected"),
    [
        pytest.param(START + 7 * HOUR, MINUTE, START - 512 * MINUTE, id="1m"),
        pytest.param(START, MINUTE, START - 512 * MINUTE, id="midnight belongs to its own day"),
        pytest.param(START - MINUTE, MINUTE, START - DAY - 512 * MINUTE, id="the minute before to the day before"),
        pytest.param(START + 7 * HOUR, HOUR, START - 512 * HOUR, id="1h"),
        pytest.param(START, DAY, START - 512 * DAY, id="1d: each candle its own"),
        pytest.param(START + timedelta(seconds=5), timedelta(seconds=1), START - timedelta(seconds=512), id="1s"),
    ],
)
def test_the_anchor_is_the_start_of_the_day_minus_the_warm_up(moment, step, expected):
    assert anchor(moment, step) == expected


@pytest.mark.parametrize("name", NAMES)
def test_null_until_warm_and_never_after(walk_candles, name):
    values = whole(walk_candles(900, seed=1), MINUTE)[name]
    assert values[: LOOKBACK[name]].null_count() == LOOKBACK[name]
    assert values[LOOKBACK[name] :].null_count() == 0
    assert values.is_finite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_first_candles_give_the_first_values_of_the_whole(walk_candles, name):
    """To the bit, at every cut of a day: no function looks ahead."""
    frame = walk_candles(700, seed=2, tick=0)
    full = by_name(columns_of(frame))[name]
    formula = next(formula for names, formula in TABLE.items() if name in names)
    place = next(names.index(name) for names in TABLE if name in names)
    for m in range(1, len(frame) + 1):
        found = formula(columns_of(frame[:m]))
        np.testing.assert_array_equal(found[place] if isinstance(found, tuple) else found, full[:m])


def test_absurd_values_after_the_cut_change_nothing(walk_candles):
    frame = walk_candles(4000, seed=3)
    is_after = pl.col("open_time") >= START + timedelta(minutes=2222)
    planted = frame.with_columns(
        [
            *[pl.when(is_after).then(pl.lit(1e12)).otherwise(name).alias(name) for name in ("high", "close", "volume")],
            pl.when(is_after).then(pl.lit(1e-12)).otherwise("low").alias("low"),
        ]
    )
    before = Window(start=START, end=START + timedelta(minutes=2222))
    assert_frame_equal(compute(planted, before, MINUTE), compute(frame, before, MINUTE), check_exact=True)
    assert_frame_equal(whole(planted, MINUTE)[:2222], whole(frame, MINUTE)[:2222], check_exact=True)


@pytest.mark.parametrize("step", [MINUTE, HOUR, DAY, timedelta(hours=4)], ids=["1m", "1h", "1d", "4h"])
def test_a_value_is_the_same_to_the_bit_whatever_window_it_was_computed_in(walk_candles, step):
    frame = walk_candles(3000, seed=4, tick=0, step=step).sample(fraction=0.98, seed=1).sort("open_time")
    full = whole(frame, step)
    for i in np.random.default_rng(0).integers(0, len(frame), 60):
        moment = full["open_time"][int(i)]
        reach = frame.filter(pl.col("open_time").is_between(anchor(moment, step), moment))
        one = compute(reach, Window(start=moment, end=moment + step), step)
        assert_frame_equal(one, full[int(i) : int(i) + 1], check_exact=True)
    start, end = START + 700 * step, START + 2100 * step
    piece = compute(
        frame.filter(pl.col("open_time").is_between(anchor(start, step), end, closed="left")),
        Window(start=start, end=end),
        step,
    )
    inside = full.filter(pl.col("open_time").is_between(start, end, closed="left"))
    assert_frame_equal(piece, inside, check_exact=True)


def test_seconds_share_the_anchor_of_their_day(walk_candles):
    second = timedelta(seconds=1)
    frame = walk_candles(90_000, seed=5, tick=0, step=second)  # a day of 86,400 and an hour more
    full = whole(frame, second)
    moment = START + DAY + timedelta(seconds=1800)
    reach = frame.filter(pl.col("open_time").is_between(anchor(moment, second), moment))
    assert len(reach) == WARMUP + 1801
    one = compute(reach, Window(start=moment, end=moment + second), second)
    assert_frame_equal(one, full.filter(open_time=moment), check_exact=True)


def test_recorded_months_are_their_days(recorded):
    full = whole(recorded, MINUTE)
    assert full.width == 1 + len(NAMES)
    for day in (datetime(2023, 3, 1, tzinfo=UTC), datetime(2023, 3, 24, tzinfo=UTC), datetime(2023, 3, 26, tzinfo=UTC)):
        reach = recorded.filter(pl.col("open_time").is_between(anchor(day, MINUTE), day + DAY, closed="left"))
        found = compute(reach, Window(start=day, end=day + DAY), MINUTE)
        expected = full.filter(pl.col("open_time").is_between(day, day + DAY, closed="left"))
        assert_frame_equal(found, expected, check_exact=True)
        assert sum(found.null_count().row(0)) == 0


@pytest.mark.parametrize("name", ["ema_12", "ema_26", "macd", "macd_signal", "macd_hist", "rsi_14", "atr_14", "adx_14"])
def test_where_it_started_vanishes_within_the_warm_up(walk_candles, name):
    """The reason for WARMUP: from two starts, recursive indicators agree to 1e-9."""
    frame = walk_candles(3000, seed=6, tick=0)
    late = by_name(columns_of(frame[3000 - WARMUP - 100 :]))[name][WARMUP:]
    early = by_name(columns_of(frame))[name][-100:]
    np.testing.assert_allclose(late, early, rtol=1e-9, atol=1e-9)


def test_the_join_between_two_days_does_not_show(recorded):
    """Each day starts anew from its anchor, and differs from one long run by less than 1e-9 of the price."""
    reach = recorded[: 5 * 1440]
    long = by_name(columns_of(reach))
    days = whole(reach, MINUTE)
    for name in ("ema_26", "atr_14", "rsi_14", "adx_14", "macd_signal"):
        np.testing.assert_allclose(days[name].to_numpy()[1440:], long[name][1440:], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("volume", [pytest.param(0.0, id="no trades"), pytest.param(7.0, id="constant volume")])
def test_a_flat_market_gives_finite_values_or_null(walk_candles, volume):
    price = {name: pl.lit(1234.56) for name in ("open", "high", "low", "close")}
    found = whole(walk_candles(1500, seed=1).with_columns(volume=pl.lit(volume), **price), MINUTE)
    for name in NAMES:
        values = found[name].drop_nulls()
        assert len(values) == 1500 - LOOKBACK[name]
        assert values.is_finite().all(), name
    last = found.row(-1, named=True)
    assert last["sma_20"] == pytest.approx(1234.56)
    assert last["ema_26"] == pytest.approx(1234.56)
    assert last["atr_14"] == last["obv_change"] == 0
    assert last["macd"] == pytest.approx(0, abs=1e-9)


def test_a_market_that_stops_and_starts_gives_finite_values(walk_candles):
    """What is left of running sums must not turn into roots or quotients of nothing."""
    is_still = pl.int_range(pl.len()).is_between(300, 900)
    frame = walk_candles(1400, seed=7, tick=0).with_columns(
        *[pl.when(is_still).then(pl.lit(200.1)).otherwise(name).alias(name) for name in ("high", "low", "close")],
        volume=pl.when(is_still).then(pl.lit(0.0)).otherwise(pl.col("volume") * 1e9 / 3),
    )
    found = whole(frame, MINUTE)[50:]
    for name in NAMES:
        assert found[name].is_finite().all(), name
        assert found[name].null_count() == 0, name
    assert (found["bb_upper"] >= found["bb_lower"]).all()
    assert 0 <= found["volume_sma_20"].min() < 1e-3  # of volumes of 1e10
    assert found["rsi_14"].is_between(0, 100).all()
    assert found["stoch_k"].is_between(-1e-9, 100 + 1e-9).all()


def test_after_a_long_outage_values_are_null_until_warm_again(walk_candles):
    frame = walk_candles(6000, seed=8)
    back = START + timedelta(minutes=4500)  # later than a day and its warm-up
    holed = frame.filter((pl.col("open_time") < START + timedelta(minutes=1000)) | (pl.col("open_time") >= back))
    found = whole(holed, MINUTE).filter(pl.col("open_time") >= back)
    for name in NAMES:
        assert found[name].is_null().to_list()[:60] == [i < LOOKBACK[name] for i in range(60)]


def test_a_short_outage_is_bridged(recorded):
    """80 minutes are missing before 14:00; the candles around the hole are neighbours."""
    outage_end = datetime(2023, 3, 24, 14, tzinfo=UTC)
    found = whole(recorded.filter(pl.col("open_time") >= datetime(2023, 3, 23, tzinfo=UTC)), MINUTE)
    around = recorded.filter(pl.col("open_time") <= outage_end)[-10:]
    assert around["open_time"][-2] == datetime(2023, 3, 24, 12, 39, tzinfo=UTC)
    assert found.filter(open_time=outage_end)["sma_10"].item() == pytest.approx(around["close"].mean(), rel=1e-12)


def test_an_empty_window_and_a_window_without_candles_give_no_rows(walk_candles):
    frame = walk_candles(100, seed=1)
    for start in (START, START + 5 * DAY):
        found = compute(frame, Window(start=start, end=start + (start > START) * DAY), MINUTE)
        assert found.columns == ["open_time", *NAMES]
        assert found.is_empty()


def test_formulas_equal_plain_lines(walk_candles):
    """The windowed ones by their definition, in rolling polars."""
    frame = walk_candles(300, seed=9, tick=0)
    close = pl.col("close")
    plain = frame.select(
        sma_50=close.rolling_mean(50),
        bb_upper=close.rolling_mean(20) + 2 * close.rolling_std(20, ddof=0),
        bb_lower=close.rolling_mean(20) - 2 * close.rolling_std(20, ddof=0),
        volume_sma_20=pl.col("volume").rolling_mean(20),
        obv_change=close.diff().sign() * pl.col("volume"),
        stoch_k=(
            (close - pl.col("low").rolling_min(14)) / (pl.col("high").rolling_max(14) - pl.col("low").rolling_min(14))
        ).rolling_mean(3)
        * 100,
    ).with_columns(stoch_d=pl.col("stoch_k").rolling_mean(3))
    found = whole(frame, MINUTE)
    for name in plain.columns:
        np.testing.assert_allclose(found[name].to_numpy()[60:], plain[name].to_numpy()[60:], rtol=1e-9, err_msg=name)


# Tables made by others, with the same definitions. Where the seed of a recursion differs the first `skip` rows are left
# out; tolerances are the rounding of the table, or what is left of its seed.
#   spy_with_macd (from row 179), spy_bollinger_bands, cs-bbands, cs-soo, RSI 14 Wilder, OBV: same seed or none
#   MACD 12 26, cs-macd: EMA seeded by its first price instead of a mean (cs), or both EMAs apart (Lean)
#   atr_wilder, adx: the first true range counts
# Not comparable: spy_atr, RSI 14 (plain means instead of Wilder's); cs-rsi, cs-atr, cs-atr2 (seeded by 0, or by the
# first range, and too short to forget it); spy_ema, SMA14/EMA14, stoch12k3 (other periods).
TABLES = [
    (
        "quantconnect_lean/spy_with_macd.txt",
        {"MACD": "macd", "Signal": "macd_signal", "Histogram": "macd_hist"},
        0,
        1e-5,
    ),
    ("quantconnect_lean/spy_with_indicators.txt", {"RSI 14 Wilder": "rsi_14"}, 0, 1e-5),
    ("quantconnect_lean/spy_with_indicators.txt", {"MACD 12 26": "macd"}, 150, 5e-4),
    ("quantconnect_lean/spy_atr_wilder.txt", {"Average True Range 14": "atr_14"}, 150, 1e-5),
    (
        "quantconnect_lean/spy_bollinger_bands.txt",
        {
            "Moving Average 20": "bb_middle",
            "Bollinger Bands® 20 2 Top": "bb_upper",
            "Bollinger Bands® 20 2 Bottom": "bb_lower",
        },
        0,
        1e-4,
    ),
    ("quantconnect_lean/spy_with_adx.txt", {"ADX 14": "adx_14"}, 250, 1e-4),
    ("quantconnect_lean/spy_with_obv.txt", {"OBV": "obv_change"}, 0, 1000),  # volumes of 1e8, 7 digits
    (
        "bukosabino_ta/cs-macd.csv",
        {"MACD_line": "macd", "MACD_signal": "macd_signal", "MACD_diff": "macd_hist", "short_ema": "ema_12"},
        105,
        1e-3,
    ),
    (
        "bukosabino_ta/cs-bbands.csv",
        {"MiddleBand": "bb_middle", "HighBand": "bb_upper", "LowBand": "bb_lower"},
        0,
        1e-6,
    ),
    ("bukosabino_ta/cs-soo.csv", {"SO_SIG": "stoch_k"}, 0, 1e-6),
    ("bukosabino_ta/cs-obv.csv", {"OBV": "obv_change"}, 0, 0),
]


@pytest.mark.parametrize(("file", "pairs", "skip", "tolerance"), TABLES, ids=[f"{t[0]} {min(t[1])}" for t in TABLES])
def test_agrees_with_tables_made_by_others(shared_data, file, pairs, skip, tolerance):
    table = pl.read_csv(shared_data / "indicators" / file, infer_schema=False, truncate_ragged_lines=True)
    table = table.rename(str.strip).select(pl.exclude("Date").cast(pl.Float64, strict=False))
    close = pl.coalesce("Close", (pl.col("High") + pl.col("Low")) / 2 if "High" in table.columns else None)
    frame = table.select(
        open_time=START + pl.int_range(pl.len()) * pl.lit(DAY),
        high=pl.col("High") if "High" in table.columns else close,
        low=pl.col("Low") if "Low" in table.columns else close,
        close=close,  # blank where the table does not need it
        volume=pl.col("Volume") if "Volume" in table.columns else 1.0,
    )
    found = whole(frame, DAY)
    for theirs, ours in pairs.items():
        expected = table[theirs].diff() if theirs == "OBV" else table[theirs]
        both = found.select(ours=ours).with_columns(theirs=expected)[skip:].drop_nulls()
        assert len(both) >= 10
        np.testing.assert_allclose(both["ours"], both["theirs"], rtol=0, atol=tolerance, err_msg=theirs)
