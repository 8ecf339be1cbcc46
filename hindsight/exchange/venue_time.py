"""The venue's time as the feed last told it: for whoever runs beside the feed, and for the next feed at first."""

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hindsight.market.streams import from_ms


def _local_ms() -> int:
    return time.time_ns() // 1_000_000


def venue_clock(heartbeat: Path, local_ms: Callable[[], int] = _local_ms) -> Callable[[], datetime]:
    """What the venue's clock shows whenever it is asked; this machine's clock where that is unknown.

    `heartbeat` is the file that the feed writes every second: the venue's time beside ours, and how fast it passes.
    """

    def now() -> datetime:
        here = local_ms()
        try:
            beat = json.loads(heartbeat.read_bytes())
            return from_ms(int(beat["venue_ms"] + (here - beat["written_ms"]) * beat["speed"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return from_ms(here)

    return now
