"""Faults (placeholder)."""

import json

from hindsight.exchange.venue.market import Message


class Faults:
    skew_ms = 0

    def on_message(self, stream: str, message: Message) -> list[tuple[float, str]]:
        return [(0.0, json.dumps(message, separators=(",", ":")))]
