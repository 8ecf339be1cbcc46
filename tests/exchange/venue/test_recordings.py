"""Recorded markets: sessions played as they were sent, and minutes whose candles stay what was recorded."""

import asyncio
import gzip
import json
from collections.abc import Callable
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any

import ccxt.pro
import polars as pl
import pytest

from hindsight.errors import ArchiveUnreadable, SettingRefused
from hindsight.exchange.ccxt_urls import binance_urls
from hindsight.exchange.venue.market import Pace
from hindsight.exchange.venue.recorded_minutes import minutes_market
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.server import serve
from hindsight.exchange.venue.session_market import SessionMarket, session_market

SYMBOLS = ("ETH/USDT", "BTC/USDT")
USUAL = Pace.at(1.0)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
OUTAGE = 1679661600000  # 2023-03-24 12:40, for 80 minutes
NEW_YEAR_2022 = 1640995200000


@pytest.fixture(scope="session")
def sessions(shared_data: Path) -> Path:
    folder = shared_data / "messages" / "binance_spot_recording"
    if not folder.is_dir():
        pytest.skip(f"recorded messages are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def session(sessions: Path) -> SessionMarket:
    return session_market(sessions, SYMBOLS)


@pytest.fixture(scope="session")
def minutes(shared_data: Path) -> SecondsMarket:
    return minutes_market(shared_data / "candles", "binance", SYMBOLS)


def _wire(sessions: Path, stream: str) -> list[Any]:
    """The messages of one stream, straight from the file."""
    (path,) = sessions.glob(f"*{stream.partition('@')[0]}*.gz")
    with gzip.open(path, "rt") as lines:
        told = [json.loads(line.partition(" ")[2]) for line in lines]
    return [each["data"] for each in told if each.get("stream") == stream]


@pytest.mark.parametrize("channel", ["trade", "depth@100ms", "bookTicker"])
@pytest.mark.parametrize("symbol", ["ETHUSDT", "BTCUSDT"])
def test_a_session_is_played_word_for_word_at_its_event_times(
    session: SessionMarket, sessions: Path, symbol: str, channel: str
) -> None:
    expected = _wire(sessions, f"{symbol.lower()}@{channel}")
    events = list(session.events(symbol, channel, 0, USUAL))
    assert [event.message for event in events] == expected
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(events))
    if channel != "bookTicker":
        assert all(0 <= event.at_ms - event.message["E"] < 100 for event in events)  # pyright: ignore
    later = list(session.events(symbol, channel, events[1000].at_ms, USUAL))
    assert later[-1] == events[-1]
    assert all(event.at_ms >= events[1000].at_ms for event in later)


def test_the_book_over_rest_agrees_with_the_recorded_best_prices(session: SessionMarket) -> None:
    opening = session.opening_ms
    best = {event.message["u"]: event.message for event in session.events("ETHUSDT", "bookTicker", 0, USUAL)}
    agreed = checked = 0
    for offset in range(0, 300_000, 500):
        book = session.book("ETHUSDT", opening + offset, 10)
        assert float(book.bids[0][0]) < float(book.asks[0][0])
        if (told := best.get(book.last_update_id)) is not None:
            checked += 1
            agreed += (tuple(book.bids[0]), tuple(book.asks[0])) == ((told["b"], told["B"]), (told["a"], told["A"]))
    assert checked > 50
    assert agreed >= 0.99 * checked
    earlier = session.book("ETHUSDT", opening, 10)  # the clock of another venue over the same recording
    assert earlier.last_update_id < book.last_update_id
    assert len(session.book("ETHUSDT", opening, 5000).bids) > 900


