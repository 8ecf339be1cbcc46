"""Health: how far the live path is behind the market, thing by thing, and what a person should do about it.

Read from the tables in one short turn, and from the feed's heartbeat. `hindsight status` prints it, asset checks show
it in the UI, and the sensor `freshness` tells it to people. A home that was never live has none of it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from hindsight.errors import HindsightError
from hindsight.exchange.heartbeat import Beat, read_beat
from hindsight.exchange.landing import Landing
from hindsight.health.findings import Finding, Kind, Now, calls
from hindsight.health.judge_feed import judge_feed, judge_home, judge_part
from hindsight.health.judge_skill import judge_skill
from hindsight.health.judge_tables import judge_book, judge_candles, judge_learning, judge_predictions
from hindsight.market.streams import from_ms
from hindsight.settings import Settings
from hindsight.store.standings import Standings, read_standings
from hindsight.store.warehouse import Warehouse

WAIT_SECONDS = 5.0  # for a foreign program to let go of the warehouse; health is soon asked for again
WORST_FIRST = ("dead", "late", "off", "ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What was found at `now` of the venue's clock. `tables` is None where they could not be read."""

    now: datetime
    findings: Sequence[Finding] = ()
    tables: Standings | None = None

    @property
    def was_ever_live(self) -> bool:
        """Whether a feed ever ran in this home."""
        return bool(self.findings)

    def of(self, *kinds: Kind) -> list[Finding]:
        """The findings of these kinds."""
        return [each for each in self.findings if each.kind in kinds]

    def frame(self, *kinds: Kind) -> pl.DataFrame:
        """The findings of these kinds as a table with a column per figure, the worst first."""
        found = sorted(self.of(*kinds), key=lambda each: WORST_FIRST.index(each.verdict))
        rows = [{"verdict": f.verdict, "about": f.about, **f.figures, "sentence": f.sentence} for f in found]
        return pl.DataFrame(rows, infer_schema_length=None)


def health(settings: Settings, now: datetime) -> Health:
    """How everything live stands when the venue's clock shows `now`; a warehouse that is not to be had is a finding."""
    if not settings.heartbeat_path.exists():
        return Health(now=now)
    beat = read_beat(settings.heartbeat_path)
    clock = Now(at=now, speed=beat.speed if beat else settings.venue_speed, late_seconds=settings.late_seconds)
    feed = judge_feed(beat, clock)
    parts = {name: judge_part(name, beat, feed, clock) for name in _expected(settings, beat)}
    home = judge_home(shutil.disk_usage(settings.home).free, _set_aside(settings.landing_path))
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=WAIT_SECONDS)
    try:
        with warehouse.reading() as con:
            tables = read_standings(con, settings.streams, settings.learners, now, clock.speed)
    except HindsightError as error:
        locked = calls("home", "warehouse", "dead", str(error), {})
        return Health(now=now, findings=[feed, *parts.values(), *home, locked])
    found = _judge_tables(settings, tables, parts, clock)
    return Health(now=now, findings=[*found, feed, *parts.values(), *home], tables=tables)


def _judge_tables(settings: Settings, tables: Standings, parts: dict[str, Finding], now: Now) -> list[Finding]:
    waiting = [path for path in Landing(settings.landing_path).segments() if path.name.endswith("-candles.jsonl")]
    waiting_since = from_ms(int(waiting[0].name.split("-")[0])) if waiting else None
    candles = {
        each.stream: judge_candles(each, parts[f"{each.stream} candles"], waiting_since, now) for each in tables.streams
    }
    closes = {each.stream: each.close for each in tables.streams}
    predictions, learning = [], []
    # Where predictions are rarer than steps, replay runs out of what it may use again, and steps wait for the next one.
    step_every = max(settings.train_every, settings.predict_every)
    for each in tables.learners:
        close = closes[each.stream]
        predictions.append(judge_predictions(each, candles[each.stream], close, now))
        learning.append(judge_learning(each, predictions[-1], close, step_every, now))
    shortest = min(stream.step for stream in settings.streams)
    # Books are taken up together with candles: where none comes of any stream, no book is either.
    late = list(candles.values()) if all(each.verdict in ("late", "dead") for each in candles.values()) else []
    books = [
        judge_book(each, _first_late(*causes), shortest, now)
        for each in tables.books
        if settings.books and (causes := [*_book_part(each.symbol, parts), *late])
    ]
    return [*candles.values(), *predictions, *learning, *map(judge_skill, tables.skills), *books]


def _expected(settings: Settings, beat: Beat | None) -> list[str]:
    """The parts that the feed has, and those that it ought to have by the settings."""
    ought = [f"{stream} candles" for stream in settings.streams]
    if settings.books and not any(_is_book_of(symbol, name) for symbol in settings.symbols for name in _parts(beat)):
        ought += [f"{symbol} order_book" for symbol in settings.symbols]
    return list(dict.fromkeys([*_parts(beat), *ought]))


def _parts(beat: Beat | None) -> list[str]:
    return list(beat.parts) if beat else []


def _is_book_of(symbol: str, part: str) -> bool:
    """Whether a part hears the book of a market: `ETH/USDT order_book`, or `ETH/USDT kraken order_book`."""
    words = part.split(" ")
    return words[0] == symbol and words[-1] == "order_book"


def _book_part(symbol: str, parts: dict[str, Finding]) -> list[Finding]:
    """Of the connections that hear a market's book, on one venue or several, the one that fares best; or none."""
    of_market = [part for name, part in parts.items() if _is_book_of(symbol, name)]
    return [max(of_market, key=lambda part: WORST_FIRST.index(part.verdict))] if of_market else []


def _first_late(*causes: Finding) -> Finding:
    return next((each for each in causes if each.verdict != "ok"), causes[0])


def _set_aside(landing: Path) -> int:
    return sum(1 for _ in (landing / "refused").glob("*.jsonl"))
