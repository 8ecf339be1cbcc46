"""Candles made from trades, where a venue has none: those of the market, and nothing where a trade is missing."""

from pathlib import Path
from random import Random

import pytest

from hindsight.exchange.feed.built import BuiltCandles
from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.messages import HeardTrade
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part, Times
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row
from hindsight.exchange.simulated import SimulatedVenue
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.market.streams import Stream, Window, from_ms, to_ms

START = 1709424000000  # a calm night of the simulated market
SECONDS = 120
STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1s")


class Kept(Outbox):
    """An outbox that keeps what it is given."""

    rows: list[Row]

    def add(self, kind: str, rows: list[Row]) -> None:  # type: ignore[override]
        self.rows = [*getattr(self, "rows", []), *rows]


def built(tmp_path: Path, trades: list[HeardTrade]) -> tuple[list[Row], Part]:
    """What is landed of trades that come one after the other, by their own times."""
    now = [0.0]
    times = Times(lambda: now[0], lambda: 0, Random(0))
    clock = VenueClock(times.monotonic)
    outbox, part = Kept(Landing(tmp_path), clock, times), Part("simulated ETH/USDT 1s candles", times)
    candles = BuiltCandles(STREAM, clock, outbox, part, patience_ms=3000)
    for trade in sorted(trades, key=lambda each: each.time_ms):
        now[0] = (trade.time_ms - START) / 1000 + 1
        clock.saw(trade.time_ms)
        candles.take(trade)
        candles.build_once()
    return outbox.rows, part


@pytest.fixture(scope="module")
def trades() -> list[HeardTrade]:
    found = simulated_market(("ETH/USDT",), 7, 0.3).trades("ETHUSDT", START, START + SECONDS * 1000, START + 10**7)
    return [
        HeardTrade(
            trade_id=each.trade_id,
            time_ms=each.time_ms,
            price=float(each.price),
            amount=float(each.amount),
            side="sell" if each.is_buyer_maker else "buy",
        )
        for each in found
    ]


def market() -> dict[int, dict[str, float]]:
    window = Window(start=from_ms(START), end=from_ms(START + SECONDS * 1000))
    [frame] = SimulatedVenue(7, 0.3).candles(STREAM, window)
    return {to_ms(row["open_time"]): row for row in frame.to_dicts()}


def test_candles_from_trades_are_those_of_the_market_in_order(tmp_path: Path, trades: list[HeardTrade]) -> None:
    rows, part = built(tmp_path, trades)
    expected = market()
    opens = [row["open_time_ms"] for row in rows]
    assert opens == list(range(opens[0], opens[0] + 1000 * len(opens), 1000))
    assert len(rows) > SECONDS - 10
    for row in rows:
        for name in ("open", "high", "low", "close", "volume"):
            assert row[name] == pytest.approx(expected[row["open_time_ms"]][name], abs=1e-6)
    assert part.missing == 0
    assert any(row["volume"] == 0 for row in rows)


def test_a_candle_with_a_trade_missing_is_missing_and_the_next_ones_go_on(
    tmp_path: Path, trades: list[HeardTrade]
) -> None:
    lost = trades[len(trades) // 2]
    rows, part = built(tmp_path, [each for each in trades if each is not lost])
    landed = {row["open_time_ms"] for row in rows}
    gone = set(range(min(landed), max(landed), 1000)) - landed
    assert lost.time_ms // 1000 * 1000 in gone
    assert len(gone) == part.missing <= 4
    expected = market()
    assert all(row["close"] == expected[row["open_time_ms"]]["close"] for row in rows)


def test_ids_that_do_not_count_prove_nothing(tmp_path: Path, trades: list[HeardTrade]) -> None:
    named = HeardTrade(trade_id="a-1", time_ms=START, price=1.0, amount=1.0, side="buy")
    part = built(tmp_path, [*trades[:3], named])[1]
    assert part.refused["no number"] == 1