def test_a_sessions_candles_are_those_published_later(session: SessionMarket, shared_data: Path) -> None:
    seconds = pl.read_parquet(next((shared_data / "candles").glob("ethusdt_1s_*.parquet"))).rows_by_key(
        "ts_ms", unique=True
    )
    opening = session.opening_ms
    klines = session.klines("ETHUSDT", "1s", opening, opening + 60_000, opening + 120_000)
    assert len(klines) == 61
    for kline in klines:
        told = tuple(float(text) for text in (kline.open, kline.high, kline.low, kline.close, kline.volume))
        if float(kline.volume):
            assert told == pytest.approx(seconds[kline.open_ms], rel=1e-12)
        else:
            assert kline.open_ms not in seconds
            assert len(set(told[:4])) == 1
    events = list(session.events("ETHUSDT", "kline_1m", opening, USUAL))
    closed = [event.message["k"]["t"] for event in events if event.message["k"]["x"]]  # pyright: ignore
    assert closed == list(range(closed[0], closed[-1] + MINUTE, MINUTE))
    assert closed[0] >= opening
    assert min(event.message["k"]["t"] for event in events) >= opening  # pyright: ignore


def test_ccxt_follows_the_book_of_a_recorded_session(session: SessionMarket) -> None:
    async def watch() -> None:
        async with serve(session) as venue:
            client = ccxt.pro.binance(binance_urls(venue.url))
            try:
                async with asyncio.timeout(60):
                    for _ in range(20):
                        book = await client.watch_order_book("BTC/USDT")
                        assert book["bids"][0][0] < book["asks"][0][0]
            finally:
                await client.close()

    asyncio.run(watch())


def test_tables_of_a_session_say_what_the_wire_said(session: SessionMarket, shared_data: Path) -> None:
    tables = session_market(shared_data / "order_book", ("ETH/USDT",))
    for channel, names in (("trade", "tpqm"), ("depth@100ms", "UuEba"), ("bookTicker", "ubBaA")):
        wire, table = (
            [json.dumps([event.message[name] for name in names]) for event in islice(events, 300)]
            for events in (market.events("ETHUSDT", channel, market.opening_ms, USUAL) for market in (session, tables))
        )
        common = set(wire[50:250])
        assert len(common & set(table)) >= 0.95 * len(common), channel  # quotes have times of their own there
    book, other = (market.book("ETHUSDT", session.opening_ms + 60_000, 100) for market in (session, tables))
    assert (book.last_update_id, list(map(tuple, book.bids))) == (other.last_update_id, other.bids)


def test_recorded_minutes_close_as_they_were_recorded(minutes: SecondsMarket, shared_data: Path) -> None:
    recorded = pl.read_parquet(shared_data / "candles" / "ethusdt_1m_binance_spot_2022_2023.parquet")
    since = NEW_YEAR_2022 + 40 * DAY + 7 * HOUR
    window = recorded.filter(pl.col("ts_ms").is_between(since, since + HOUR - 1))
    events = takewhile(lambda event: event.at_ms <= since + HOUR, minutes.events("ETHUSDT", "kline_1m", since, USUAL))
    klines = [event.message["k"] for event in events]
    closed = [[kline["t"], *(float(kline[name]) for name in "ohlcv")] for kline in klines if kline["x"]]  # pyright: ignore
    assert [tuple(each) for each in closed if each[0] >= since] == window.rows()
    shown = minutes.klines("ETHUSDT", "1m", since, since + HOUR - 1, since + HOUR)
    assert [float(kline.volume) for kline in shown] == window["volume"].to_list()


@pytest.mark.parametrize(("timeframe", "step"), [("1h", HOUR), ("1d", DAY)])
def test_longer_candles_are_those_that_the_venue_published(
    minutes: SecondsMarket, shared_data: Path, timeframe: str, step: int
) -> None:
    published = pl.read_parquet(shared_data / "candles" / f"btcusdt_{timeframe}_binance_spot_2017_2023.parquet")
    since = NEW_YEAR_2022 + 100 * DAY
    expected = published.filter(pl.col("ts_ms").is_between(since, since + DAY - 1)).rows()
    shown = minutes.klines("BTCUSDT", timeframe, since, since + DAY - 1, since + 2 * DAY)
    assert len(shown) == DAY // step
    for kline, row in zip(shown, expected, strict=True):
        assert (kline.open_ms, float(kline.open), float(kline.close)) == (row[0], row[1], row[4])
        assert (float(kline.high), float(kline.low)) == (row[2], row[3])
        assert float(kline.volume) == pytest.approx(row[5], rel=1e-9)


