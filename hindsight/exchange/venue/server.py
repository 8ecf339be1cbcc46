"""Serves a market over HTTP and WebSocket on one port, as Binance's spot exchange does.

async with serve(simulated_market(("ETH/USDT",), seed=7, phi=0.3), speed=60) as venue:
    exchange = ccxt.pro.binance(binance_urls(venue.url))
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from hindsight.exchange.venue import control, gate, public_rest, streams
from hindsight.exchange.venue.clock import Clock
from hindsight.exchange.venue.faults import Fault
from hindsight.exchange.venue.market import Market
from hindsight.exchange.venue.misbehaviour import Faults
from hindsight.exchange.venue.playback import Broadcast
from hindsight.exchange.venue.venue import VENUE, Venue
from hindsight.exchange.venue.weights import Weights


@asynccontextmanager
async def serve(
    market: Market,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    speed: float = 1.0,
    start_ms: int | None = None,
    faults: Iterable[Fault] = (),
    weights: Weights | None = None,
    ping_seconds: float = 20.0,
    pong_seconds: float = 60.0,
    lifetime_seconds: float = 86_400.0,
    backlog: int = 20_000,
) -> AsyncIterator[Venue]:
    """A venue that takes connections until the block ends. Port 0 is any free one; `venue.url` tells which."""
    if start_ms is None:
        start_ms = market.start_ms(time.time_ns() // 1_000_000)
    clock = Clock(start_ms=start_ms, speed=speed)
    misbehaviour = Faults(clock, faults)
    venue = Venue(
        market=market,
        clock=clock,
        faults=misbehaviour,
        weights=weights or Weights(),
        broadcast=Broadcast(market, clock, misbehaviour),
        ping_seconds=ping_seconds,
        pong_seconds=pong_seconds,
        lifetime_seconds=lifetime_seconds,
        backlog=backlog,
    )
    app = web.Application(middlewares=[gate.gate])
    app[VENUE] = venue
    app.add_routes([*public_rest.routes(), *streams.routes(), *control.routes()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        venue.url = f"http://{host}:{runner.addresses[0][1]}"
        yield venue
    finally:
        await venue.broadcast.stop()
        for connection in list(venue.connections.values()):
            connection.cut()
        await runner.cleanup()


@contextmanager
def serve_in_thread(market: Market, **settings: object) -> Iterator[Venue]:
    """The same beside blocking code, in a thread of its own. Takes the settings of `serve`."""
    started: Future[Venue] = Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        try:
            async with serve(market, **settings) as venue:  # pyright: ignore[reportArgumentType]
                started.set_result(venue)
                await stop.wait()
        except OSError as error:
            started.set_exception(error)  # the port is taken

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
