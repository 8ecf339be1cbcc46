"""Whether the live path keeps up, as a check on each asset that it moves.

They cover the present, whatever months a run has. A live run asks nothing of the kind: the sensor `freshness` reports
the same answers without a run when one changes, and the job `health` asks by hand.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from assets.metadata import as_table
from hindsight.exchange.venue_time import venue_clock
from hindsight.health.findings import Finding, Kind
from hindsight.health.report import Health, health
from hindsight.settings import load

# The asset that each is asked of, and the kinds of findings that answer it.
QUESTIONS: dict[str, tuple[str, tuple[Kind, ...], str]] = {
    "late_candles": ("candles", ("candles",), "Which streams get their candles late, or not at all?"),
    "late_feed": ("candles", ("feed", "connection"), "How old is what the feed heard last, and what is not connected?"),
    "late_order_books": ("order_book", ("order_book",), "Which markets get their order book late, or not at all?"),
    "late_predictions": (
        "inference_references",
        ("inference_references",),
        "Which models predict late, or not at all?",
    ),
    "skill_lost": ("outcomes", ("skill",), "Which models know less than they did, or no more than the class prior?"),
    "late_checkpoints": ("checkpoints", ("checkpoints",), "Which models learn late, or not at all?"),
}
BAD = ("late", "dead")
LESS_IS_WORSE = {"gain", "days", "messages", "stored_closes", "predicted_closes", "trained_closes"}


@dg.multi_asset_check(
    name="health_checks",
    specs=[dg.AssetCheckSpec(name, asset=asset, description=text) for name, (asset, _, text) in QUESTIONS.items()],
    can_subset=True,
)
def health_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """How far the live path is behind the market at this moment."""
    settings = load()
    found = health(settings, venue_clock(settings.heartbeat_path)())
    for name, (asset, kinds, _) in QUESTIONS.items():
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        if key in context.selected_asset_check_keys:
            yield dg.AssetCheckResult(asset_key=key.asset_key, check_name=key.name, **answer(found, kinds))


def evaluations(found: Health) -> list[dg.AssetCheckEvaluation]:
    """The same answers, to be reported without a run."""
    return [
        dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), check_name=name, **answer(found, kinds))
        for name, (asset, kinds, _) in QUESTIONS.items()
    ]


def answer(found: Health, kinds: Sequence[Kind]) -> dict[str, Any]:
    """Passed where nothing of these kinds is late or dead; a warning where it is late, an error where it is dead."""
    # Where the tables cannot be read, that is the answer to what only they could tell.
    is_told = found.tables is not None or "feed" in kinds
    findings = found.of(*kinds) if is_told else [each for each in found.of("home") if each.verdict in BAD]
    bad = [each for each in findings if each.verdict in BAD]
    is_dead = any(each.verdict == "dead" for each in bad)
    return {
        "passed": not bad,
        "severity": dg.AssetCheckSeverity.ERROR if is_dead else dg.AssetCheckSeverity.WARN,
        "description": " ".join(f"{each.name}: {each.sentence}" for each in bad) or _all_well(found),
        "metadata": {
            "moment": dg.MetadataValue.timestamp(found.now),
            **{verdict: sum(each.verdict == verdict for each in findings) for verdict in ("ok", "late", "dead", "off")},
            **_worst(findings),
            **({"findings": as_table(found.frame(*kinds))} if found.of(*kinds) else {}),
        },
    }


def _all_well(found: Health) -> str:
    return "All in time." if found.was_ever_live else "Nothing was ever live here."


def _worst(findings: Sequence[Finding]) -> dict[str, float]:
    """The worst value of each figure, which the UI plots over time: the greatest, or the least where less is worse."""
    worst: dict[str, float] = {}
    for finding in findings:
        for name, value in finding.figures.items():
            if isinstance(value, int | float):
                worse = min if name in LESS_IS_WORSE else max
                worst[name] = worse(value, worst.get(name, value))
    return worst