def test_a_minute_forms_from_its_open_over_its_extremes_to_its_close(minutes: SecondsMarket) -> None:
    since = NEW_YEAR_2022 + 40 * DAY + 7 * HOUR
    pace = Pace(kline_ms=1000, first_kline_ms=100, depth_ms=100)
    events = minutes.events("ETHUSDT", "kline_1m", since, pace)
    klines = [event.message["k"] for event in takewhile(lambda event: event.at_ms <= since + 600_000, events)]
    for opened in range(since, since + 600_000, MINUTE):
        of_minute = [kline for kline in klines if kline["t"] == opened]  # pyright: ignore
        *forming, last = ([float(kline[name]) for name in "ohlcv"] for kline in of_minute)  # pyright: ignore
        assert of_minute[-1]["x"]  # pyright: ignore
        assert len(forming) == 60
        assert len({tuple(row[1:4]) for row in forming}) > 20  # it moves
        for (_, high, low, _, volume), (_, higher, lower, _, more) in pairwise([*forming, last]):
            assert higher >= high
            assert lower <= low
            assert more >= volume
        assert {row[0] for row in forming} == {last[0]}


def test_trades_of_a_recorded_minute_add_up_to_it(minutes: SecondsMarket) -> None:
    since = NEW_YEAR_2022 + 40 * DAY + 7 * HOUR
    trades = minutes.trades("ETHUSDT", since, since + 5 * MINUTE - 1, since + HOUR)
    assert [trade.trade_id for trade in trades] == list(range(trades[0].trade_id, trades[0].trade_id + len(trades)))
    for kline in minutes.klines("ETHUSDT", "1m", since, since + 5 * MINUTE - 1, since + HOUR):
        of_minute = [trade for trade in trades if kline.open_ms <= trade.time_ms < kline.close_ms]
        prices = [trade.price for trade in of_minute]
        assert (prices[0], prices[-1]) == (kline.open, kline.close)
        assert (max(prices, key=float), min(prices, key=float)) == (kline.high, kline.low)
        assert sum(float(trade.amount) for trade in of_minute) == pytest.approx(float(kline.volume), rel=1e-12)
    assert minutes.time_of_trade("ETHUSDT", trades[300].trade_id) <= trades[300].time_ms
    assert trades[300].time_ms - minutes.time_of_trade("ETHUSDT", trades[300].trade_id) < MINUTE


def test_nothing_is_said_while_the_venue_was_down(minutes: SecondsMarket) -> None:
    since, until = OUTAGE + 1, OUTAGE + 80 * MINUTE - 1
    for channel in ("kline_1m", "kline_1s", "trade", "depth@100ms"):
        assert not list(takewhile(lambda event: event.at_ms <= until, minutes.events("ETHUSDT", channel, since, USUAL)))
    assert minutes.klines("ETHUSDT", "1m", since, until, until) == []
    before = minutes.trades("ETHUSDT", since - 90 * MINUTE, since - 50 * MINUTE, until)[-1]
    after = minutes.trades("ETHUSDT", until, until + 30 * MINUTE, until + HOUR)[0]
    assert after.trade_id - before.trade_id > 80 * 200  # missing, and not quiet


def test_a_recording_begins_at_its_beginning_and_ends_at_its_end(
    minutes: SecondsMarket, session: SessionMarket, listen: Callable[..., Any]
) -> None:
    async def check() -> None:
        async with serve(session) as venue:
            assert 0 <= venue.clock.now_ms() - session.opening_ms < 10_000
        async with serve(session, speed=200) as venue, listen(venue, "/ws/ethusdt@kline_1m/ethusdt@trade") as ear:
            told = await ear.until(lambda told: told["e"] == "kline" and told["k"]["x"])
            while told["E"] < 1723161600000:
                told = await ear.until(lambda told: told["e"] == "kline" and told["k"]["x"])
            assert told["k"]["T"] == 1723161599999  # midnight, where the wire recording ends

    asyncio.run(check())
    assert minutes.start_ms(0) == NEW_YEAR_2022


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match="no recorded session of ETH/USDT"):
        session_market(tmp_path, ("ETH/USDT",))
    with pytest.raises(ArchiveUnreadable, match="ETH/USDT 1m"):
        minutes_market(tmp_path, "binance", ("ETH/USDT",))
