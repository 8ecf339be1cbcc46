"""The simulated market whose days are known, and a client that listens to a venue's bare messages."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from hindsight.exchange.venue.seconds_market import SecondsMarket
from hindsight.exchange.venue.simulated_days import simulated_market
from hindsight.exchange.venue.venue import Venue

# With seed 19 the venue corrects ETH/USDT's candle of 2024-03-01 03:59 at 04:03:54, and delivers none from 2024-03-02
# 01:39 to 01:43.
SEED, PHI = 19, 0.3
DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="session")
def market() -> SecondsMarket:
    return simulated_market(("ETH/USDT", "BTC/USDT"), SEED, PHI)


@dataclass
class Ear:
    """One bare WebSocket connection."""

    socket: aiohttp.ClientWebSocketResponse

    async def ask(self, method: str, *names: object, number: int = 1) -> Any:
        """Sends a request; returns its answer, passing over messages that come before it."""
        await self.socket.send_str(json.dumps({"method": method, "params": list(names), "id": number}))
        return await self.until(lambda told: "id" in told and told["id"] == number)

    async def text(self) -> str:
        message = await asyncio.wait_for(self.socket.receive(), DEADLINE_SECONDS)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return message.data

    async def messages(self, count: int) -> list[Any]:
        return [json.loads(await self.text()) for _ in range(count)]

    async def until(self, is_it: Callable[[Any], bool]) -> Any:
        """The first message of which `is_it` is true."""
        while not is_it(told := json.loads(await self.text())):
            pass
        return told

    async def end(self) -> aiohttp.WSMessage:
        """How the connection ended: everything said before is passed over."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), DEADLINE_SECONDS)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return message


async def _wait_until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Waits until something is so."""
    return _wait_until


@asynccontextmanager
async def _listen(venue: Venue, path: str, **settings: Any) -> AsyncIterator[Ear]:
    async with aiohttp.ClientSession() as session, session.ws_connect(venue.url + path, **settings) as socket:
        yield Ear(socket)


@pytest.fixture
def listen() -> Callable[..., Any]:
    """Opens a bare connection to a path of a venue."""
    return _listen


async def _get(venue: Venue, path: str, **query: object) -> tuple[int, Any, dict[str, str]]:
    async with aiohttp.ClientSession() as session:
        answer = await session.get(venue.url + path, params={name: str(value) for name, value in query.items()})
        is_json = answer.content_type == "application/json"
        return answer.status, await (answer.json() if is_json else answer.text()), dict(answer.headers)


@pytest.fixture
def get() -> Callable[..., Any]:
    """Asks a venue by GET: status, body, headers."""
    return _get
