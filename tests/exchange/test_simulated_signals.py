"""The signals of the simulated venue: each can be used as far as is stated, where it is planted; nothing else can."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal

from hindsight.exchange.simulated import OPENING, SimulatedVenue
from hindsight.exchange.simulated_signals import Signal
from hindsight.exchange.sources import open_source
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.candles import CANDLES, accept
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.settings import load

START = datetime(2024, 2, 28, tzinfo=UTC)  # its chain's block ends two days later
LEAD_SECONDS, LEAN_SECONDS = 2, 1
PLANTED = [pytest.param("lead", id="lead"), pytest.param("imbalance", id="imbalance")]
# Of the candles from 2024-03-01 to the 3rd, all columns: seed, phi, symbol, timeframe, digest.
GOLDEN = [
    (7, 0.3, "ETH/USDT", "1s", "fb0e774867e87812"),
    (7, 0.3, "ETH/USDT", "1m", "54eb9bb21af3cb68"),
    (19, -0.4, "BTC/USDT", "1s", "0172dc23bfd891c7"),
    (19, -0.4, "SOL/USDT", "1m", "57310f7b3471d5c9"),
]
Floats = NDArray[np.float64]


def _stream(timeframe: str = "1s", symbol: str = "ETH/USDT") -> Stream:
    return Stream(venue="simulated", symbol=symbol, timeframe=timeframe)


def _candles(venue: SimulatedVenue, stream: Stream, days: float, start: datetime = START) -> pl.DataFrame:
    """What was first delivered."""
    window = Window(start=start, end=start + timedelta(days=days))
    frames = pl.concat([pl.DataFrame(schema=CANDLES), *venue.candles(stream, window)])
    return frames.filter(pl.col("revision") == 0)


def _seen(venue: SimulatedVenue, timeframe: str, days: float, symbol: str = "ETH/USDT") -> dict[str, Floats]:
    """The returns of a symbol's candles, and beside each those of BTC and the book at its end."""
    ret = pl.col("close").log().diff()
    own = _candles(venue, _stream(timeframe, symbol), days).select("open_time", own=ret)
    btc = _candles(venue, _stream(timeframe, "BTC/USDT"), days).select("open_time", btc=ret)
    both = own.join(btc, on="open_time")
    if timeframe == "1s":
        window = Window(start=START, end=START + timedelta(days=days))
        books = pl.concat(venue.order_book(_stream(symbol=symbol), window))
        both = both.join(books.select("imbalance", open_time="second"), on="open_time")
    return {name: both[name].to_numpy().astype(np.float64)[1:] for name in both.columns[1:]}


def _right(told: Floats, returns: Floats, lag: int) -> float:
    """How often the sign of `told` was that of the return `lag` candles later, of those that have one."""
    told, later = np.sign(told[:-lag]), np.sign(returns[lag:])
    moved = (told != 0) & (later != 0)
    return float((told == later)[moved].mean())


def _noise(returns: Floats) -> float:
    """Four standard errors of a share of so many signs: 0.7 points on a day of seconds."""
    return 4 * 0.5 / len(returns) ** 0.5


@pytest.mark.parametrize(("seed", "phi", "symbol", "timeframe", "digest"), GOLDEN)
def test_the_market_with_momentum_is_the_one_that_it_always_was(
    seed: int, phi: float, symbol: str, timeframe: str, digest: str
) -> None:
    start = datetime(2024, 3, 1, tzinfo=UTC)
    stream, window = _stream(timeframe, symbol), Window(start=start, end=start + timedelta(days=2))
    frame = pl.concat(SimulatedVenue(seed, phi).candles(stream, window))
    found = sha256()
    for name in CANDLES:
        found.update(frame[name].to_physical().to_numpy().tobytes())
    assert found.hexdigest()[:16] == digest
    assert_frame_equal(pl.concat(SimulatedVenue(seed, phi, "momentum").candles(stream, window)), frame)


def test_each_signal_says_where_it_is_and_how_far_it_can_be_used() -> None:
    said = {signal: SimulatedVenue(7, 0.3, signal) for signal in ("momentum", "lead", "imbalance", "none")}
    assert {name: venue.signal_timeframe for name, venue in said.items()} == {
        "momentum": "1m",
        "lead": "1s",
        "imbalance": "1s",
        "none": None,
    }
    optimum = pytest.approx(0.5 + np.arcsin(0.3) / np.pi)
    assert [said[name].optimal_accuracy for name in ("momentum", "lead", "imbalance")] == [optimum] * 3
    assert said["none"].optimal_accuracy == 0.5


