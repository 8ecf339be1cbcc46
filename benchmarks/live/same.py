"""Whether what was recorded and learned live is what a backfill of the same stretch makes, in a fresh home.

Six hours of the market in six minutes. The stretch begins with the history that the feed fetched first.
"""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.live.drain import come_to_rest
from benchmarks.live.likeness import likenesses, show
from benchmarks.live.report import Report
from benchmarks.live.sound import candles_beside_the_venues
from benchmarks.live.stage import stage
from benchmarks.live.twin import backfilled
from hindsight.exchange.sources import open_source

# Nothing is corrected or missing in the 1,000 minutes before: of those nobody can tell any more what came first. Then
# ETH/USDT's candle of 22:59 is corrected at 23:00:11, and BTC/USDT has none from 00:27 to 00:30.
START = datetime(2024, 2, 18, 21, 50, tzinfo=UTC)
MINUTES, SPEED = 6.0, 60.0


def measure(report: Report, folder: Path, minutes: float, speed: float) -> None:
    """The comparison, table by table."""
    place = folder / "same"
    with stage(place, speed=speed, start=START) as running:
        report.say(f"same: live, {minutes * speed / 60:g} hours of the market in {minutes:g} minutes")
        time.sleep(minutes * 60)
        state = running.venue.state()
        rested = come_to_rest(running)
        report.say("same: did not come to rest" if rested is None else f"same: at rest after {rested:.0f} s")
    live = running.settings
    report.say("same: the same stretch is backfilled into a fresh home")
    twin = backfilled(live, place / "twin", open_source(live))
    found = likenesses(live, twin)
    candles = candles_beside_the_venues(live, state)
    show(found, report.console)
    report.note("same", "tables", [asdict(each) for each in found])
    report.note("same", "candles", {name: asdict(each) for name, each in candles.items()})
    apart = [each.table for each in found if not each.is_same]
    closes = sum(each.stored for each in candles.values())
    report.add(
        Figure(
            name=f"live = backfill, {minutes * speed / 60:g} hours at {speed:g}×",
            goal="identical; weights and predictions within 1e-5",
            measured=f"{', '.join(apart)} differ" if apart else f"{len(found)} tables, {closes} candles: the same",
            ratio=f"farthest apart: {max(each.farthest for each in found):.1e}",
            is_reached=rested is not None and not apart,
        )
    )
