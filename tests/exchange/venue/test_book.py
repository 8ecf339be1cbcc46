"""The made-up order book: a chain of differences that leads from one snapshot to every other, and never crosses."""

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import pytest

from hindsight.exchange.venue.market import Book, Event, Pace
from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.market.streams import to_ms

CALM = to_ms(datetime(2024, 3, 1, 12, tzinfo=UTC))
BEFORE_OUTAGE = to_ms(datetime(2024, 3, 2, 1, 38, 50, tzinfo=UTC))
Sides = tuple[dict[str, str], dict[str, str]]


def _sides(book: Book) -> Sides:
    return dict(book.bids), dict(book.asks)


def _apply(sides: Sides, message: Any) -> None:
    for side, changes in zip(sides, (message["b"], message["a"]), strict=True):
        for price, amount in changes:
            if float(amount):
                side[price] = amount
            else:
                side.pop(price, None)


def _depth(market: SecondsMarket, symbol: str, since: int, until: int, depth_ms: int) -> list[Event]:
    pace = Pace(kline_ms=2000, first_kline_ms=100, depth_ms=depth_ms)
    return list(takewhile(lambda event: event.at_ms <= until, market.events(symbol, "depth@100ms", since, pace)))


@pytest.mark.parametrize("symbol", ["ETHUSDT", "BTCUSDT"])
@pytest.mark.parametrize("depth_ms", [100, 700, 1000])
def test_differences_lead_from_one_snapshot_to_every_other(market: SecondsMarket, symbol: str, depth_ms: int) -> None:
    events = _depth(market, symbol, CALM, CALM + 45_000, depth_ms)
    start = market.book(symbol, CALM + 50, 5000)
    sides, last = _sides(start), start.last_update_id
    for event in events:
        message: Any = event.message
        assert (message["U"], message["E"]) == (last + 1, event.at_ms)
        _apply(sides, message)
        last = message["u"]
        now = market.book(symbol, event.at_ms, 5000)
        assert (now.last_update_id, _sides(now)) == (last, sides)
        assert max(map(float, sides[0])) < min(map(float, sides[1]))
        assert all(float(amount) > 0 for side in sides for amount in side.values())
    assert len(events) >= 45_000 // depth_ms - 1


@pytest.mark.parametrize("depth_ms", [100, 1000])
def test_a_snapshot_between_two_differences_joins_the_chain(market: SecondsMarket, depth_ms: int) -> None:
    events = _depth(market, "ETHUSDT", CALM, CALM + 60_000, depth_ms)
    for offset in (150, 300, 1450, 20_750):
        snapshot = market.book("ETHUSDT", CALM + offset, 5000)
        sides = _sides(snapshot)
        later = [event for event in events if event.message["u"] > snapshot.last_update_id]  # pyright: ignore
        first: Any = later[0].message
        assert first["U"] <= snapshot.last_update_id + 1 <= first["u"]
        for event in later:
            _apply(sides, event.message)
        assert _sides(market.book("ETHUSDT", later[-1].at_ms, 5000)) == sides


def test_the_book_stands_still_in_an_outage_and_goes_on_without_a_break(market: SecondsMarket) -> None:
    events = _depth(market, "ETHUSDT", BEFORE_OUTAGE, BEFORE_OUTAGE + 330_000, 100)
    start = market.book("ETHUSDT", BEFORE_OUTAGE, 5000)
    sides, last, longest = _sides(start), start.last_update_id, 0
    for before, event in zip([None, *events], events, strict=False):
        message: Any = event.message
        longest = max(longest, event.at_ms - (before.at_ms if before else event.at_ms))
        assert message["U"] == last + 1
        _apply(sides, message)
        last = message["u"]
    assert _sides(market.book("ETHUSDT", events[-1].at_ms, 5000)) == sides
    assert timedelta(milliseconds=longest) >= timedelta(minutes=5)
    during = market.book("ETHUSDT", BEFORE_OUTAGE + 60_000, 5000)
    assert during == market.book("ETHUSDT", BEFORE_OUTAGE + 200_000, 5000)


def test_the_best_prices_are_those_of_the_book_and_stand_around_the_last_trade(market: SecondsMarket) -> None:
    pace = Pace.at(1.0)
    quotes = list(islice(market.events("ETHUSDT", "bookTicker", CALM, pace), 200))
    for event in quotes:
        book = market.book("ETHUSDT", event.at_ms, 5)
        message: Any = event.message
        assert (message["b"], message["B"]) == book.bids[0]
        assert (message["a"], message["A"]) == book.asks[0]
        assert message["u"] == book.last_update_id
        trade = market.trades("ETHUSDT", event.at_ms - 30_000, event.at_ms, event.at_ms)[-1]
        assert float(message["b"]) < float(trade.price) < float(message["a"])


def test_the_book_reaches_twenty_buckets_on_either_side(market: SecondsMarket) -> None:
    for symbol, bucket in (("ETHUSDT", 1.0), ("BTCUSDT", 10.0)):
        book = market.book(symbol, CALM, 1000)
        assert len(book.bids) == len(book.asks) == 1000
        assert float(book.bids[0][0]) - float(book.bids[-1][0]) > 20 * bucket
        assert float(book.asks[-1][0]) - float(book.asks[0][0]) > 20 * bucket
        assert market.book(symbol, CALM, 5).bids == book.bids[:5]
