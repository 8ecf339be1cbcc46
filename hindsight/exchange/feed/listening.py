"""What stands in front of every venue of ccxt.pro: no message can end a connection, and a venue's wish is heeded.

In ccxt 4.5.90 a message that is no JSON, or that a venue's own code stumbles over, ends the loop that reads the socket,
and the connection stays open without saying a word. Here such a message is refused, and the next one is read.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

import ccxt

from hindsight.errors import MessageRefused
from hindsight.exchange.feed.reasons import Reason

logger = logging.getLogger(__name__)
Ear = Callable[[Any], None]
# Where a venue says that it was asked too much, but not how long to stay away.
USUAL_AWAY = {429: 10.0, 418: 120.0}


class EveryCandle:
    """To be mixed in before a class of ccxt: an answer of candles comes as it is, whatever is wrong with it."""

    def parse_ohlcvs(self, ohlcvs: Any, market: Any = None, *_: Any, **__: Any) -> Any:
        """Every row of an answer: ccxt passes over those without an open time, as if the venue had no such candle."""
        theirs = super().parse_ohlcvs  # pyright: ignore[reportAttributeAccessIssue]
        if theirs.__func__ is not ccxt.Exchange.parse_ohlcvs:  # a venue whose answers are no rows
            return theirs(ohlcvs, market, *_, **__)
        return [self._parsed(row, market) for row in ohlcvs] if isinstance(ohlcvs, list) else ohlcvs

    def _parsed(self, row: Any, market: Any) -> Any:
        try:
            return self.parse_ohlcv(row, market)  # pyright: ignore[reportAttributeAccessIssue]
        except Exception:  # whatever ccxt stumbles over: refused as it is
            return None


class Listening(EveryCandle):
    """To be mixed in before a class of ccxt.pro; `setup_ears` comes right after making it."""

    ears: dict[tuple[str, ...], Ear]
    symbols_by_id: dict[str, str]
    fresh_books: set[str]  # symbols whose book has just begun anew from a snapshot
    latest_ms: Callable[[], int]
    stay_away: Callable[[float, int, str], None]
    refuse: Callable[[list[str], MessageRefused, object], None]
    clients: dict[str, Any]
    orderbooks: dict[str, Any]

    def setup_ears(
        self,
        latest_ms: Callable[[], int],
        stay_away: Callable[[float, int, str], None],
        refuse: Callable[[list[str], MessageRefused, object], None],
    ) -> None:
        """`stay_away(seconds, status, address)` and `refuse(subscriptions, refused, message)` are told what happens."""
        self.ears, self.symbols_by_id, self.fresh_books = {}, {}, set()
        self.latest_ms, self.stay_away, self.refuse = latest_ms, stay_away, refuse

    def ear(self, kind: str, market_id: Any, timeframe: Any = None) -> Ear:
        """Whoever listens to such messages. Raises MessageRefused where nobody does."""
        key = (kind, market_id) if timeframe is None else (kind, market_id, timeframe)
        try:
            return self.ears[key]
        except (KeyError, TypeError):
            wanted = f"nobody asked for {' '.join(map(str, key[1:]))}"
            raise MessageRefused(wanted, Reason.NOT_ASKED_FOR) from None

    def client(self, url: str) -> Any:
        client = super().client(url)  # pyright: ignore[reportAttributeAccessIssue]
        if "handle_text_or_binary_message" not in vars(client):
            read = client.handle_text_or_binary_message

            def read_or_refuse(data: Any) -> None:
                try:
                    read(data)
                except MessageRefused as refused:
                    self.refuse(list(client.subscriptions), refused, data)
                except json.JSONDecodeError:  # orjson's error is one, too
                    self.refuse(list(client.subscriptions), MessageRefused("no JSON", Reason.NO_JSON), data)
                except Exception as error:  # whatever ccxt stumbles over
                    logger.debug("ccxt stumbled", exc_info=True)
                    refused = MessageRefused(f"{type(error).__name__} in ccxt", Reason.UNREADABLE)
                    self.refuse(list(client.subscriptions), refused, data)

            client.handle_text_or_binary_message = read_or_refuse
        return client

    def on_rest_response(
        self, code: int, reason: str, url: str, method: str, response_headers: Any, response_body: str, *rest: Any
    ) -> str:
        if code in USUAL_AWAY:
            asked = next((value for name, value in response_headers.items() if name.lower() == "retry-after"), "")
            self.stay_away(float(asked) if asked.isdigit() else USUAL_AWAY[code], code, url)
        return super().on_rest_response(  # pyright: ignore[reportAttributeAccessIssue]
            code, reason, url, method, response_headers, response_body, *rest
        )

    def parse_trades(self, trades: Any, market: Any = None, *_: Any, **__: Any) -> Any:
        """Every trade of an answer, by time: to ccxt, one that it stumbles over makes nothing of all the others."""
        if not isinstance(trades, list):
            raise TypeError("the answer is no list of trades")
        return sorted((self._trade(trade, market) for trade in trades), key=lambda trade: trade.get("timestamp") or 0)

    def _trade(self, trade: Any, market: Any) -> Any:
        try:
            return self.parse_trade(trade, market)  # pyright: ignore[reportAttributeAccessIssue]
        except Exception:  # whatever ccxt stumbles over: refused for what is missing
            nothing = dict.fromkeys(("id", "timestamp", "datetime", "side", "price", "amount"))
            return {**nothing, "symbol": market and market["symbol"], "info": trade}

    # Of the class of ccxt.pro that stands behind.
    def handle_message(self, client: Any, message: Any) -> None:
        super().handle_message(client, message)  # pyright: ignore[reportAttributeAccessIssue]

    def handle_order_book(self, client: Any, message: Any) -> None:
        super().handle_order_book(client, message)  # pyright: ignore[reportAttributeAccessIssue]

    def handle_order_book_subscription(self, client: Any, message: Any, subscription: Any) -> None:
        super().handle_order_book_subscription(  # pyright: ignore[reportAttributeAccessIssue]
            client, message, subscription
        )

    def take_snapshot(self, symbol: str) -> None:
        """Begins an order book anew from a snapshot, where that is possible without a new connection."""