@pytest.mark.parametrize("symbol", ["ETH/USDT", "SOL/USDT"])
@pytest.mark.parametrize("phi", [0.3, -0.6])
def test_btc_tells_the_next_second_of_other_symbols_as_well_as_is_stated(symbol: str, phi: float) -> None:
    venue = SimulatedVenue(7, phi, "lead")
    seen = _seen(venue, "1s", 1, symbol)
    right = _right(np.sign(phi) * seen["btc"], seen["own"], LEAD_SECONDS)
    assert abs(right - venue.optimal_accuracy) < 0.01
    for block in ("own", "btc", "imbalance"):
        for lag in (1, 2, 3):
            if (block, lag) != ("btc", LEAD_SECONDS):
                assert abs(_right(seen[block], seen["own"], lag) - 0.5) < _noise(seen["own"]), (block, lag)


def test_nothing_tells_the_next_second_of_the_leader() -> None:
    seen = _seen(SimulatedVenue(7, 0.3, "lead"), "1s", 1)
    for block in ("own", "btc"):
        for lag in (1, 2, 3):
            assert abs(_right(seen[block], seen["btc"], lag) - 0.5) < _noise(seen["btc"]), (block, lag)


@pytest.mark.parametrize("symbol", ["ETH/USDT", "SOL/USDT"])
@pytest.mark.parametrize("phi", [0.3, -0.6])
def test_the_order_book_tells_the_next_second_as_well_as_is_stated(symbol: str, phi: float) -> None:
    venue = SimulatedVenue(7, phi, "imbalance")
    seen = _seen(venue, "1s", 1, symbol)
    right = _right(np.sign(phi) * seen["imbalance"], seen["own"], LEAN_SECONDS)
    assert abs(right - venue.optimal_accuracy) < 0.01
    for block in ("own", "btc", "imbalance"):
        for lag in (1, 2, 3):
            if (block, lag) != ("imbalance", LEAN_SECONDS):
                assert abs(_right(seen[block], seen["own"], lag) - 0.5) < _noise(seen["own"]), (block, lag)


def test_the_order_book_of_btc_tells_its_next_second_and_not_that_of_eth() -> None:
    venue = SimulatedVenue(7, 0.3, "imbalance")
    seen, eth = _seen(venue, "1s", 1, "BTC/USDT"), _seen(venue, "1s", 1)["own"]
    assert abs(_right(seen["imbalance"], seen["own"], LEAN_SECONDS) - venue.optimal_accuracy) < 0.01
    shared = min(len(eth), len(seen["own"]))  # neither has an outage on this day
    assert abs(_right(seen["imbalance"][:shared], eth[:shared], LEAN_SECONDS) - 0.5) < _noise(eth)


@pytest.mark.parametrize(("timeframe", "days"), [("1s", 1), ("1m", 60), ("15m", 400)])
def test_without_a_signal_every_sign_is_a_fair_coin(timeframe: str, days: float) -> None:
    seen = _seen(SimulatedVenue(7, 0.3, "none"), timeframe, days)
    assert abs(np.mean(seen["own"][seen["own"] != 0] > 0) - 0.5) < _noise(seen["own"])
    for block, told in seen.items():
        for lag in (1, 2, 3):
            assert abs(_right(told, seen["own"], lag) - 0.5) < _noise(told), (block, lag)


@pytest.mark.parametrize("signal", PLANTED)
def test_a_day_made_by_itself_is_the_day_of_the_whole_run(signal: Signal) -> None:
    venue = SimulatedVenue(7, 0.3, signal)
    whole = _candles(venue, _stream(), 4)
    for day in (3, 0, 2, 1):
        alone = _candles(SimulatedVenue(7, 0.3, signal), _stream(), 1, START + timedelta(days=day))
        assert_frame_equal(alone, whole.filter(pl.col("open_time").dt.date() == (START + timedelta(days=day)).date()))
    assert_frame_equal(_candles(venue, _stream(), 0.4), whole.head(round(0.4 * 86_400)))
    assert_frame_equal(accept(whole, _stream())[0], whole)


