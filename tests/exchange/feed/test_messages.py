"""Messages are checked before anything uses them: each way of being malformed, and its reason."""

import copy

import pytest

from hindsight.errors import MessageRefused
from hindsight.exchange.feed import binance
from hindsight.exchange.feed.connection import read_row, read_trade_row

NOW = 1_717_200_030_000
OPENED = 1_717_200_000_000
KLINE = {
    "e": "kline",
    "E": NOW,
    "s": "ETHUSDT",
    "k": {"t": OPENED, "T": OPENED + 59_999, "s": "ETHUSDT", "i": "1m", "f": 100, "L": 200}
    | {"o": "3000.10", "c": "3001.00", "h": "3002.5", "l": "2999", "v": "12.5", "n": 101, "x": False},
}
TRADE = {"e": "trade", "E": NOW, "s": "ETHUSDT", "t": 12345, "p": "3000.1", "q": "0.5", "T": NOW - 3, "m": True}
DEPTH = {"e": "depthUpdate", "E": NOW, "s": "ETHUSDT", "U": 157, "u": 160}
DEPTH |= {"b": [["3000.0", "10"]], "a": [["3001.0", "0.00000000"], ["3002.0", "4"]]}
MISSING = object()


def changed(message: dict, path: str, value: object) -> dict:
    message = copy.deepcopy(message)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    inner: object = message
    for key in parents:
        inner = inner[key]  # type: ignore
    if value is MISSING:
        del inner[last]  # type: ignore
    else:
        inner[last] = value  # type: ignore
    return message


def test_a_kline_is_read_with_what_ccxt_leaves_out() -> None:
    heard = binance.read_kline(KLINE, 60_000, NOW)
    assert heard.values == (3000.1, 3002.5, 2999.0, 3001.0, 12.5)
    assert (heard.is_final, heard.event_ms, heard.trade_ids) == (False, NOW, (100, 200))


def test_a_candle_without_trades_names_no_ids() -> None:
    quiet = changed(changed(KLINE, "k.f", -1), "k.L", -1)
    assert binance.read_kline(quiet, 60_000, NOW).trade_ids is None


def test_a_trade_is_a_sale_where_the_buyer_was_there_first() -> None:
    heard = binance.read_trade(TRADE, NOW)
    assert (heard.trade_id, heard.price, heard.amount, heard.side) == (12345, 3000.1, 0.5, "sell")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("k.t", MISSING, "open time is missing"),
        ("k.t", str(OPENED), "open time is not an instant"),
        ("k.t", OPENED // 1000, "not an instant in milliseconds"),
        ("k.t", OPENED + 1, "not a multiple"),
        ("k.t", OPENED * 1000, "in the future"),
        ("k.t", OPENED + 60_000, "in the future"),
        ("k.t", True, "not an instant"),
        ("k.o", MISSING, "open is missing"),
        ("k.h", None, "high is missing"),
        ("k.c", "NaN", "close is not a number"),
        ("k.c", float("nan"), "close is not a number"),
        ("k.c", "Infinity", "close is not a number"),
        ("k.c", "3_000", "close is not a number"),
        ("k.c", " 3000", "close is not a number"),
        ("k.c", "", "close is not a number"),
        ("k.c", [3000], "close is not a number"),
        pytest.param("k.c", 10**400, "close is not a number", id="an int larger than every float"),
        ("k.c", "abc", "close is not a number"),
        ("k.l", "0", "price is not positive"),
        ("k.l", "-2999", "price is not positive"),
        ("k.v", "-1", "negative volume"),
        ("k.h", "2998", "outside low and high"),
        ("k.l", "3000.5", "outside low and high"),
        ("k.x", MISSING, "final"),
        ("k.x", "true", "final"),
        ("E", MISSING, "event time is missing"),
        ("E", "soon", "event time is not an instant"),
    ],
)
def test_a_kline_that_cannot_be_is_refused(path: str, value: object, reason: str) -> None:
    with pytest.raises(MessageRefused, match=reason):
        binance.read_kline(changed(KLINE, path, value), 60_000, NOW)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("t", MISSING, "trade id"),
        ("t", -1, "trade id"),
        ("p", "0", "not positive"),
        ("q", "-0.5", "not positive"),
        ("q", "NaN", "amount is not a number"),
        ("T", None, "trade time is missing"),
        ("T", NOW + 1, "in the future"),
        ("m", MISSING, "side"),
    ],
)
def test_a_trade_that_cannot_be_is_refused(path: str, value: object, reason: str) -> None:
    with pytest.raises(MessageRefused, match=reason):
        binance.read_trade(changed(TRADE, path, value), NOW)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("U", MISSING, "update ids"),
        ("u", "160", "update ids"),
        ("u", 100, "update ids"),
        ("b", MISSING, "side is missing"),
        ("a", {}, "side is missing"),
        ("b.0", ["3000"], "no price and size"),
        ("b.0.0", "0", "price is not positive"),
        ("a.1.1", "-4", "negative size"),
        ("a.1.1", "NaN", "size is not a number"),
        ("E", MISSING, "event time"),
    ],
)
def test_a_depth_message_that_cannot_be_is_refused(path: str, value: object, reason: str) -> None:
    binance.check_depth(DEPTH, NOW)
    with pytest.raises(MessageRefused, match=reason):
        binance.check_depth(changed(DEPTH, path, value), NOW)


@pytest.mark.parametrize("row", [None, [], [OPENED, 1, 1, 1, 1], "row of text", [OPENED, 1, 1, 1, None, 1]])
def test_a_row_of_ccxt_that_cannot_be_is_refused(row: object) -> None:
    with pytest.raises(MessageRefused):
        read_row(row, 60_000, NOW)


def test_ids_of_trades_are_numbers_where_they_look_like_it() -> None:
    row = {"id": "77", "timestamp": NOW, "price": 1.0, "amount": 2.0, "side": "buy"}
    assert read_trade_row(row, NOW).trade_id == 77
    assert read_trade_row({**row, "id": "a-77"}, NOW).trade_id == "a-77"


def test_an_id_that_no_column_of_numbers_holds_stays_text() -> None:
    row = {"id": str(2**63 - 1), "timestamp": NOW, "price": 1.0, "amount": 2.0, "side": "buy"}
    assert read_trade_row(row, NOW).trade_id == 2**63 - 1
    for too_large in (str(2**63), "1" * 20, "1" * 5000):
        assert read_trade_row({**row, "id": too_large}, NOW).trade_id == too_large
    assert binance.read_trade(changed(TRADE, "t", 2**63), NOW).trade_id == str(2**63)
