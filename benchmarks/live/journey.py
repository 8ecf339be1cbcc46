"""How far each close had come when: from the tables' own notes, the turns of the lock, and Dagster's events."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from benchmarks.live.spread import Spread
from benchmarks.live.stage import Stage
from benchmarks.live.venue import Venue
from hindsight.exchange.sources import open_source
from hindsight.market.streams import Window
from hindsight.store.rows import select

STAGES = ("stored", "predicted", "trained")
NEAR_SECONDS = 0.05  # the feed's idea of the venue's clock and ours may differ by so much
AT_ONCE = 500
Close = tuple[str, datetime]  # stream, close time


@dataclass(frozen=True, slots=True)
class Journeys:
    """Per stage and close, seconds since 1970 at which it stood in the tables for others to read.

    The note is taken as its transaction is about to end; `by_turn` of those instants are the end of the turn of the
    lock in which it was taken, and `by_note` the note itself, where no such turn was seen.
    """

    reached: Mapping[str, Mapping[Close, float]]
    by_turn: int
    by_note: int

    def spread(self, stage: str, closes: Sequence[Close], venue: Venue) -> Spread:
        """Seconds of ours from each close to the stage."""
        there = self.reached[stage]
        seconds = [there[close] - venue.here(close[1]) for close in closes if close in there]
        return Spread.of(seconds, unseen=len(closes) - len(seconds))


def journeys(stage: Stage, since: datetime) -> Journeys:
    """How far the closes after `since` have come."""
    turns = sorted((turn["since"], turn["until"]) for turn in stage.turns if turn["kind"] == "run")
    begins = [begin for begin, _ in turns]
    reached: dict[str, dict[Close, float]] = {name: {} for name in STAGES}
    found = {True: 0, False: 0}
    for name, close, at in _notes(stage, since):
        here = stage.venue.here(at)
        turn = bisect_right(begins, here + NEAR_SECONDS) - 1
        is_in_turn = turn >= 0 and here - NEAR_SECONDS <= turns[turn][1]
        found[is_in_turn] += 1
        reached[name][close] = max(here, turns[turn][1]) if is_in_turn else here
    return Journeys(reached, by_turn=found[True], by_note=found[False])


def expected(stage: Stage, since: datetime, until: datetime) -> list[Close]:
    """The closes after `since`, up to `until`, of the candles that the venue delivered."""
    source = open_source(stage.settings)
    return [
        (str(stream), open_time + stream.step)
        for stream in stage.settings.streams
        for frame in source.candles(stream, Window(start=since - stream.step, end=until))
        for open_time, revision in frame.select("open_time", "revision").iter_rows()
        if revision == 0 and open_time + stream.step > since
    ]


def pivots_confirmed(instance: dg.DagsterInstance, since: float) -> dict[Close, float]:
    """When Dagster noted that a close had confirmed a level-2 pivot live: seconds since 1970, by stream and close."""
    found: dict[Close, float] = {}
    for record in _records(instance, since):
        assert record.asset_materialization is not None
        said = {name: value.value for name, value in record.asset_materialization.metadata.items()}
        if said.get("mode") == "live" and said.get("level_2"):
            close = datetime.fromtimestamp(float(str(said["closed"])), UTC)
            found.setdefault((str(said["stream"]), close), record.timestamp)
    return found


def _records(instance: dg.DagsterInstance, since: float) -> Iterator[dg.EventLogRecord]:
    wanted, cursor = dg.AssetRecordsFilter(asset_key=dg.AssetKey("pivots"), after_timestamp=since), None
    while True:
        page = instance.fetch_materializations(wanted, limit=AT_ONCE, cursor=cursor, ascending=True)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _notes(stage: Stage, since: datetime) -> Iterator[tuple[str, Close, datetime]]:
    with stage.warehouse.reading() as con:
        rows = select(
            con,
            """
            select stage, venue || ' ' || symbol || ' ' || timeframe as stream, close_time, min(reached_at) as at
            from timings
            where close_time > $since
            group by stage, stream, close_time
            """,
            since=since,
        )
    for name, stream, close, at in rows.iter_rows():
        yield name, (stream, close.astimezone(UTC)), at