@pytest.mark.parametrize("signal", PLANTED)
def test_minutes_and_days_add_up_from_the_seconds_which_all_trade(signal: Signal) -> None:
    venue = SimulatedVenue(7, 0.3, signal)
    window = Window(start=START, end=START + timedelta(days=3))
    seconds = _candles(venue, _stream(), 3)
    assert seconds["volume"].min() > 0
    late = pl.concat(venue.candles(_stream("1m"), window)).filter(pl.col("revision") > 0)
    for timeframe in ("1m", "1d"):
        rolled = seconds.group_by_dynamic("open_time", every=timeframe).agg(
            pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()
        )
        candles = _candles(venue, _stream(timeframe), 3)
        on_time = pl.col("open_time").is_in(late["open_time"].dt.truncate(timeframe).implode()).not_()
        assert_frame_equal(candles.filter(on_time).select(rolled.columns), rolled.filter(on_time), check_exact=True)


@pytest.mark.parametrize("signal", PLANTED)
def test_a_market_stays_well_behaved_over_a_year(signal: Signal) -> None:
    venue = SimulatedVenue(7, 0.3, signal)
    days = _candles(venue, _stream("1d"), 365, OPENING)
    assert 1_000 < days["low"].min() < days["high"].max() < 9_000
    assert all(abs(after["open"] - before["close"]) < 3 for before, after in pairwise(days.iter_rows(named=True)))
    spread = days["close"].log().diff().std()
    assert 0.01 < spread < 0.03
    minutes = _candles(venue, _stream("1m"), 60, OPENING)["close"].log().diff()
    plain = _candles(SimulatedVenue(7, 0.0), _stream("1m"), 60, OPENING)["close"].log().diff()
    assert minutes.std() == pytest.approx(plain.std(), rel=0.02)


@pytest.mark.parametrize("signal", PLANTED)
def test_outages_and_late_trades_remain(signal: Signal) -> None:
    window = Window(start=OPENING, end=OPENING + timedelta(days=60))
    minutes = pl.concat(SimulatedVenue(7, 0.3, signal).candles(_stream("1m"), window))
    assert 10 <= (minutes["revision"] > 0).sum() <= 35
    holes = minutes.filter(pl.col("revision") == 0)["open_time"].diff().dt.total_minutes()
    assert 10 <= (holes > 1).sum() <= 35


@pytest.mark.parametrize("signal", PLANTED)
def test_the_live_venue_closes_the_same_candles(signal: Signal) -> None:
    market: SecondsMarket = simulated_market(("ETH/USDT",), 7, 0.3, signal)
    venue, opened = SimulatedVenue(7, 0.3, signal), to_ms(START)
    for timeframe, length in (("1s", 120_000), ("1m", 600_000)):
        shown = market.klines("ETHUSDT", timeframe, opened, opened + length - 1, opened + length)
        expected = _candles(venue, _stream(timeframe), length / 86_400_000)
        rows = [
            (each.open_ms, *map(float, (each.open, each.high, each.low, each.close, each.volume))) for each in shown
        ]
        assert rows == [(to_ms(row[0]), *row[1:6]) for row in expected.iter_rows()]
    assert len(market.trades("ETHUSDT", opened, opened + 59_999, opened + 60_000)) == 256


def test_another_signal_is_another_venue_whose_source_is_opened_with_it() -> None:
    assert load(simulated_signal="momentum").venue == "simulated"
    assert load(simulated_signal="lead").venue == "simulated-lead-7-0.3"
    assert load(simulated_signal="none", simulated_seed=8).venue == "simulated-none-8-0.3"
    assert load(simulated_seed=8).venue == "simulated-8-0.3"
    settings = load(simulated_signal="imbalance", simulated_phi=0.2)
    source = open_source(settings)
    assert isinstance(source, SimulatedVenue)
    assert (source.signal, source.phi, source.sizes) == ("imbalance", 0.2, {"ETH": 1.0, "BTC": 10.0})
    window = Window(start=START, end=START + timedelta(minutes=1))
    stream = Stream(venue=settings.venue, symbol="ETH/USDT", timeframe="1s")
    assert pl.concat(source.order_book(stream, window))["venue"].unique().to_list() == ["simulated-imbalance-7-0.2"]
