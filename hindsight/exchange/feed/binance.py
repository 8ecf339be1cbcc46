"""Binance's messages as they come from the socket: ccxt drops whether a candle is final, its event time and trade ids.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams. The methods below stand in front of those
of ccxt.pro's binance. Candles and trades end here, so nothing is kept of them; an order book goes on into ccxt, which
puts it together by the venue's sequence rules, and is heard after each step.
"""

from typing import Any

from hindsight.errors import MessageRefused
from hindsight.exchange.feed import messages
from hindsight.exchange.feed.listening import Listening
from hindsight.exchange.feed.messages import HeardCandle, HeardTrade
from hindsight.exchange.feed.reasons import Reason


def read_kline(message: Any, step_ms: int, latest_ms: int) -> HeardCandle:
    """The candle in a kline message. Raises MessageRefused."""
    kline = message["k"]
    is_final, first, last = kline.get("x"), kline.get("f"), kline.get("L")
    if not isinstance(is_final, bool):
        raise MessageRefused("nothing says whether the candle is final", Reason.MISSING)
    trade_ids = (first, last) if isinstance(first, int) and isinstance(last, int) and 0 <= first <= last else None
    return messages.candle(
        kline.get("t"),
        (kline.get("o"), kline.get("h"), kline.get("l"), kline.get("c"), kline.get("v")),
        step_ms=step_ms,
        latest_ms=latest_ms,
        is_final=is_final,
        event_ms=messages.moment(message.get("E"), "event time", latest_ms),
        trade_ids=trade_ids,
    )


def read_trade(message: Any, latest_ms: int) -> HeardTrade:
    """The trade in a trade message. Raises MessageRefused."""
    side = {True: "sell", False: "buy"}.get(message.get("m"))  # m: the buyer was there first, so a seller came to him
    return messages.trade(
        message.get("t"), message.get("T"), message.get("p"), message.get("q"), side, latest_ms=latest_ms
    )


def check_depth(message: Any, latest_ms: int) -> None:
    """Raises MessageRefused where a depth message cannot be one."""
    messages.moment(message.get("E"), "event time", latest_ms)
    first, last = message.get("U"), message.get("u")
    if type(first) is not int or type(last) is not int or not 0 < first <= last:
        raise MessageRefused("update ids are missing", Reason.MISSING)
    for side in (message.get("b"), message.get("a")):
        if not isinstance(side, list):
            raise MessageRefused("a side is missing", Reason.MISSING)
        for level in side:
            if not isinstance(level, list) or len(level) < 2:
                raise MessageRefused("a level is no price and size", Reason.UNREADABLE)
            if messages.number(level[0], "price") <= 0:
                raise MessageRefused("price is not positive", Reason.NEGATIVE)
            if messages.number(level[1], "size") < 0:
                raise MessageRefused("negative size", Reason.NEGATIVE)


class ListeningBinance(Listening):
    """What stands in front of ccxt.pro's binance."""

    def handle_message(self, client: Any, message: Any) -> None:
        if not isinstance(message, dict) or not message.keys() & {"e", "id", "result", "error", "stream"}:
            raise MessageRefused("no event type", Reason.UNREADABLE)
        super().handle_message(client, message)

    def handle_ohlcv(self, client: Any, message: Any) -> None:
        kline = message.get("k")
        if not isinstance(kline, dict):
            raise MessageRefused("no candle in it", Reason.UNREADABLE)
        self.ear("candles", message.get("s"), kline.get("i"))(message)

    def handle_trade(self, client: Any, message: Any) -> None:
        self.ear("trades", message.get("s"))(message)

    def handle_order_book(self, client: Any, message: Any) -> None:
        ear = self.ear("order_book", message.get("s"))
        check_depth(message, self.latest_ms())
        super().handle_order_book(client, message)
        symbol = self.symbols_by_id[message["s"]]
        book = self.orderbooks.get(symbol)
        if book is not None and book["nonce"] == message["u"] and book["timestamp"] == message["E"]:
            ear(book)

    def handle_order_book_subscription(self, client: Any, message: Any, subscription: Any) -> None:
        super().handle_order_book_subscription(client, message, subscription)
        self.fresh_books.update(subscription.get("symbols") or [subscription["symbol"]])

    def take_snapshot(self, symbol: str) -> None:
        """Begins the order book anew from a snapshot, on the connection that there is."""
        key = f"orderbook::{symbol}"
        for client in list(self.clients.values()):
            subscription = client.subscriptions.get(key)
            if isinstance(subscription, dict):
                self.handle_order_book_subscription(client, {}, {**subscription, "symbols": [symbol]})
