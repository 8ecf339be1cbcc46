"""The venue's time as the last heartbeat told it, carried on; this machine's where it told none."""

import json
from pathlib import Path

import pytest

from hindsight.exchange.venue_time import venue_clock
from hindsight.market.streams import to_ms

NOW = 1_717_200_000_000


def told(path: Path) -> int:
    return to_ms(venue_clock(path, lambda: NOW)())


def test_the_venues_time_is_carried_on_from_the_last_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "feed.json"
    assert told(path) == NOW
    path.write_text(json.dumps({"venue_ms": 5_000_000, "written_ms": NOW - 2000, "speed": 60.0}))
    assert told(path) == 5_000_000 + 120_000


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "null",
        "{}",
        '{"venue_ms": "soon", "written_ms": 0, "speed": 1.0}',
        '{"venue_ms": 1e300, "written_ms": 0, "speed": 1.0}',
        '{"venue_ms": Infinity, "written_ms": 0, "speed": 1.0}',
    ],
)
def test_a_heartbeat_that_cannot_be_read_leaves_this_machines_time(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "feed.json"
    path.write_text(damage)
    assert told(path) == NOW
