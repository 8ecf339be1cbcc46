"""Dagster's runs and ticks while something is measured: how many of a job at once, and what the sensors answered."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

AT_ONCE = 500
OVERLAP = timedelta(seconds=15)  # looked at twice, so that none is missed
UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(slots=True)
class Runs:
    """The runs of one instance, noted as time goes by: old ones are forgotten (pipelines/home/forget.py)."""

    instance: dg.DagsterInstance
    seen: dict[str, tuple[str, str, float, float | None]] = field(default_factory=dict)  # job, status, start, end
    looked: datetime = field(default_factory=lambda: datetime.now(UTC))

    def look(self) -> dict[str, int]:
        """Notes what has changed since the last look, and counts the runs under way now, by job."""
        since, self.looked = self.looked - OVERLAP, datetime.now(UTC)
        for record in self.instance.get_run_records(dg.RunsFilter(updated_after=since), limit=AT_ONCE):
            run = record.dagster_run
            if record.start_time is not None:
                self.seen[run.run_id] = (run.job_name, run.status.value, record.start_time, record.end_time)
        under_way = self.instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY), limit=AT_ONCE)
        return dict(Counter(run.job_name for run in under_way))

    def most_at_once(self) -> dict[str, int]:
        """By job, the most runs whose start and end, as Dagster noted them, overlap."""
        edges: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for job, _, start, end in self.seen.values():
            edges[job] += [(start, 1), (end or float("inf"), -1)]
        return {job: _highest(sorted(moments)) for job, moments in edges.items()}

    def ended(self) -> dict[str, int]:
        """How many runs of each job ended how."""
        return dict(Counter(f"{job}: {status}" for job, status, *_ in self.seen.values()))


def _highest(moments: Iterable[tuple[float, int]]) -> int:
    now = highest = 0
    for _, change in moments:
        now += change
        highest = max(highest, now)
    return highest


def ticks(instance: dg.DagsterInstance, since: float) -> dict[str, dict[str, int]]:
    """By sensor, how many ticks since then ended how; of the skipped ones, the reasons without their numbers."""
    found: dict[str, dict[str, int]] = {}
    for state in instance.all_instigator_state():
        listed = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=since)
        counts = Counter(tick.status.value for tick in listed)
        counts["runs requested"] = sum(len(tick.run_ids) for tick in listed)
        counts["ended in an error"] = sum(tick.error is not None for tick in listed)
        found[state.instigator_name] = dict(counts)
    return found
