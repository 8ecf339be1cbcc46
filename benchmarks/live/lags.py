"""How far the tables were behind the venue, moment by moment, and how long they took to come back from each fault."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from benchmarks.live.faults import Done
from benchmarks.live.venue import Venue
from hindsight.market.streams import Stream, to_ms

BEHIND_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lag:
    """At one moment (seconds since 1970 by our clock), and per stream: for how long the next candle has been overdue,
    in seconds of the venue's clock.
    """

    at: float
    by_stream: Mapping[str, float]

    @property
    def most(self) -> float:
        """Of the stream that is farthest behind."""
        return max(self.by_stream.values())


def lags(
    readings: Sequence[Mapping[str, Any]], venue: Venue, streams: Sequence[Stream], absent: Mapping[str, set[datetime]]
) -> list[Lag]:
    """One per reading that saw every stream. `absent` are the candles that the venue does not have."""
    absent_ms = {name: {to_ms(moment) for moment in moments} for name, moments in absent.items()}
    found = []
    for reading in readings:
        at = reading["asked"] + reading["waited"]
        if len(reading["closes"]) == len(streams):
            now_ms = venue.now_ms(at)
            overdue = {}
            for stream in streams:
                name = str(stream)
                next_ms = reading["closes"][name]  # a candle opens when the one before closes
                while next_ms in absent_ms.get(name, ()):
                    next_ms += stream.step_ms
                overdue[name] = max(0.0, (now_ms - next_ms - stream.step_ms) / 1000)
            found.append(Lag(at, overdue))
        elif found:  # refused: nothing is known, and so nothing has come nearer
            before = found[-1]
            grown = (at - before.at) * venue.speed
            found.append(Lag(at, {name: seconds + grown for name, seconds in before.by_stream.items()}))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What a fault did: the farthest behind until the next fault, and when nothing was far behind any more."""

    name: str
    since: float
    until: float
    most: float
    recovered_seconds: float  # 0 where nothing ever was


def disturbances(found: Sequence[Lag], done: Sequence[Done], end: float) -> list[Disturbance]:
    """One per fault, each reaching to the next one."""
    edges = [each.at for each in done] + [end]
    listed = []
    for number, each in enumerate(done):
        since, until = each.at, edges[number + 1]
        within = [lag for lag in found if since <= lag.at < until]
        behind = [lag.at for lag in within if lag.most > BEHIND_SECONDS]
        listed.append(
            Disturbance(
                name=each.planned.name,
                since=since,
                until=until,
                most=max((lag.most for lag in within), default=0.0),
                recovered_seconds=behind[-1] - since if behind else 0.0,
            )
        )
    return listed


def undisturbed(found: Sequence[Lag], listed: Sequence[Disturbance], margin_seconds: float) -> list[Lag]:
    """The moments outside of faults: not within `margin_seconds` after one, nor before it was recovered from."""
    away = [(each.since, each.since + max(margin_seconds, each.recovered_seconds + 1)) for each in listed]
    return [lag for lag in found if not any(since <= lag.at <= until for since, until in away)]
