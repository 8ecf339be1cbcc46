"""The simulated market behind the sockets: the candles of SimulatedVenue, and trades that add up to them."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any

import polars as pl
import pytest

from hindsight.exchange.simulated import SimulatedVenue
from hindsight.exchange.venue.market import Event, NotListed, Pace
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.streams import Stream, Window, from_ms, to_ms

CORRECTED = datetime(2024, 3, 1, 3, 59, tzinfo=UTC)
CORRECTED_AT = datetime(2024, 3, 1, 4, 3, 54, tzinfo=UTC)
OUTAGE = Window(start=datetime(2024, 3, 2, 1, 39, tzinfo=UTC), end=datetime(2024, 3, 2, 1, 44, tzinfo=UTC))
AROUND_CORRECTION = Window(start=CORRECTED - timedelta(minutes=20), end=CORRECTED + timedelta(minutes=70))
AROUND_OUTAGE = Window(start=OUTAGE.start - timedelta(minutes=10), end=OUTAGE.end + timedelta(minutes=30))
OVER_MIDNIGHT = Window(start=datetime(2024, 3, 1, 23, 55, tzinfo=UTC), end=datetime(2024, 3, 2, 0, 10, tzinfo=UTC))
USUAL = Pace.at(1.0)


def _events(market: SecondsMarket, channel: str, window: Window, pace: Pace = USUAL) -> Iterator[Event]:
    events = market.events("ETHUSDT", channel, to_ms(window.start), pace)
    return takewhile(lambda event: event.at_ms <= to_ms(window.end), events)


def _klines(market: SecondsMarket, timeframe: str, window: Window) -> list[Any]:
    return [event.message for event in _events(market, f"kline_{timeframe}", window)]


def _row(kline: Any) -> tuple[float, ...]:
    return tuple(float(kline[name]) for name in "ohlcv")


def _truth(timeframe: str, window: Window) -> pl.DataFrame:
    stream = Stream(venue="simulated", symbol="ETH/USDT", timeframe=timeframe)
    return pl.concat(SimulatedVenue(seed=19, phi=0.3).candles(stream, window))


@pytest.mark.parametrize("timeframe", ["1s", "1m", "5m", "1h"])
@pytest.mark.parametrize(
    "window",
    [
        pytest.param(AROUND_CORRECTION, id="with a correction"),
        pytest.param(AROUND_OUTAGE, id="with an outage"),
        pytest.param(OVER_MIDNIGHT, id="over midnight"),
    ],
)
def test_closing_messages_are_the_deliveries_of_the_simulated_venue(
    market: SecondsMarket, timeframe: str, window: Window
) -> None:
    # A stream joined at the window's start also closes the candle that was open then.
    step = Stream(venue="simulated", symbol="ETH/USDT", timeframe=timeframe).step
    truth = _truth(timeframe, Window(start=window.start - step + timedelta(microseconds=1), end=window.end))
    truth = truth.filter(pl.col("recorded_at") > window.start).sort("recorded_at", "open_time")
    expected = [(to_ms(row[0]), to_ms(row[7]), row[1:6]) for row in truth.iter_rows()]
    closing = [each for each in _klines(market, timeframe, window) if each["k"]["x"]]
    assert [(each["k"]["t"], each["E"], _row(each["k"])) for each in closing] == expected
    assert len(expected) > 0 or window is OVER_MIDNIGHT


def test_a_correction_is_a_further_closing_message_when_it_is_known(market: SecondsMarket) -> None:
    klines = [each for each in _klines(market, "1m", AROUND_CORRECTION) if each["k"]["t"] == to_ms(CORRECTED)]
    first, second = [each for each in klines if each["k"]["x"]]
    assert first["E"] == to_ms(CORRECTED) + 60_000
    assert second["E"] == to_ms(CORRECTED_AT)
    assert _row(first["k"]) != _row(second["k"])
    assert first["k"]["c"] == second["k"]["c"]


def test_nothing_is_sent_in_an_outage_but_what_closes(market: SecondsMarket) -> None:
    inside = Window(start=OUTAGE.start + timedelta(milliseconds=1), end=OUTAGE.end - timedelta(milliseconds=1))
    for channel in ("kline_1m", "kline_1s", "trade", "depth@100ms", "bookTicker"):
        events = takewhile(
            lambda event: event.at_ms <= to_ms(inside.end),
            market.events("ETHUSDT", channel, to_ms(inside.start), USUAL),
        )
        sent = [event for event in events if channel != "bookTicker" or event.at_ms > to_ms(inside.start) + 1000]
        assert not sent, channel
    five = [each for each in _klines(market, "5m", AROUND_OUTAGE) if each["k"]["x"]]
    opens = [from_ms(each["k"]["t"]).minute for each in five]
    assert 35 in opens  # closed by what was delivered of it before
    assert 40 in opens


@pytest.mark.parametrize("timeframe", ["1s", "1m", "5m"])
def test_a_candle_forms_towards_its_close(market: SecondsMarket, timeframe: str) -> None:
    window = Window(start=AROUND_CORRECTION.start, end=CORRECTED)  # nothing is corrected yet
    klines = [each["k"] for each in _klines(market, timeframe, window)]
    closed = {kline["t"]: _row(kline) for kline in klines if kline["x"]}
    for before, after in pairwise(klines):
        if before["t"] == after["t"]:
            was, now = _row(before), _row(after)
            assert (was[0], now[1] >= was[1], now[2] <= was[2], now[4] >= was[4]) == (now[0], True, True, True)
    forming = [kline for kline in klines if not kline["x"] and kline["t"] in closed]
    assert forming
    assert all(_row(kline)[0] == closed[kline["t"]][0] for kline in forming)


def test_the_next_candle_opens_a_tenth_of_a_second_after_the_close(market: SecondsMarket) -> None:
    events = list(_events(market, "kline_1m", Window(start=CORRECTED - timedelta(minutes=9), end=CORRECTED)))
    for closing, opening in pairwise(events):
        if closing.message["k"]["x"]:  # pyright: ignore
            assert opening.at_ms == closing.at_ms + 100
            assert opening.message["k"]["t"] == closing.at_ms  # pyright: ignore


def test_rest_shows_what_is_known_and_the_forming_candle_last(market: SecondsMarket) -> None:
    opened = to_ms(CORRECTED)
    now = opened + 130_000
    before = market.klines("ETHUSDT", "1m", opened - 60_000, now, now)
    after = market.klines("ETHUSDT", "1m", opened - 60_000, now, to_ms(CORRECTED_AT))
    assert [kline.open_ms - opened for kline in before] == [-60_000, 0, 60_000, 120_000]
    assert before[1].high != after[1].high or before[1].low != after[1].low
    assert [kline.open_ms for kline in after][:3] == [kline.open_ms for kline in before][:3]
    sent = [event for event in _events(market, "kline_1m", Window(start=CORRECTED, end=from_ms(now)))]
    last = [event for event in sent if event.at_ms == now][-1]
    assert (before[-1].close, before[-1].volume) == (last.message["k"]["c"], last.message["k"]["v"])  # pyright: ignore


def _trades(market: SecondsMarket, window: Window) -> pl.DataFrame:
    rows = [
        (each["t"], each["T"], each["E"], float(each["p"]), float(each["q"]))
        for each in (event.message for event in _events(market, "trade", window))
    ]
    return pl.DataFrame(rows, schema=["id", "time", "event", "price", "amount"], orient="row")


def _candles_of(trades: pl.DataFrame, step_ms: int) -> list[tuple[float, ...]]:
    """Candles added up from trades, in the order of their ids."""
    trades = trades.sort("id").with_columns(open_ms=pl.col("time") // step_ms * step_ms)
    return (
        trades.group_by("open_ms", maintain_order=True)
        .agg(
            o=pl.col("price").first(),
            h=pl.col("price").max(),
            l=pl.col("price").min(),
            c=pl.col("price").last(),
            v=pl.col("amount").sum(),
        )
        .rows()
    )


@pytest.mark.parametrize("timeframe", ["1s", "1m"])
def test_trades_add_up_to_the_candles_as_they_stand_in_the_end(market: SecondsMarket, timeframe: str) -> None:
    window = Window(start=CORRECTED - timedelta(minutes=5), end=CORRECTED + timedelta(minutes=10))
    trades = _trades(market, window)
    truth = _truth(timeframe, window).sort("open_time", "revision").unique("open_time", keep="last").sort("open_time")
    expected = [(to_ms(row[0]), *row[1:6]) for row in truth.filter(pl.col("volume") > 0).iter_rows()]
    step_ms = 1000 if timeframe == "1s" else 60_000
    assert _candles_of(trades, step_ms) == expected
    late = trades.filter(pl.col("event") > pl.col("time"))
    assert late["event"].unique().to_list() == [to_ms(CORRECTED_AT)]
    on_time = _candles_of(trades.filter(pl.col("event") == pl.col("time")), step_ms)
    first = _truth(timeframe, window).filter(pl.col("revision") == 0, pl.col("volume") > 0)
    assert on_time == [(to_ms(row[0]), *row[1:6]) for row in first.iter_rows()]


def test_trade_ids_have_no_hole_but_over_an_outage(market: SecondsMarket) -> None:
    over_midnight = _trades(market, OVER_MIDNIGHT)
    assert over_midnight["id"].diff().drop_nulls().unique().to_list() == [1]
    assert over_midnight["time"].is_sorted()
    assert over_midnight.group_by(pl.col("time") // 1000).len()["len"].median() >= 3
    steps = Counter(_trades(market, AROUND_OUTAGE)["id"].diff().drop_nulls().to_list())
    assert steps.pop(1) > 1000
    assert list(steps.values()) == [1]
    assert min(steps) > 5 * 200


def test_candles_name_their_first_and_last_trade(market: SecondsMarket) -> None:
    window = Window(start=CORRECTED - timedelta(minutes=5), end=CORRECTED + timedelta(minutes=10))
    trades = _trades(market, window).with_columns(second=pl.col("time") // 1000)
    for timeframe in ("1s", "1m", "5m"):
        klines = [each["k"] for each in _klines(market, timeframe, window)]
        for kline in klines:
            of_candle = trades.filter(pl.col("time").is_between(kline["t"], kline["T"]))
            if kline["t"] < to_ms(window.start) or not kline["x"]:
                continue
            ids = of_candle["id"]
            named = (ids.min(), ids.max()) if len(ids) else (-1, -1)
            assert (kline["f"], kline["L"]) == named
        traded = [kline for kline in klines if kline["x"] and kline["n"]]
        told = {kline["t"]: kline for kline in traded}  # the last word on each
        assert all(a["L"] + 1 == b["f"] for a, b in pairwise(told.values()))
        assert all(kline["n"] == kline["L"] - kline["f"] + 1 for kline in told.values())


@pytest.mark.parametrize("channel", ["kline_1m", "kline_1s", "trade", "aggTrade", "depth@100ms"])
def test_a_stream_joined_later_goes_on_as_the_one_joined_before(market: SecondsMarket, channel: str) -> None:
    later = Window(start=AROUND_CORRECTION.start + timedelta(seconds=90, milliseconds=350), end=AROUND_CORRECTION.end)
    since = to_ms(later.start)
    long = [event for event in islice(_events(market, channel, AROUND_CORRECTION), 4000) if event.at_ms > since]
    short = list(islice(_events(market, channel, later), 200))
    short = [event for event in short if event.at_ms > since]
    skip = 1 if channel.startswith("depth") else 0  # the first difference spans less
    assert short[skip:] == long[skip : len(short)]
    again = simulated_market(("ETH/USDT",), 19, 0.3)
    assert list(islice(_events(again, channel, later), 50)) == list(islice(_events(market, channel, later), 50))


def test_a_fast_clock_gets_fewer_forming_candles_and_every_close(market: SecondsMarket) -> None:
    window = Window(start=CORRECTED - timedelta(minutes=10), end=CORRECTED)
    for timeframe, step_ms in (("1s", 1000), ("1m", 60_000)):
        slow, fast = (
            list(_events(market, f"kline_{timeframe}", window, Pace.at(speed, step_ms))) for speed in (1.0, 60.0)
        )
        assert len([event for event in fast if event.is_forming]) <= 600 / 60 * 12  # 10 s of ours
        closes = [[event for event in events if not event.is_forming] for events in (slow, fast)]
        assert closes[0] == closes[1]


@pytest.mark.parametrize(
    ("symbol", "channel"), [("ETHUSDT", "kline_3m"), ("ETHUSDT", "ticker"), ("ADAUSDT", "trade"), ("ADAUSDT", "depth")]
)
def test_what_is_not_listed_is_said_to_be_so(market: SecondsMarket, symbol: str, channel: str) -> None:
    with pytest.raises(NotListed):
        market.events(symbol, channel, to_ms(CORRECTED), USUAL)
