"""The feed of `hindsight up`, and the simulated venue that it listens to where no other is set.

python -m pipelines.up.feeding    # what `hindsight up` runs for `hindsight feed`
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from hindsight.errors import HindsightError
from hindsight.market.streams import from_ms, to_ms
from hindsight.settings import Settings, load
from hindsight.store import summaries
from hindsight.store.warehouse import Warehouse
from pipelines.up.supervise import Part

VENUE_SAYS = "venue at "
VENUE_URL = "HINDSIGHT_VENUE_URL"
PATIENCE_SECONDS = 2.0


def market_parts(settings: Settings, say: Callable[[str], None]) -> list[Part]:
    """The feed, and before it the venue that it needs; none for an archive, whose candles are all there already."""
    if settings.source.startswith("archive:"):
        say(f"no feed: nothing new comes out of {settings.source}")
        return []
    command = [sys.executable, "-m", "pipelines.up.feeding"]
    feed = Part(name="feed", command=lambda: command, is_wanted=lambda: has_venue(settings))
    if settings.source != "simulated" or settings.venue_url:
        return [feed]
    return [Part(name="venue", command=_Venue(settings).command, heard=_note_address), feed]


def has_venue(settings: Settings) -> bool:
    """Whether it is known where the venue is. Until then nothing may start: all parts have to agree on it."""
    return settings.source != "simulated" or bool(os.environ.get(VENUE_URL) or settings.venue_url)


def note_positions(settings: Settings) -> dict[str, int]:
    """Tells the feed, which never opens DuckDB, how far each stream is stored; and returns what it told."""
    file = settings.landing_path / "resume.json"
    # Told before, the feed knows the rest by what it has landed since, and may not wait for whoever holds the tables.
    patience = min(PATIENCE_SECONDS, settings.lock_timeout_seconds) if file.exists() else settings.lock_timeout_seconds
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=patience, queue_timeout_seconds=patience)
    with warehouse.reading() as con:
        last = summaries.last_candles(con).rows(named=True)
    positions = {f"{row['venue']} {row['symbol']} {row['timeframe']}": to_ms(row["last"]) for row in last}
    settings.landing_path.mkdir(parents=True, exist_ok=True)
    draft = settings.landing_path / f".resume.json.{os.getpid()}"
    draft.write_text(json.dumps(positions))
    draft.replace(file)
    return positions


class _Venue:
    """The command of the venue. Started again, it has the same address, and its clock has gone on meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self.speed, self.started_at = settings.venue_speed, time.monotonic()
        # A clock that runs fast may have left candles that are ahead of ours.
        stored = note_positions(settings) if self.speed > 1 else {}
        ends = [from_ms(stored[str(each)]) + each.step for each in settings.streams if str(each) in stored]
        self.start = max([datetime.now(UTC), *ends])

    def command(self) -> Sequence[str]:
        now = self.start + timedelta(seconds=(time.monotonic() - self.started_at) * self.speed)
        port = urlsplit(os.environ.get(VENUE_URL, "")).port or 0
        arguments = ["--port", str(port), "--speed", str(self.speed), "--start", now.isoformat()]
        return [sys.executable, "-m", "hindsight", "venue", *arguments]


def _note_address(line: str) -> None:
    if line.startswith(VENUE_SAYS):
        os.environ[VENUE_URL] = line.removeprefix(VENUE_SAYS).strip()


if __name__ == "__main__":
    try:
        note_positions(load())
    except HindsightError as error:
        print(f"going on from what has landed, since the tables cannot say how far they are: {error}", file=sys.stderr)
    os.execv(sys.executable, [sys.executable, "-m", "hindsight", "feed"])
