"""Candles from trades equal those that the venue made of them; quiet is what trade ids prove."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.market import trades as market_trades
from hindsight.market.candles import TIME
from hindsight.market.streams import Stream
from hindsight.market.trades import FROM_TRADES, TRADES, candles_from_trades, trade_frame, whole_candles

SECOND = Stream(venue="binance", symbol="ETH/USDT", timeframe="1s")
MINUTE = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
START = datetime(2024, 8, 9, tzinfo=UTC)


def trades(*ticks: tuple[int, int, float, float]) -> pl.DataFrame:
    """(id, ms after START, price, amount)."""
    return trade_frame(
        {"trade_id": number, "time_ms": 1_723_161_600_000 + ms, "price": price, "amount": amount, "side": "buy"}
        for number, ms, price, amount in ticks
    )


def seconds(candles: pl.DataFrame) -> dict[int, tuple[float, ...]]:
    assert dict(candles.schema) == dict(FROM_TRADES)
    return {(opens - START) // timedelta(seconds=1): tuple(values) for opens, *values in candles.rows()}


def test_a_candle_is_first_highest_lowest_last_and_the_sum() -> None:
    candles = candles_from_trades(
        trades((1, 0, 10.0, 0.1), (2, 500, 12.0, 0.2), (3, 999, 9.0, 0.3), (4, 1000, 11.0, 1.0)), SECOND
    )
    assert seconds(candles) == {0: (10.0, 12.0, 9.0, 9.0, 0.6), 1: (11.0, 11.0, 11.0, 11.0, 1.0)}


def test_sums_are_exact() -> None:
    many = trades(*((number, 0, 10.0, 0.1) for number in range(1000)))
    assert sum(many["amount"]) != 100.0
    assert seconds(candles_from_trades(many, SECOND))[0][4] == 100.0
    huge = trades(*((number, 0, 1e-8, 9e14) for number in range(1000)))
    assert seconds(candles_from_trades(huge, SECOND))[0][4] == pytest.approx(9e17, rel=1e-15)


LARGE = ([42_714_993.68648601], [32_901_124.54669222, 8_378_037.47080837], [9e7], [0.1] * 3)


@pytest.mark.parametrize("amounts", LARGE)
@pytest.mark.parametrize("later", LARGE)
def test_a_sum_that_floats_lose_is_counted_and_what_comes_later_does_not_change_it(
    amounts: list[float], later: list[float]
) -> None:
    truth = [float(sum(Decimal(str(amount)) for amount in each)) for each in (amounts, later)]
    table = trades(
        *((n, 0, 10.0, each) for n, each in enumerate(amounts)),
        *((9 + n, 1000, 10.0, each) for n, each in enumerate(later)),
    )
    assert [volume for *_, volume in seconds(candles_from_trades(table, SECOND)).values()] == truth


wholes = st.one_of(st.integers(0, 9), st.integers(0, 10**7), st.integers(0, 10**14))
exact_amounts = st.builds(
    lambda whole, parts: Decimal(whole) + Decimal(parts) / 10**8, wholes, st.integers(0, 10**8 - 1)
)


@given(st.lists(exact_amounts, min_size=1, max_size=30))
def test_a_volume_is_the_float_next_to_the_sum_of_the_amounts(amounts: list[Decimal]) -> None:
    told = [float(amount) for amount in amounts]  # of large ones a float holds no hundred-millionths
    truth = float(sum(round(Decimal(amount), 8) for amount in told))
    table = trades(*((number, 0, 10.0, amount) for number, amount in enumerate(told)))
    assert seconds(candles_from_trades(table, SECOND))[0][4] == pytest.approx(truth, rel=2**-52, abs=0)
    if truth < 2**53 / 10**8:
        assert seconds(candles_from_trades(table, SECOND))[0][4] == truth


@pytest.mark.parametrize("block", [1, 64, market_trades.BLOCK])
@pytest.mark.parametrize("jitter_ms", [0, 400])
def test_candles_are_those_of_a_plain_grouping(jitter_ms: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_trades, "BLOCK", block)
    chance, count = np.random.default_rng(0), 3000
    clock = np.cumsum(chance.integers(0, 60, count)) + chance.integers(0, jitter_ms + 1, count)
    price, amount = chance.integers(1, 10**6, count) / 100, chance.integers(1, 10**11, count) / 10**8
    table = trades(*zip(range(count), clock.tolist(), price.tolist(), amount.tolist(), strict=True))
    assert table["time"].is_sorted() == (jitter_ms == 0)
    price, amount = pl.col("price"), pl.col("amount").cast(pl.Decimal(38, 8))
    plainly = table.group_by(open_time=pl.col("time").dt.truncate("1s")).agg(
        open=price.first(), high=price.max(), low=price.min(), close=price.last(), volume=amount.sum()
    )
    assert candles_from_trades(table, SECOND).equals(plainly.sort("open_time").cast(FROM_TRADES))


@pytest.mark.parametrize("column", ["time", "price", "amount"])
def test_a_trade_that_lacks_something_is_refused(column: str) -> None:
    table = trades((1, 0, 10.0, 1.0), (2, 500, 11.0, 1.0), (3, 999, 12.0, 1.0))
    second = pl.col("trade_id") == 2
    for nothing in [None] if column == "time" else [None, float("nan"), float("inf")]:
        broken = table.with_columns(pl.when(second).then(nothing).otherwise(pl.col(column)).alias(column))
        with pytest.raises(ValueError, match="each have a time, a price and an amount"):
            candles_from_trades(broken, SECOND)


def test_trades_of_one_millisecond_are_ordered_by_their_ids_and_each_counts_once() -> None:
    candles = candles_from_trades(
        trades((3, 0, 30.0, 1.0), (1, 0, 10.0, 1.0), (2, 0, 20.0, 1.0), (2, 0, 20.0, 1.0)), SECOND
    )
    assert seconds(candles) == {0: (10.0, 30.0, 10.0, 30.0, 3.0)}


def test_a_trade_whose_time_runs_back_over_an_edge_stands_in_the_candle_of_its_time() -> None:
    candles = candles_from_trades(
        trades((1, 900, 10.0, 1.0), (2, 1000, 20.0, 1.0), (3, 999, 30.0, 1.0), (4, 1001, 40.0, 1.0)), SECOND
    )
    assert seconds(candles) == {0: (10.0, 30.0, 10.0, 30.0, 2.0), 1: (20.0, 40.0, 20.0, 40.0, 2.0)}


@pytest.mark.parametrize(
    ("ticks", "whole", "quiet"),
    [
        pytest.param([(1, 100), (2, 1100), (3, 2100)], {1}, set(), id="the first and the last may be cut"),
        pytest.param([(1, 100), (2, 4100), (3, 5100)], {1, 2, 3, 4}, {1, 2, 3}, id="contiguous ids prove the quiet"),
        pytest.param([(1, 100), (3, 4100), (4, 5100)], set(), set(), id="a hole in the ids proves nothing"),
        pytest.param(
            [(1, 100), (2, 1100), (4, 1200), (5, 2100), (6, 3100)], {2}, set(), id="a hole inside a second spoils it"
        ),
        pytest.param(
            [(1, 100), (2, 1100), (5, 3100), (6, 4100), (7, 5100)], {4}, set(), id="a hole spoils both its sides"
        ),
        pytest.param([(1, 100)], set(), set(), id="one trade"),
        pytest.param([], set(), set(), id="none"),
    ],
)
def test_only_what_the_ids_prove_is_whole(ticks: list[tuple[int, int]], whole: set[int], quiet: set[int]) -> None:
    found = seconds(whole_candles(trades(*((number, ms, 10.0 + number, 1.0) for number, ms in ticks)), SECOND))
    assert set(found) == whole
    assert {at for at, (*_, volume) in found.items() if volume == 0} == quiet


def test_a_quiet_candle_stands_at_the_close_before_it() -> None:
    found = seconds(whole_candles(trades((1, 0, 10.0, 1.0), (2, 900, 12.0, 1.0), (3, 3000, 7.0, 1.0)), SECOND))
    assert found == {1: (12.0, 12.0, 12.0, 12.0, 0.0), 2: (12.0, 12.0, 12.0, 12.0, 0.0)}


ticks = st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=60)


@given(ticks, st.data())
def test_a_candle_proven_by_some_trades_is_the_candle_of_all_of_them(steps, data) -> None:
    after_ms, heard = 0, []
    for number, (step, price, amount) in enumerate(steps):
        after_ms += step
        heard.append((number, after_ms, float(price), amount / 10))
    everything = trades(*heard)
    lost = data.draw(st.sets(st.integers(0, len(heard) - 1), max_size=len(heard) // 2), label="lost")
    known = everything.filter(~pl.col("trade_id").is_in(list(lost)))
    truth = seconds(candles_from_trades(everything, SECOND))
    for at, candle in seconds(whole_candles(known, SECOND)).items():
        if candle[4] == 0:
            assert at not in truth
        else:
            assert candle == truth[at]


@given(ticks, st.integers(0, 60_000))
def test_trades_after_t_change_no_candle_that_was_whole_at_t(steps, cut: int) -> None:
    after_ms, heard = 0, []
    for number, (step, price, amount) in enumerate(steps):
        after_ms += step
        heard.append((number, after_ms, float(price), amount / 10))
    before = seconds(whole_candles(trades(*(tick for tick in heard if tick[1] < cut)), SECOND))
    after = seconds(whole_candles(trades(*heard), SECOND))
    assert before.items() <= after.items()


# Recorded ------------------------------------------------------------------------------------------------------------


def _decimal(volumes: pl.Series) -> pl.Series:
    """Volumes without the noise of binary sums: eight digits are the venue's."""
    return pl.Series(volumes.name, [round(volume, 8) for volume in volumes])


