"""The feed's heartbeat, feed.json, as others read it: when the feed last wrote it, and how each of its parts fared."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hindsight.market.streams import to_ms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBeat:
    """One part, counted since the feed started. `name` is `<stream or symbol> candles|trades|order_book`."""

    name: str
    state: str  # connected | silent | down | filling
    since_ms: int  # local, in that state
    last_message_ms: int | None  # local
    messages: int
    refused: Mapping[str, int]  # by reason
    reconnects: int
    filled: int
    corrections: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The feed as it stood at `written_ms` of this machine's clock and `venue_ms` of the venue's."""

    pid: int
    started_ms: int
    written_ms: int
    venue_ms: int
    speed: float  # seconds that pass at the venue in one of ours
    lost: Mapping[str, int]  # rows given up for want of room, by kind
    parts: Mapping[str, PartBeat]
    is_wanted: bool = True  # False: `hindsight up` runs without a feed, and this is what the last one left

    def age_seconds(self, now: datetime) -> float:
        """Seconds of ours since it was written; `now` is the venue's clock, carried on from this very beat."""
        return (to_ms(now) - self.venue_ms) / 1000 / self.speed

    def here_ms(self, now: datetime) -> float:
        """This machine's clock when the venue's shows `now`."""
        return self.written_ms + 1000 * self.age_seconds(now)


def read_beat(path: Path) -> Beat | None:
    """The last heartbeat; None where no feed ever ran."""
    try:
        beat = json.loads(path.read_bytes())
        return Beat(
            **{name: beat[name] for name in ("pid", "started_ms", "written_ms", "venue_ms", "speed")},
            lost=beat.get("lost", {}),
            is_wanted=bool(beat.get("is_wanted", True)),
            parts={
                name: PartBeat(
                    name=name, **{key: part[key] for key in PartBeat.__dataclass_fields__ if key != "name"}
                )
                for name, part in beat["parts"].items()
            },
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read: %s", path, error)
        return None


def note_wanted(path: Path, *, is_wanted: bool) -> None:
    """Notes in the heartbeat that the last feed left whether one is to run; a feed writes its own over it."""
    draft = path.with_name(f".{path.name}.wanted")  # the feed has one of its own
    try:
        beat = json.loads(path.read_bytes()) | {"is_wanted": is_wanted}
        draft.write_text(json.dumps(beat))
        draft.replace(path)
    except (OSError, ValueError, TypeError) as error:
        if path.exists():  # where none ever ran there is nothing to note
            logger.warning("%s still says what the last feed left there: %s", path, error)
