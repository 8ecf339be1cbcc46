"""What the routes of one running venue share."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from hindsight.exchange.venue.clock import Clock
from hindsight.exchange.venue.market import Market
from hindsight.exchange.venue.misbehaviour import Faults
from hindsight.exchange.venue.playback import Broadcast
from hindsight.exchange.venue.weights import Weights

if TYPE_CHECKING:
    from hindsight.exchange.venue.streams import Connection


@dataclass(slots=True, kw_only=True)
class Venue:
    """A running venue: its address, and what may be asked of it and done to it while it runs."""

    market: Market
    clock: Clock
    faults: Faults
    weights: Weights
    broadcast: Broadcast
    ping_seconds: float = 20.0  # Binance pings that often,
    pong_seconds: float = 60.0  # gives up a connection without an answer after so long,
    lifetime_seconds: float = 86_400.0  # and ends each after a day
    backlog: int = 20_000  # messages that a connection may be behind; a slower reader is disconnected
    url: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    connections: dict[int, "Connection"] = field(default_factory=dict)

    def shown_ms(self) -> int:
        """What the venue says its clock shows."""
        return self.clock.now_ms() + self.faults.skew_ms


VENUE = web.AppKey("venue", Venue)
