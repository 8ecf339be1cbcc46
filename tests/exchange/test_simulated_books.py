"""Past books of the simulated venue: sound rows, the same in whatever pieces, and what the live book comes to."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.errors import SettingRefused
from hindsight.exchange.simulated import OPENING, SimulatedVenue
from hindsight.exchange.simulated_signals import Signal, leaning_of_day
from hindsight.exchange.venue.market import Pace
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.book_rows import BOOK_SECONDS, book_frame
from hindsight.market.book_seconds import BookSeconds, BookSource
from hindsight.market.buckets import SIDE
from hindsight.market.order_book import OrderBook
from hindsight.market.streams import EPOCH, Stream, Window, to_ms
from hindsight.store.book_questions import ORDER_BOOK_QUESTIONS
from hindsight.store.book_tables import write_order_book
from hindsight.store.warehouse import Warehouse

START = datetime(2024, 3, 1, 23, tzinfo=UTC)
SIZES = {"ETH": 1.0, "BTC": 10.0}
SIGNALS: list[Signal] = ["momentum", "imbalance"]
SYMBOLS = ["ETH/USDT", "BTC/USDT", "SOL/USDC"]


def _stream(symbol: str = "ETH/USDT", timeframe: str = "1s") -> Stream:
    return Stream(venue="simulated", symbol=symbol, timeframe=timeframe)


def _books(signal: Signal, start: datetime, end: datetime, symbol: str = "ETH/USDT", seed: int = 7) -> pl.DataFrame:
    frames = SimulatedVenue(seed, 0.3, signal, SIZES).order_book(_stream(symbol), Window(start=start, end=end))
    return pl.concat([pl.DataFrame(schema=BOOK_SECONDS), *frames])


def _hours(hours: float) -> datetime:
    return START + timedelta(hours=hours)


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("signal", SIGNALS)
def test_past_books_pass_every_rule_and_every_question(signal: Signal, symbol: str, tmp_path: Path) -> None:
    books = _books(signal, START, _hours(2), symbol)
    assert len(books) == 7200
    landed = books.with_columns(second_ms=pl.col("second").dt.epoch("ms")).drop("second")
    assert_frame_equal(book_frame(landed.to_dicts()), books, check_exact=True)
    warehouse = Warehouse(path=tmp_path / "hindsight.duckdb", lock_timeout_seconds=5)
    with warehouse.writing() as con:
        assert write_order_book(con, books) == len(books)
    with warehouse.reading() as con:
        for question in ORDER_BOOK_QUESTIONS:
            assert question(con, _stream(symbol), Window(start=START, end=_hours(2))).is_empty(), question.__name__


@pytest.mark.parametrize("signal", SIGNALS)
def test_books_are_the_same_in_whatever_pieces_they_are_asked_for(signal: Signal) -> None:
    whole = _books(signal, START, _hours(26))
    cuts = [0.0, 0.5, 1.0, 1 + 1 / 3600, 1 + 1.5 / 3600, 2.0, 25.0, 26.0]
    pieces = [_books(signal, _hours(a), _hours(b)) for a, b in reversed(list(pairwise(cuts)))]
    # The second that is cut in two belongs to neither half: it opens in the one, and ends in the other.
    cut = _hours(1 + 1 / 3600)
    assert_frame_equal(pl.concat(pieces).sort("second"), whole.filter(pl.col("second") != cut), check_exact=True)
    assert_frame_equal(_books(signal, START, _hours(0.7)), whole.filter(pl.col("second") < _hours(0.7)))


def test_a_window_gives_the_seconds_that_have_ended_by_its_end() -> None:
    half = timedelta(milliseconds=500)
    found = _books("imbalance", START + half, START + timedelta(seconds=3) + half)["second"]
    assert found.to_list() == [START + timedelta(seconds=1), START + timedelta(seconds=2)]
    assert _books("imbalance", START, START + half).is_empty()
    assert _books("imbalance", OPENING - timedelta(days=2), OPENING + timedelta(seconds=5))["second"][0] == OPENING
    with pytest.raises(SettingRefused, match="opened on 2024-01-01"):
        _books("imbalance", OPENING - timedelta(days=2), OPENING)


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("signal", ["momentum", "lead", "imbalance", "none"])
def test_there_is_a_book_of_every_delivered_second_around_its_close(signal: Signal, symbol: str) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    window = Window(start=start, end=start + timedelta(days=4))
    seconds = pl.concat(SimulatedVenue(7, 0.3, signal).candles(_stream(symbol), window))
    seconds = seconds.filter(pl.col("revision") == 0)
    books = _books(signal, window.start, window.end, symbol)
    assert (len(books) < 4 * 86_400) == (symbol != "BTC/USDT")  # which had no outage
    assert books["second"].equals(seconds["open_time"])
    assert books["price"].equals(seconds["close"])
    tick = {"E": 0.001, "B": 0.01, "S": 1e-5}[symbol[0]]
    assert books["spread"].unique().to_list() == [pytest.approx(2 * tick)]
    inside = books.select(pl.col("price") - pl.col("anchor"), "bucket_size")
    assert inside.select(pl.col("price").is_between(-1e-9, pl.col("bucket_size"))).to_series().all()
    assert books["bucket_size"].unique().to_list() == [{"E": 1.0, "B": 10.0, "S": 0.02}[symbol[0]]]


def test_the_book_leans_by_what_tells_the_next_second_and_by_nothing_that_was() -> None:
    day = datetime(2024, 3, 1, tzinfo=UTC)
    books = _books("imbalance", day, day + timedelta(days=1))
    second = (books["second"].dt.epoch("s") - to_ms(day) // 1000).to_numpy()
    leaning = leaning_of_day(7, "ETH/USDT", (day - EPOCH).days)[second]
    imbalance = books["imbalance"].to_numpy()
    assert np.corrcoef(imbalance, np.tanh(leaning / 2))[0, 1] > 0.99
    assert leaning.std() == pytest.approx(1, abs=0.02)
    returns = np.diff(np.log(books["price"].to_numpy()))
    assert np.corrcoef(imbalance[:-1], returns)[0, 1] > 0.25
    assert abs(np.corrcoef(imbalance[1:], returns)[0, 1]) < 0.015
    assert abs(np.corrcoef(imbalance[1:], imbalance[:-1])[0, 1]) < 0.015


@pytest.mark.parametrize("signal", ["momentum", "lead", "none"])
def test_a_book_that_is_no_signal_leans_slowly_whatever_comes(signal: Signal) -> None:
    day = datetime(2024, 3, 1, tzinfo=UTC)
    books = _books(signal, day, day + timedelta(days=1))
    imbalance = books["imbalance"].to_numpy()
    returns = np.diff(np.log(books["price"].to_numpy()))
    assert imbalance.std() > 0.2
    assert np.corrcoef(imbalance[1:], imbalance[:-1])[0, 1] > 0.95
    assert abs(np.corrcoef(imbalance[:-1], returns)[0, 1]) < 0.015


@pytest.mark.parametrize("signal", SIGNALS)
def test_past_books_are_on_average_those_that_the_live_venue_shows(signal: Signal) -> None:
    market = simulated_market(("ETH/USDT",), 7, 0.3, signal)
    opened, ended = to_ms(START), to_ms(START) + 120_000
    book, snapshot = OrderBook(), market.book("ETHUSDT", opened, 5000)
    rows = BookSeconds(
        symbol="ETH/USDT",
        venue="simulated",
        bucket_size=1.0,
        sources=[BookSource(name="simulated", age_limit_ms=3000, quote_to_usd=1.0)],
        quote_to_usd=1.0,
    )
    book.start(snapshot.last_update_id, snapshot.bids, snapshot.asks)
    events = market.events("ETHUSDT", "depth@100ms", opened, Pace.at(1.0))
    for event in takewhile(lambda event: event.at_ms < ended, events):
        message: Any = event.message
        book.apply(message["U"], message["u"], message["b"], message["a"], message["E"])
        assert rows.add("simulated", message["E"], book.bids(), book.asks(), reach=book.reach) is None
    shown = market.book("ETHUSDT", ended - 100, 5000)
    assert book.bids() == [tuple(map(float, level)) for level in shown.bids]
    assert book.asks() == [tuple(map(float, level)) for level in shown.asks]
    live = book_frame(row.landed() for row in rows.rows(ended))
    past = _books(signal, START, START + timedelta(minutes=2))
    assert live["second"].equals(past["second"])
    assert live["spread"].equals(past["spread"])

    assert pl.select(pl.corr(live["imbalance"], past["imbalance"])).item() > 0.95
    assert abs(live["imbalance"] - past["imbalance"]).max() < 0.15
    near, far = slice(SIDE - 5, SIDE + 5), slice(0, 2 * SIDE)
    for part in (near, far):
        sums = [frame["amounts"].to_numpy()[:, part].sum(axis=1).mean() for frame in (live, past)]
        assert sums[0] == pytest.approx(sums[1], rel=0.05)
    if signal == "imbalance":  # and so the live book tells the next second
        leaning = leaning_of_day(7, "ETH/USDT", (START - EPOCH).days)[-3600 : -3600 + 120]
        assert np.corrcoef(live["imbalance"].to_numpy(), leaning)[0, 1] > 0.97
