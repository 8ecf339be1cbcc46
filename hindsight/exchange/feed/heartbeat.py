"""feed.json: how the feed fares, replaced about once a second, whole at any moment."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.part import Part, Times


def write_heartbeat(
    path: Path, started_ms: int, clock: VenueClock, times: Times, parts: Iterable[Part], lost: dict[str, int]
) -> None:
    """Replaces the file at `path`; a full disk leaves the last one standing. `lost`: rows given up, by kind."""
    local_ms, venue_ms = times.local_ms(), clock.now_ms()
    beat = {
        "pid": os.getpid(),
        "started_ms": started_ms,
        "written_ms": local_ms,
        "venue_ms": venue_ms,
        "offset_ms": venue_ms - local_ms,
        "speed": clock.speed,
        "lost": lost,
        "parts": {part.name: part.shown() for part in parts},
    }
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(beat))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
