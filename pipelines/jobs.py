"""The jobs: the whole chain over history, and one model's learning by hand.

`learn` joins references to outcomes, validates trend lines, trains and checkpoints. These four interleave event by
event (a training step needs the outcomes of this close, the next prediction the weights of that step), so they are one
function of the domain and one op here; what can stand apart is what was due before it and how things stand after it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from assets.health_checks import health_checks
from assets.metadata import as_table
from hindsight.market.streams import Stream
from hindsight.settings import load
from hindsight.store import summaries
from resources.scope import instant
from resources.warehouse import WarehouseResource

HEALTH = dg.AssetSelection.checks(health_checks)  # of the present, not of the months that a run covers
backfill = dg.define_asset_job(
    "backfill",
    # No venue tells the past of its book.
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("order_book") - HEALTH,
    description="Candles to checkpoints over the months asked for. Running it again changes nothing.",
)

record = dg.define_asset_job(
    "record",
    selection=dg.AssetSelection.assets("candles", "indicators", "pivots"),
    description="Candles to pivots over the months asked for: what frames of other streams need before they learn.",
)

health = dg.define_asset_job(
    "health",
    selection=HEALTH,
    description="Asks how far the live path is behind the market; the sensor `freshness` reports it without a run.",
)


class Lesson(dg.Config):
    """Whose learning to bring up to date. Left empty: every stream, every model, up to now."""

    stream: str = ""
    model: str = ""
    until: str = ""


@dg.op
def due(context: dg.OpExecutionContext, config: Lesson, warehouse: WarehouseResource) -> list[list[str]]:
    """The [stream, model, until] to learn: those asked for, of the streams that are predicted."""
    from hindsight.models_command import predicted_stream  # a command line's packages are not for every process

    settings = load()
    streams = [predicted_stream(settings, config.stream)] if config.stream else settings.predicted_streams
    until = (instant(config.until, "until") or datetime.now(UTC)).isoformat()
    with warehouse.open().reading() as con:
        stored, learned = summaries.stored(con), summaries.learned(con)
    context.add_output_metadata({"stored": as_table(stored), "due": as_table(learned)})
    models = [config.model] if config.model else settings.models
    return [[str(stream), model, until] for stream in streams for model in models]


@dg.op(out={"learned": dg.Out(list[str]), "failed": dg.Out(list[str])})
def join_validate_train_checkpoint(lessons: list[list[str]]) -> tuple[list[str], list[str]]:
    """Joins references to outcomes, validates trend lines, trains and checkpoints, all in the order of events: what
    was done, and what has failed meanwhile."""
    from hindsight.lessons import learn_each  # torch takes over a second to import

    ends = {Stream.parse(stream): datetime.fromisoformat(until) for stream, _, until in lessons}
    models = list(dict.fromkeys(model for _, model, _ in lessons))
    taught = learn_each(load(), list(ends.items()), lambda *_: None, datetime.now(UTC), models)
    failed = [f"{model}, {stream}: {error!r}" for (stream, model), error in taught.failures.items()]
    return [f"{about}: {done}" for about, done in taught.reports.items()], failed


@dg.op
def report(warehouse: WarehouseResource, learned: list[str], failed: list[str]) -> Iterator[dg.Output[None]]:
    """How things stand now: trends, scores against the baselines, checkpoints. Fails, then, with what has failed."""
    with warehouse.open().reading() as con:
        figures = {
            "learned": learned,
            "trend_stats": as_table(summaries.trend_stats(con)),
            "scores": as_table(summaries.scores(con)),
            "checkpoints": as_table(summaries.checkpoints_held(con)),
        }
    yield dg.Output(None, metadata=figures)
    if failed:
        raise dg.Failure("\n".join(failed), allow_retries=False)


@dg.job(description="Learns what the recorded candles have answered: predict, settle, validate, train, checkpoint.")
def learn() -> None:
    report(*join_validate_train_checkpoint(due()))