def recorded(shared_data: Path, coin: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The recorded trades, and the candles of a second that came with them."""
    name = f"{coin}usdt_trades_binance_spot_20240808T2354.parquet"
    table = pl.read_parquet(shared_data / "order_book" / name).with_columns(time=(pl.col("ts_ms") * 1000).cast(TIME))
    candles = pl.read_parquet(shared_data / "candles" / f"{coin}usdt_1s_binance_spot_20240808T2354_from_trades.parquet")
    candles = candles.with_columns(_decimal(candles["volume"]), open_time=(pl.col("ts_ms") * 1000).cast(TIME))
    candles = candles.select(FROM_TRADES.names())
    return table.rename({"qty": "amount"}).select(TRADES.names()), candles


@pytest.mark.parametrize(("coin", "quiet"), [("eth", 41), ("btc", 6)])
def test_seconds_from_recorded_trades_are_the_recorded_seconds(shared_data: Path, coin: str, quiet: int) -> None:
    table, candles = recorded(shared_data, coin)
    found = whole_candles(table, SECOND)
    traded = pl.col("volume") > 0
    assert found.filter(traded).equals(candles)
    assert found.filter(~traded).height == quiet
    assert found["open_time"].diff().drop_nulls().unique().to_list() == [timedelta(seconds=1)]


@pytest.mark.parametrize("coin", ["eth", "btc"])
def test_minutes_from_recorded_trades_are_the_recorded_seconds_added_up(shared_data: Path, coin: str) -> None:
    table, candles = recorded(shared_data, coin)
    found = whole_candles(table, MINUTE)
    added = (
        candles.group_by_dynamic("open_time", every="1m", closed="left", label="left")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        .cast(FROM_TRADES)
    )
    added = added.with_columns(_decimal(added["volume"]))
    assert found.height == 10
    assert found.equals(added.filter(pl.col("open_time").is_in(found["open_time"].implode())))
