"""Where a feed goes on, and what it still knows."""

import json
from pathlib import Path

import pytest

from hindsight.errors import HomeUnwritable
from hindsight.exchange.feed.resume import known_candles, newest_trade, positions
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row
from hindsight.market.streams import Stream

NOW = 1_717_200_000_000
ETH, BTC = (Stream(venue="binance", symbol=symbol, timeframe="1m") for symbol in ("ETH/USDT", "BTC/USDT"))


def candle(stream: Stream, number: int, **changed: object) -> Row:
    row = {"stream": str(stream), "open_time_ms": NOW + 60_000 * number, "open": 1.5, "high": 2.0, "low": 1.0}
    return {**row, "close": 1.25, "volume": 3.0, "known_ms": None, "closed_by": "flag", **changed}


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def test_a_stream_goes_on_after_what_is_stored_or_landed_whichever_is_newer(landing: Landing) -> None:
    landing.write("candles", [candle(ETH, 5)], NOW, NOW)
    (landing.folder / "resume.json").write_text(json.dumps({str(ETH): NOW, str(BTC): NOW + 60_000}))
    assert positions(landing, [ETH, BTC]) == {str(ETH): NOW + 300_000, str(BTC): NOW + 60_000}


@pytest.mark.parametrize("damage", ["", "[]", '{"binance ETH/USDT 1m": "soon"}', "null"])
def test_a_resume_that_cannot_be_read_names_its_cure(landing: Landing, damage: str) -> None:
    landing.folder.mkdir()
    (landing.folder / "resume.json").write_text(damage)
    with pytest.raises(HomeUnwritable, match="Delete it"):
        positions(landing, [ETH])


def test_what_was_landed_is_known_again_oldest_first_also_from_the_archive(landing: Landing) -> None:
    rows = [candle(ETH, 0), candle(ETH, 1), candle(ETH, 0, close=1.75, known_ms=NOW + 90_000), candle(ETH, 2)]
    for number, row in enumerate(rows):
        path = landing.write("candles", [row, candle(BTC, number)], NOW + number, NOW)
        if number < 2:
            landing.archive(path)
    assert known_candles(landing, [ETH])[str(ETH)] == rows


def test_the_newest_trade_is_that_of_the_symbol(landing: Landing) -> None:
    row = {"venue": "binance", "time_ms": NOW, "price": 1.5, "amount": 2.0, "side": "buy"}
    assert newest_trade(landing, "ETH/USDT") is None
    landing.write("trades", [{"symbol": "ETH/USDT", "trade_id": each, **row} for each in (7, 9, 8)], NOW, NOW)
    landing.write("trades", [{"symbol": "BTC/USDT", "trade_id": 99, **row}], NOW + 1, NOW)
    assert newest_trade(landing, "ETH/USDT") == (9, NOW)
