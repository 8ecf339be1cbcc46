"""Candles made from trades, where a venue has none: those of the market, and nothing where a trade is missing."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

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
LATE_MS = 250  # after its time, until a trade is heard
STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1s")


class Kept(Outbox):
    """An outbox that keeps what it is given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rows: list[Row] = []

    def add(self, kind: str, rows: list[Row]) -> None:  # type: ignore[override]
        self.rows += rows


def built(
    tmp_path: Path,
    trades: list[HeardTrade],
    *,
    ahead: dict[int | str, int] | None = None,
    position_ms: int | None = None,
) -> tuple[list[Row], Part]:
    """What is landed of trades that come LATE_MS after their times; the ids in `ahead` are stamped so much later.

    Raises AssertionError where a candle is landed before its close.
    """
    now = [0.0]
    times = Times(lambda: now[0], lambda: 0, Random(0))
    clock = VenueClock(times.monotonic)
    clock.guess(START)
    outbox, part = Kept(Landing(tmp_path), clock, times), Part("simulated ETH/USDT 1s candles", times)
    candles = BuiltCandles(STREAM, clock, outbox, part, patience_ms=3000)
    candles.position_ms = position_ms
    for trade in sorted(trades, key=lambda each: each.time_ms):
        closed = (trade.time_ms // 1000 * 1000 - START) / 1000
        if closed > now[0]:
            now[0] = closed
            candles.build_once()
        now[0] = (trade.time_ms + LATE_MS - START) / 1000
        told = replace(trade, time_ms=trade.time_ms + (ahead or {}).get(trade.trade_id, 0))
        clock.saw(told.time_ms)
        candles.take(told)
        candles.build_once()
        assert all(row["open_time_ms"] + STREAM.step_ms <= clock.now_ms() for row in outbox.rows)
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


def steady(seconds: int, start_ms: int = START) -> list[HeardTrade]:
    """Ten trades of one coin each, in every second."""
    times = range(start_ms, start_ms + 1000 * seconds, 100)
    return [
        HeardTrade(trade_id=number, time_ms=time_ms, price=100.0, amount=1.0, side="buy")
        for number, time_ms in enumerate(times, start=1)
    ]


@pytest.mark.parametrize("trade_id", [46, 49])  # amid a second; and the newest one, as that second ends
@pytest.mark.parametrize("ahead_ms", [1200, 9000])
def test_a_trade_that_is_stamped_ahead_makes_no_second_quiet_that_is_not_over(
    tmp_path: Path, ahead_ms: int, trade_id: int
) -> None:
    rows, part = built(tmp_path, steady(16), ahead={trade_id: ahead_ms})
    volumes = {(row["open_time_ms"] - START) // 1000: row["volume"] for row in rows}
    stamped = (100 * (trade_id - 1) + ahead_ms) // 1000
    assert volumes == {**dict.fromkeys(range(1, 15), 10.0), 4: 9.0, stamped: 11.0}
    assert part.missing == 0


def test_a_day_away_is_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows, part = built(tmp_path, steady(8, START + 86_400_000), position_ms=START)
    assert part.missing == 86_400  # the last one is that of the first trade
    assert [row["open_time_ms"] - START for row in rows] == list(range(86_401_000, 86_407_000, 1000))
    first, *others = [message for message in caplog.messages if "missing" in message]
    assert first.startswith("simulated ETH/USDT 1s candles [2024-03-03 00:00:01, 2024-03-03 23:59:57): 86396 candles")
    assert len(others) == 4  # which were waited for
