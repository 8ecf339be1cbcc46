"""How the live path stands, for the terminal: what each stream has come to, how the feed fares, whom it needs."""

from collections.abc import Sequence

from rich.console import Console

from hindsight.fact_table import print_facts, shown, slim_table
from hindsight.health.findings import Finding, Kind
from hindsight.health.report import Health
from hindsight.store.standings import Lateness, LearnerStanding, Standings

STYLES = {"ok": "green", "late": "yellow", "dead": "red", "off": "dim"}
COUNTS = {"messages": "heard", "refused": "refused", "reconnects": "drops", "filled": "filled", "missing": "missing"}


def print_live(health: Health, console: Console) -> None:
    """Nothing in a home that was never live."""
    if not health.was_ever_live:
        return
    if health.tables is not None:
        streams = [str(each.stream) for each in health.tables.streams]
        print_facts(console, "Live (seconds after the close: p50 / p95)", _facts(health, health.tables), streams)
    _print_feed(console, [*health.of("feed"), *health.of("connection")])
    for finding in health.findings:
        if finding.needs_a_person:
            console.print(f"{_verdict(finding)} {finding.name}: {finding.sentence}", highlight=False)


def _facts(health: Health, tables: Standings) -> dict[str, Sequence[object]]:
    """Per stream; of each model where there are several."""
    books = {finding.about: finding for finding in health.of("order_book")}
    facts: dict[str, Sequence[object]] = {
        "last close": [None if each.close is None else f"{each.close:%m-%d %H:%M:%S}" for each in tables.streams],
        "candles": [_verdict(each) for each in health.of("candles")],
        "stored": [_spread(each.stored) for each in tables.streams],
        "order book": [_verdict(books.get(f"{s.stream.venue} {s.stream.symbol}")) for s in tables.streams],
    }
    models = list(dict.fromkeys(each.model for each in tables.learners))
    for model in models:
        of_model = [each for each in tables.learners if each.model == model]
        name = f" {model}" if len(models) > 1 else ""
        facts |= {
            f"predictions{name}": _verdicts(health, "inference_references", of_model),
            f"predicted{name}": [_spread(each.predicted) for each in of_model],
            f"learning{name}": _verdicts(health, "checkpoints", of_model),
            f"trained{name}": [_spread(each.trained) for each in of_model],
            f"candles since step{name}": [each.step_age for each in of_model],
            f"candles since checkpoint{name}": [each.checkpoint_age for each in of_model],
        }
    return facts


def _print_feed(console: Console, findings: Sequence[Finding]) -> None:
    """The feed itself, and a line per part; ages in seconds."""
    feed, *parts = findings
    lost = feed.figures.get("lost_rows")
    title = f"Feed: {_verdict(feed)}, heartbeat {_seconds(feed)} s old" + (f", {lost} rows lost" if lost else "")
    table = slim_table(title)
    table.add_column("part", no_wrap=True)
    table.add_column("state")
    for name in ("age", *COUNTS.values()):
        table.add_column(name, justify="right")
    for part in parts:
        state = f"[{STYLES[part.verdict]}]{part.figures.get('state', 'absent')}[/]"
        counts = (shown(part.figures.get(name)) for name in COUNTS)
        table.add_row(_without_venue(part.about), state, _seconds(part), *counts)
    console.print(table)
    for part in parts:
        if part.figures.get("refusals"):
            console.print(f"refused of {part.about}: {part.figures['refusals']}", highlight=False)


def _seconds(finding: Finding) -> str:
    age = finding.figures.get("age")
    return f"{age:,.1f}" if isinstance(age, float) else "-"


def _without_venue(part: str) -> str:
    """All streams of a home are of one venue, and eighty columns are few."""
    before, _, kind = part.rpartition(" ")
    return f"{before.partition(' ')[2] if kind == 'candles' else before} {kind.replace('_', ' ')}"


def _verdicts(health: Health, kind: Kind, learners: Sequence[LearnerStanding]) -> list[str]:
    found = {finding.about: finding for finding in health.of(kind)}
    return [_verdict(found.get(f"{each.stream} {each.model}")) for each in learners]


def _verdict(finding: Finding | None) -> str:
    return "-" if finding is None else f"[{STYLES[finding.verdict]}]{finding.verdict}[/]"


def _spread(lateness: Lateness | None) -> str:
    return "-" if lateness is None else f"{lateness.p50:.2f} / {lateness.p95:.2f}"
