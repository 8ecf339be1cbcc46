"""Partitions: stream by UTC month, and which stretches of time a run of them covers.

One run covers a range of months, usually of one stream. Dagster cuts a backfill over n streams and m months into one
run per stream only where m > n; otherwise it cuts by month, and starts those runs together and in no order. Pivots and
learning carry state from month to month, so a run also covers every earlier month that its backfill asks for:
whichever run comes first does them, and the others find them done.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from hindsight.market.streams import Stream, Window, floor_to, next_month
from hindsight.settings import Settings, load
from resources.scope import ScopeResource


def stream_keys(settings: Settings) -> list[str]:
    """The streams of the settings, and those of which this home was ever filled by other settings."""
    return list(dict.fromkeys([*map(str, settings.streams), *_noted(settings)]))


def note_stream(settings: Settings, stream: Stream) -> None:
    """Notes a stream that has candles, so that the UI shows its runs and partitions whatever is set later."""
    if str(stream) not in _noted(settings):
        with settings.streams_path.open("a") as notes:  # adds a line: streams are filled side by side
            notes.write(f"{stream}\n")


def _noted(settings: Settings) -> list[str]:
    return settings.streams_path.read_text().splitlines() if settings.streams_path.exists() else []


SETTINGS = load()
# The month that has begun is a partition too: a live run materialises it again and again.
MONTHS = dg.MonthlyPartitionsDefinition(start_date=SETTINGS.first_month, fmt="%Y-%m", end_offset=1)
STREAM_MONTHS = dg.MultiPartitionsDefinition(
    {
        "stream": dg.StaticPartitionsDefinition(stream_keys(SETTINGS)),
        "month": MONTHS,
    }
)
# An order book belongs to a market, whatever the timeframes are that its candles are recorded in.
MARKETS: dict[str, set[str]] = {}
for key in stream_keys(SETTINGS):
    MARKETS.setdefault(key.rpartition(" ")[0], set()).add(key)
MARKET_MONTHS = dg.MultiPartitionsDefinition({"market": dg.StaticPartitionsDefinition(list(MARKETS)), "month": MONTHS})
STREAMS_OF_MARKET = dg.MultiPartitionMapping(
    {
        "month": dg.DimensionPartitionMapping("month", dg.IdentityPartitionMapping()),
        "market": dg.DimensionPartitionMapping("stream", dg.StaticPartitionMapping(MARKETS)),
    }
)
PARTITION, BACKFILL = "dagster/partition", "dagster/backfill"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive months of one stream, cut at what has closed and at what the run asks for."""

    stream: Stream
    window: Window

    def __str__(self) -> str:
        return f"{self.stream} {self.window}"


def partition_key(stream: Stream, moment: datetime) -> dg.MultiPartitionKey:
    """The partition of `stream` that `moment` falls into."""
    return dg.MultiPartitionKey({"stream": str(stream), "month": f"{moment:%Y-%m}"})


def market_month(venue: str, symbol: str, moment: datetime) -> dg.MultiPartitionKey:
    """The partition of a market's order book that `moment` falls into."""
    return dg.MultiPartitionKey({"market": f"{venue} {symbol}", "month": f"{moment:%Y-%m}"})


def range_tags(stream: Stream, window: Window) -> dict[str, str]:
    """Run tags that say: every month of `stream` that `window` touches."""
    months = list(window.months())
    first, last = partition_key(stream, months[0].start), partition_key(stream, months[-1].start)
    return {RANGE_START: str(first), RANGE_END: str(last)}


def run_keys(tags: dict[str, str], partitions: dg.MultiPartitionsDefinition = STREAM_MONTHS) -> list[str]:
    """The partition keys that a run with `tags` materialises; none where it was started without partitions."""
    if PARTITION in tags:
        return [tags[PARTITION]]
    if RANGE_START not in tags:
        return []
    return list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])))


def stretches(
    run: dg.DagsterRun, instance: dg.DagsterInstance, since: datetime | None, until: datetime | None, now: datetime
) -> list[Stretch]:
    """What `run` covers: stream by stream, each in order of time, nothing that has not closed at `now`."""
    own = _months_by_stream(run_keys(dict(run.tags)))
    asked = _months_by_stream(_backfill_keys(run, instance))
    covered = []
    for stream, months in own.items():
        earlier = (month for month in asked.get(stream, ()) if month < max(months))
        end = floor_to(min(until or now, now), stream.step)
        for window in _joined(sorted({*months, *earlier})):
            start = max(window.start, since or window.start)
            if start < min(window.end, end):
                covered.append(Stretch(stream=stream, window=Window(start=start, end=min(window.end, end))))
    return covered


def covered_by(context: dg.AssetExecutionContext, scope: ScopeResource) -> list[Stretch]:
    """What the run of an asset covers; nothing where nothing of it has closed yet.

    Raises dg.Failure for a run without months, or with a scope outside of them: they would count as filled.
    """
    run, now, (since, until) = context.run, scope.now(), scope.bounds()
    if not run_keys(dict(run.tags)):
        raise dg.Failure("expected a stream and months, found no partition: choose some", allow_retries=False)
    if covered := stretches(run, context.instance, since, until, now):
        return covered
    months = stretches(run, context.instance, None, None, now)
    if months and not any(_touches(each.window, since, until) for each in months):
        raise dg.Failure(
            f"expected since and until inside the months chosen, {', '.join(map(str, months))}; "
            f"found since {scope.since or 'their start'}, until {scope.until or 'their end'}",
            allow_retries=False,
        )
    return []


def _touches(window: Window, since: datetime | None, until: datetime | None) -> bool:
    return max(window.start, since or window.start) < min(window.end, until or window.end)


def _backfill_keys(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterable[str]:
    """What the backfill of `run` asks of assets that are partitioned by stream; the order book's runs are others."""
    backfill = instance.get_backfill(run.tags[BACKFILL]) if BACKFILL in run.tags else None
    if backfill is None or backfill.asset_backfill_data is None:
        return []
    subsets = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.values()
    asked = [set(subset.get_partition_keys()) for subset in subsets]
    return {key for keys in asked if any(map(STREAM_MONTHS.has_partition_key, keys)) for key in keys}


def _months_by_stream(keys: Iterable[str]) -> dict[Stream, set[datetime]]:
    months: dict[Stream, set[datetime]] = {}
    for key in keys:
        by_dimension = STREAM_MONTHS.get_partition_key_from_str(key).keys_by_dimension
        month = datetime.strptime(by_dimension["month"], "%Y-%m").replace(tzinfo=UTC)
        months.setdefault(Stream.parse(by_dimension["stream"]), set()).add(month)
    return months


def _joined(months: list[datetime]) -> Iterator[Window]:
    start = months[0]
    for month, following in zip(months, [*months[1:], None], strict=True):
        if following != next_month(month):
            yield Window(start=start, end=next_month(month))
            start = following or start
