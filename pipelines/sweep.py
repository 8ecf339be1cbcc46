"""The job `sweep`: one model over the same recorded history with many settings, as `hindsight sweep` does it."""

from datetime import UTC, datetime

import dagster as dg
import polars as pl

from assets.chart import as_png, picture
from assets.metadata import as_table
from hindsight.market.streams import Window
from hindsight.settings import load
from resources.scope import instant

WEEK_OF_PICTURE = 0.5  # a point stands in the middle of its week


class Trial(dg.Config):
    """What is tried over which history. Left empty: the only stream, the first model, up to now."""

    stream: str = ""
    model: str = ""
    since: str
    until: str = ""
    vary: list[str]  # as in "learning_rate=1e-4,2e-4"


@dg.op
def try_settings(context: dg.OpExecutionContext, config: Trial) -> None:
    """Teaches every combination of the varied settings from nothing, and ranks them by prequential loss."""
    from hindsight.models_command import predicted_stream
    from hindsight.sweep import grid_of  # torch takes over a second to import
    from hindsight.sweep import sweep as try_all

    settings = load()
    since, until = instant(config.since, "since"), instant(config.until, "until") or datetime.now(UTC)
    if since is None or since >= until:
        raise dg.Failure(f"since: expected a time before {until:%Y-%m-%d %H:%M}, found {config.since!r}")
    stream = predicted_stream(settings, config.stream)
    rows = try_all(
        settings,
        stream,
        config.model or settings.models[0],
        Window(start=since, end=until),
        grid_of(config.vary),
        lambda done, of: context.log.info(f"{done:,} of {of:,} closes"),
    )
    context.add_output_metadata(
        {
            "sweep_id": rows["sweep_id"][0],
            "best": rows["settings"][0],
            "loss": rows["loss"][0],
            "seconds": rows["seconds"][0],
            "variations": as_table(
                rows.select(
                    "place", "settings", "loss", "loss_late", "difference", "difference_low", "difference_high", "steps"
                )
            ),
            "weekly_loss": picture(draw(rows), "loss by week"),
        }
    )


def draw(rows: pl.DataFrame) -> bytes:
    """The loss of each week against that of the best variation, a line per variation, as a PNG."""
    from matplotlib.figure import Figure  # matplotlib takes half a second to import

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes, best = figure.add_subplot(), rows["weekly_loss"][0]
    for settings, weekly in rows.select("settings", "weekly_loss").iter_rows():
        lead = [loss - least for loss, least in zip(weekly, best, strict=True)]
        axes.plot([week + WEEK_OF_PICTURE for week in range(len(lead))], lead, marker=".", linewidth=1, label=settings)
    axes.set_title("prequential loss by week, against that of the best variation: lower is better", fontsize=10)
    axes.set_xlabel("weeks")
    axes.grid(alpha=0.2)
    if len(rows) <= 12:
        axes.legend(fontsize=7)
    return as_png(figure)


@dg.job(description="One model over the same history with many settings; ranks them. Changes nothing that is learned.")
def sweep() -> None:
    try_settings()
