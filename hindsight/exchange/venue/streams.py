"""WebSocket connections: /ws and /stream, subscriptions, pings, and their end after a day.

Source: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from itertools import count

from aiohttp import WSCloseCode, WSMsgType, web

from hindsight.exchange.venue.faults import Fault
from hindsight.exchange.venue.market import NotListed
from hindsight.exchange.venue.venue import VENUE, Venue

NUMBERS = count(1)
INVALID_REQUEST = 2  # Binance's code for a request that it cannot read


class Connection:
    """One client's socket. `is_combined` wraps each message together with its stream's name."""

    def __init__(
        self, venue: Venue, socket: web.WebSocketResponse, transport: asyncio.Transport | None, *, is_combined: bool
    ) -> None:
        self.venue, self.socket, self.is_combined = venue, socket, is_combined
        self._transport = transport
        self.number = next(NUMBERS)
        self.opened_ms = venue.clock.now_ms()
        self.streams: dict[str, None] = {}  # in the order of subscription
        self.sent = 0
        self.is_half_open = False
        self._queue: asyncio.Queue[str] = asyncio.Queue(venue.backlog)
        self._heard_at = time.monotonic()
        self._closing: asyncio.Task[bool] | None = None  # kept, or it would be collected before it is done

    def offer(self, stream: str, text: str) -> None:
        """Queues a message of a stream; a connection that is too far behind is cut off."""
        if self.is_half_open:
            return
        self._put(f'{{"stream":{json.dumps(stream)},"data":{text}}}' if self.is_combined else text)

    def subscribe(self, names: Iterable[str]) -> None:
        for name in names:
            # Binance takes no offence at names that it does not know; they stay silent.
            with contextlib.suppress(NotListed):
                self.venue.broadcast.join(name, self)
            self.streams[name] = None

    def unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if self.streams.pop(name, name) is None:
                self.venue.broadcast.leave(name, self)

    @property
    def waiting(self) -> int:
        """Messages that the client has not taken yet."""
        return self._queue.qsize()

    def suffer(self, fault: Fault) -> None:
        """Closes, politely where the fault has a close code, or falls silent without closing."""
        loop = asyncio.get_running_loop()
        if fault.fault == "half_open":
            self.is_half_open = True
            if fault.seconds:
                loop.call_later(fault.seconds, self._wake)
        elif fault.code:
            self._closing = loop.create_task(self.socket.close(code=fault.code))
        else:
            self.cut()

    def _wake(self) -> None:
        self.is_half_open = False

    def cut(self) -> None:
        """Ends the connection without a closing frame, as a broken network does."""
        if self._transport is not None:
            self._transport.abort()

    async def serve(self) -> None:
        """Reads and writes until either side ends the connection, or its day is over."""
        writing = asyncio.create_task(self._write())
        pinging = asyncio.create_task(self._ping())
        try:
            async with asyncio.timeout(self.venue.lifetime_seconds):
                await self._read()
        except TimeoutError:
            await self.socket.close(code=WSCloseCode.GOING_AWAY, message=b"24 hours are over")
        finally:
            for task in (writing, pinging):
                task.cancel()
            await asyncio.gather(writing, pinging, return_exceptions=True)
            self.unsubscribe(list(self.streams))

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                self._answer(message.data)
            elif message.type is WSMsgType.PING and not self.is_half_open:
                await self.socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                self._heard_at = time.monotonic()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                text = await self._queue.get()
                await self.socket.send_str(text)
                self.sent += 1

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(self.venue.ping_seconds)
                if self.is_half_open:
                    continue
                if time.monotonic() - self._heard_at > self.venue.pong_seconds:
                    self.cut()
                    return
                await self.socket.ping(str(self.venue.shown_ms()).encode())

    def _answer(self, text: str) -> None:
        """What a client asks for on its connection: SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, properties."""
        try:
            request = json.loads(text)
            method, names, number = request["method"], request.get("params", []), request.get("id")
            if not isinstance(names, list):
                raise TypeError(names)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._reply({"error": {"code": INVALID_REQUEST, "msg": "Invalid request: not a request"}, "id": None})
            return
        result: object = None
        after: Iterable[str] = ()
        if method == "SUBSCRIBE":
            after = [name for name in names if name not in self.streams]
        elif method == "UNSUBSCRIBE":
            self.unsubscribe(names)
        elif method == "LIST_SUBSCRIPTIONS":
            result = list(self.streams)
        elif method == "SET_PROPERTY" and names[:1] == ["combined"]:
            self.is_combined = bool(names[1:] == [True])
        elif method == "GET_PROPERTY" and names == ["combined"]:
            result = self.is_combined
        else:
            message = f"Invalid request: unknown method {method}"
            self._reply({"error": {"code": INVALID_REQUEST, "msg": message}, "id": number})
            return
        self._reply({"result": result, "id": number})
        self.subscribe(after)  # the answer comes before the first message

    def _reply(self, answer: object) -> None:
        if not self.is_half_open:
            self._put(json.dumps(answer))

    def _put(self, text: str) -> None:
        try:
            self._queue.put_nowait(text)
        except asyncio.QueueFull:
            self.cut()


async def connect(request: web.Request) -> web.WebSocketResponse:
    """/ws/<stream>/<stream> with bare messages, or /stream?streams=<stream>/<stream> with wrapped ones.

    As at Binance, parts of the path that name no stream do no harm: ccxt adds one to tell its connections apart.
    """
    venue = request.app[VENUE]
    socket = web.WebSocketResponse(autoping=False, compress=False)
    await socket.prepare(request)
    is_combined = request.path.startswith("/stream")
    connection = Connection(venue, socket, request.transport, is_combined=is_combined)
    asked = request.query.get("streams", "") if is_combined else request.match_info.get("streams", "")
    venue.connections[connection.number] = connection
    try:
        connection.subscribe(name for name in asked.split("/") if "@" in name)
        await connection.serve()
    finally:
        del venue.connections[connection.number]
    return socket


def routes() -> list[web.RouteDef]:
    return [
        web.get("/ws", connect),
        web.get("/ws/{streams:.*}", connect),
        web.get("/stream", connect),
    ]
