"""Binance's public REST endpoints, as far as ccxt and this program ask for them.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from hindsight.exchange.venue import wire
from hindsight.exchange.venue.gate import Refused
from hindsight.exchange.venue.market import Kline, Trade
from hindsight.exchange.venue.seconds import DAY_MS, MINUTE_MS
from hindsight.exchange.venue.venue import VENUE, Venue

MOST_ROWS, USUAL_ROWS = 1000, 500
MOST_LEVELS, USUAL_LEVELS = 5000, 100
HOUR_MS = 60 * MINUTE_MS


async def ping(_: web.Request) -> web.Response:
    return web.json_response({})


async def show_time(request: web.Request) -> web.Response:
    return web.json_response({"serverTime": request.app[VENUE].shown_ms()})


async def exchange_info(request: web.Request) -> web.Response:
    venue = request.app[VENUE]
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": venue.weights.limit}
    return web.json_response(
        {
            "timezone": "UTC",
            "serverTime": venue.shown_ms(),
            "rateLimits": [limit],
            "exchangeFilters": [],
            "symbols": [wire.symbol_info(listing) for listing in venue.market.listings.values()],
        }
    )


async def no_other_markets(_: web.Request) -> web.Response:
    """The exchangeInfo of futures, which a client with its usual options also loads: there are none here."""
    return web.json_response({"timezone": "UTC", "rateLimits": [], "exchangeFilters": [], "symbols": []})


async def klines(request: web.Request) -> web.Response:
    venue, query = request.app[VENUE], request.query
    symbol, timeframe = _symbol(venue, query), query.get("interval", "")
    if timeframe not in venue.market.timeframes:
        raise Refused(-1120, "Invalid interval.")
    limit = _limit(query, USUAL_ROWS, MOST_ROWS)
    now_ms = venue.clock.now_ms()
    start, end = _integer(query, "startTime"), _integer(query, "endTime")
    last_ms = now_ms if end is None else min(end, now_ms)
    found: list[Kline] = []
    if start is None:
        while len(found) < limit and last_ms >= venue.market.opening_ms:
            first_ms = max(
                last_ms - last_ms % DAY_MS, last_ms - (limit - len(found)) * venue.market.timeframes[timeframe]
            )
            found = [*await _piece(venue, symbol, timeframe, first_ms, last_ms, now_ms), *found]
            last_ms = first_ms - 1
        found = found[-limit:]
    else:
        first_ms = max(start, venue.market.opening_ms)
        while len(found) < limit and first_ms <= last_ms:
            piece_end = min(last_ms, first_ms - first_ms % DAY_MS + DAY_MS - 1)
            piece_end = min(piece_end, first_ms + (limit - len(found)) * venue.market.timeframes[timeframe])
            found += await _piece(venue, symbol, timeframe, first_ms, piece_end, now_ms)
            first_ms = piece_end + 1
        found = found[:limit]
    return web.json_response([wire.kline_row(kline) for kline in found])


async def _piece(venue: Venue, symbol: str, timeframe: str, first_ms: int, last_ms: int, now_ms: int) -> list[Kline]:
    """One day's share; others have their turn between two days, of which the first needs tens of milliseconds."""
    await asyncio.sleep(0)
    found = venue.market.klines(symbol, timeframe, first_ms, last_ms, now_ms)
    return venue.faults.on_klines(f"{symbol.lower()}@kline_{timeframe}", found, now_ms)


async def depth(request: web.Request) -> web.Response:
    venue = request.app[VENUE]
    limit = _limit(request.query, USUAL_LEVELS, MOST_LEVELS)
    book = venue.market.book(_symbol(venue, request.query), venue.clock.now_ms(), limit)
    return web.json_response({"lastUpdateId": book.last_update_id, "bids": book.bids, "asks": book.asks})


async def recent_trades(request: web.Request) -> web.Response:
    venue = request.app[VENUE]
    found = _latest(venue, _symbol(venue, request.query), _limit(request.query, USUAL_ROWS, MOST_ROWS))
    return web.json_response([wire.trade_row(trade) for trade in found])


async def agg_trades(request: web.Request) -> web.Response:
    venue, query = request.app[VENUE], request.query
    symbol, limit, now_ms = _symbol(venue, query), _limit(query, USUAL_ROWS, MOST_ROWS), venue.clock.now_ms()
    start, end, from_id = (_integer(query, name) for name in ("startTime", "endTime", "fromId"))
    if from_id is not None:
        first_ms = max(venue.market.time_of_trade(symbol, from_id), venue.market.opening_ms)
        found = [trade for trade in _forward(venue, symbol, first_ms, now_ms, limit) if trade.trade_id >= from_id]
    elif start is not None:
        last_ms = now_ms if end is None else min(end, now_ms)
        found = _forward(venue, symbol, max(start, venue.market.opening_ms), last_ms, limit)
    else:
        found = _latest(venue, symbol, limit)
    return web.json_response([wire.agg_trade_row(trade) for trade in found[:limit]])


async def book_ticker(request: web.Request) -> web.Response:
    venue, query = request.app[VENUE], request.query
    symbols = [_symbol(venue, query)] if "symbol" in query else list(venue.market.listings)
    answers = []
    for symbol in symbols:
        best = venue.market.book(symbol, venue.clock.now_ms(), 1)
        (bid, bid_amount), (ask, ask_amount) = best.bids[0], best.asks[0]
        answers.append({"symbol": symbol, "bidPrice": bid, "bidQty": bid_amount, "askPrice": ask, "askQty": ask_amount})
    return web.json_response(answers[0] if "symbol" in query else answers)


def _forward(venue: Venue, symbol: str, first_ms: int, last_ms: int, limit: int) -> list[Trade]:
    """The first trades from `first_ms` on, some more than `limit` so that a start by id finds enough."""
    found: list[Trade] = []
    end_ms = min(last_ms, first_ms + HOUR_MS)  # Binance looks no further than an hour either
    while first_ms <= end_ms and len(found) < 2 * limit:
        found += venue.market.trades(symbol, first_ms, min(end_ms, first_ms + MINUTE_MS - 1), venue.clock.now_ms())
        first_ms += MINUTE_MS
    return found


def _latest(venue: Venue, symbol: str, limit: int) -> list[Trade]:
    now_ms, found = venue.clock.now_ms(), []
    end_ms = now_ms
    while len(found) < limit and now_ms - end_ms < HOUR_MS:
        found = [*venue.market.trades(symbol, end_ms - MINUTE_MS + 1, end_ms, now_ms), *found]
        end_ms -= MINUTE_MS
    return found[-limit:]


def _symbol(venue: Venue, query: Mapping[str, str]) -> str:
    symbol = query.get("symbol", "")
    if not symbol:
        raise Refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
    if symbol not in venue.market.listings:
        raise Refused(-1121, "Invalid symbol.")
    return symbol


def _integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def _limit(query: Mapping[str, str], usual: int, most: int) -> int:
    limit = _integer(query, "limit")
    if limit == 0:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(usual if limit is None else limit, most)


def routes() -> list[web.RouteDef]:
    handlers = {
        "ping": ping,
        "time": show_time,
        "exchangeInfo": exchange_info,
        "klines": klines,
        "depth": depth,
        "trades": recent_trades,
        "aggTrades": agg_trades,
        "ticker/bookTicker": book_ticker,
    }
    others = [web.get(f"/{kind}/v1/exchangeInfo", no_other_markets) for kind in ("fapi", "dapi")]
    return [*(web.get(f"/api/v3/{name}", handler) for name, handler in handlers.items()), *others]
