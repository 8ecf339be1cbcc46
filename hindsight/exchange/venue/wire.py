"""Binance's JSON, https://developers.binance.com/docs/binance-spot-api-docs: what REST answers and streams send.

Not known here and filled in: quote volume (volume times the mean of the four prices), half of it as the takers', and
the number of trades in REST candles. ccxt reads none of them.
"""

from hindsight.exchange.venue.market import Book, Kline, Listing, Message, Trade


def kline_message(
    listing: Listing, timeframe: str, kline: Kline, ids: tuple[int, int, int], event_ms: int, *, is_closed: bool
) -> Message:
    """A candle; `ids` are the first and the last of its trades, and their number."""
    quote = _quote_volume(kline)
    return {
        "e": "kline",
        "E": event_ms,
        "s": listing.id,
        "k": {
            "t": kline.open_ms,
            "T": kline.close_ms - 1,
            "s": listing.id,
            "i": timeframe,
            "f": ids[0],
            "L": ids[1],
            "o": kline.open,
            "c": kline.close,
            "h": kline.high,
            "l": kline.low,
            "v": kline.volume,
            "n": ids[2],
            "x": is_closed,
            "q": f"{quote:.8f}",
            "V": f"{float(kline.volume) / 2:.8f}",
            "Q": f"{quote / 2:.8f}",
            "B": "0",
        },
    }


def kline_row(kline: Kline) -> list[object]:
    quote = _quote_volume(kline)
    return [
        kline.open_ms,
        kline.open,
        kline.high,
        kline.low,
        kline.close,
        kline.volume,
        kline.close_ms - 1,
        f"{quote:.8f}",
        0,
        f"{float(kline.volume) / 2:.8f}",
        f"{quote / 2:.8f}",
        "0",
    ]


def _quote_volume(kline: Kline) -> float:
    return float(kline.volume) * sum(map(float, (kline.open, kline.high, kline.low, kline.close))) / 4


def trade_message(listing: Listing, trade: Trade) -> Message:
    return {
        "e": "trade",
        "E": trade.known_ms,
        "s": listing.id,
        "t": trade.trade_id,
        "p": trade.price,
        "q": trade.amount,
        "T": trade.time_ms,
        "m": trade.is_buyer_maker,
        "M": True,
    }


def agg_trade_message(listing: Listing, trade: Trade) -> Message:
    """Each trade is an aggregate of its own here: no order was filled by several at one price."""
    return {"e": "aggTrade", "E": trade.known_ms, "s": listing.id, **agg_trade_row(trade)}


def trade_row(trade: Trade) -> Message:
    return {
        "id": trade.trade_id,
        "price": trade.price,
        "qty": trade.amount,
        "quoteQty": f"{float(trade.price) * float(trade.amount):.8f}",
        "time": trade.time_ms,
        "isBuyerMaker": trade.is_buyer_maker,
        "isBestMatch": True,
    }


def agg_trade_row(trade: Trade) -> Message:
    return {
        "a": trade.trade_id,
        "p": trade.price,
        "q": trade.amount,
        "f": trade.trade_id,
        "l": trade.trade_id,
        "T": trade.time_ms,
        "m": trade.is_buyer_maker,
        "M": True,
    }


def depth_message(listing: Listing, first_update_id: int, changes: Book, event_ms: int) -> Message:
    return {
        "e": "depthUpdate",
        "E": event_ms,
        "s": listing.id,
        "U": first_update_id,
        "u": changes.last_update_id,
        "b": changes.bids,
        "a": changes.asks,
    }


def book_ticker_message(listing: Listing, best: Book) -> Message:
    (bid, bid_amount), (ask, ask_amount) = best.bids[0], best.asks[0]
    return {"u": best.last_update_id, "s": listing.id, "b": bid, "B": bid_amount, "a": ask, "A": ask_amount}


def symbol_info(listing: Listing) -> Message:
    """One symbol of exchangeInfo. Orders are not taken, so that only what clients read of a market is told."""
    base, _, quote = listing.symbol.partition("/")
    tick, step = listing.price(1), listing.amount(1)
    return {
        "symbol": listing.id,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": listing.amount_decimals,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000.00", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "10000000.00", "stepSize": step},
        ],
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
    }
