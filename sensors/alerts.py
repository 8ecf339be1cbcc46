"""The sensors that call a person: `run_failed` when a run fails, `freshness` when something live is late or dead.

Both only tell: what can be done without a person, the feed, the supervisor and the other sensors do by themselves.
"""

import json
import re
from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.health_checks import BAD, evaluations
from hindsight.exchange.venue_time import venue_clock
from hindsight.health.alerts import Alert, alert, alert_all, recovered, standing
from hindsight.health.findings import Finding
from hindsight.health.report import Health, health
from hindsight.settings import Settings, load

SHOWN_AGAIN = timedelta(hours=1)  # the checks, where no verdict changes
FAILED = re.compile(r"run of (\S+) failed: ")
TROUBLE = "trouble with "
ENDS = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]


@dg.run_failure_sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells a person of every run that failed, and why.",
)
def run_failed(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    kind, message = _error(context)
    tags = {name: run.tags.get(f"hindsight/{name}", "-") for name in ("trigger", "event_time", "streams", "models")}
    lines = [f"run {run.run_id}", *(f"{name.replace('_', ' ')}: {value}" for name, value in tags.items()), message]
    alert(load(), f"run of {run.job_name} failed: {kind}", "\n".join(lines), "failure", datetime.now(UTC))


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks at all that is live, tells what needs a person in two looks on end, and shows it on the assets.",
)
def freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    settings = load()
    found = health(settings, venue_clock(settings.heartbeat_path)())
    return look(settings, context.instance, context.cursor, found, datetime.now(UTC))


def look(
    settings: Settings, instance: dg.DagsterInstance, cursor: str | None, found: Health, now: datetime
) -> dg.SensorResult:
    """What follows from one look at `found`; `now` is this machine's clock. The cursor holds what the last look saw."""
    before = json.loads(cursor) if cursor else {"verdicts": {}, "calls": [], "shown": None}
    verdicts = {finding.name: finding.verdict for finding in found.findings if finding.kind != "connection"}
    calling = [finding for finding in found.findings if finding.needs_a_person]
    told = alert_all(settings, [_alert(each) for each in calling if each.name in before["calls"]], now)
    ended = recovered(settings, _over(settings, instance, found), now)
    is_due = before["shown"] is None or now - datetime.fromisoformat(before["shown"]) >= SHOWN_AGAIN
    is_shown = found.was_ever_live and (is_due or verdicts != before["verdicts"])
    seen = {
        "verdicts": verdicts,
        "calls": [finding.name for finding in calling],
        "shown": now.isoformat() if is_shown else before["shown"],
    }
    return dg.SensorResult(
        skip_reason=dg.SkipReason(
            "; ".join([_seen(found), *_said("told", [each.title for each in told]), *_said("over", ended)])
        ),
        asset_events=evaluations(found) if is_shown else [],
        cursor=json.dumps(seen),
    )


def _alert(finding: Finding) -> Alert:
    return Alert(
        title=f"{TROUBLE}{finding.name}",
        body=f"{finding.verdict}: {finding.sentence}",
        level="failure" if finding.verdict == "dead" else "warning",
    )


def _over(settings: Settings, instance: dg.DagsterInstance, found: Health) -> list[str]:
    """The alerts that stand and need not: all is well there again, or the job has succeeded since."""
    trouble = {f"{TROUBLE}{finding.name}" for finding in found.findings if finding.verdict in BAD}
    over = []
    for title in standing(settings):
        failed = FAILED.match(title)
        if failed is not None:
            runs = instance.get_runs(dg.RunsFilter(job_name=failed[1], statuses=ENDS), limit=1)
            is_over = bool(runs) and runs[0].status == dg.DagsterRunStatus.SUCCESS
        else:
            # Where the tables cannot be read, what they would say is not known.
            is_over = title not in trouble and found.tables is not None
        if is_over:
            over.append(title)
    return over


def _error(context: dg.RunFailureSensorContext) -> tuple[str, str]:
    """The kind of what went wrong, and its message: what was raised first, not what Dagster made of it."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return error.cls_name or "error", error.message.strip()
    return "no error of its own", context.failure_event.message or "Dagster gives no reason."


def _seen(found: Health) -> str:
    if not found.was_ever_live:
        return "nothing was ever live here"
    bad = [f"{finding.name} {finding.verdict}" for finding in found.findings if finding.verdict in BAD]
    return f"looked at {len(found.findings)} things: {', '.join(bad) if bad else 'none is late or dead'}"


def _said(word: str, titles: list[str]) -> list[str]:
    return [f"{word}: {', '.join(titles)}"] if titles else []
