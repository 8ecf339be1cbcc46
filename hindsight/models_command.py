"""The commands `hindsight models …`: which checkpoints there are, which one serves, and why; and a word by hand on it.

hindsight models list
hindsight models rollback cnn
"""

from typing import Annotated

import typer

from hindsight.errors import SettingRefused
from hindsight.market.streams import Stream
from hindsight.settings import Settings, load
from hindsight.terminal import console, told_plainly

models = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help=(
        "List what each model has learned, and choose which of its weights serve.\n\n"
        "What serves predicts beside the weights that learn, and is what decisions are made from. It changes by itself"
        " where the evidence is good enough, and by hand here; learning goes on either way."
    ),
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help="one of the setting models")]
Checkpoint = Annotated[int, typer.Argument(metavar="ID", help="the number of training steps behind it")]
OfStream = Annotated[
    str,
    typer.Option("--stream", metavar="STREAM", help='as in "ETH/USDT 1m"; may be left out where only one is predicted'),
]


@models.command("list")
def list_models(
    stream: Annotated[
        str, typer.Option("--stream", metavar="STREAM", help='only this one, as in "ETH/USDT 1m"; default: all')
    ] = "",
) -> None:
    """Print, per model and stream, the checkpoints that are kept, and the last looks with their evidence."""
    from hindsight.model_printing import print_models
    from hindsight.status import model_status

    with told_plainly():
        settings = load()
        streams = [predicted_stream(settings, stream)] if stream else list(settings.predicted_streams)
        print_models(model_status(settings, streams), console)


@models.command()
def promote(model: Model, checkpoint: Checkpoint, stream: OfStream = "") -> None:
    """Make a checkpoint serve from the next close on, whatever the evidence says.

    One whose file has been evicted is brought back, from an earlier snapshot and the training steps since.

      hindsight models promote cnn 12000
    """
    with told_plainly():
        _serve(model, stream, checkpoint)


@models.command()
def rollback(model: Model, stream: OfStream = "") -> None:
    """Make the checkpoint that served before serve again, from the next close on. Once more, and it is the one before.

    hindsight models rollback cnn
    """
    with told_plainly():
        _serve(model, stream, None)


@models.command()
def pin(
    model: Model,
    checkpoint: Checkpoint,
    stream: OfStream = "",
    off: Annotated[bool, typer.Option("--off", help="keep it no longer than its score says")] = False,
) -> None:
    """Keep a checkpoint whatever its score.

    hindsight models pin cnn 12000
    """
    with told_plainly():
        settings = load()
        chosen = predicted_stream(settings, stream)
        _check(settings, model)
        from hindsight.serve import pin as keep  # torch takes over a second to import

        keep(settings, model, chosen, checkpoint, is_pinned=not off)
        console.print(
            f"{model} of {chosen}: checkpoint {checkpoint}"
            + (" is kept no longer than its score says." if off else " stays whatever its score."),
            highlight=False,
        )


def _serve(model: str, stream: str, to: int | None) -> None:
    settings = load()
    chosen = predicted_stream(settings, stream)
    _check(settings, model)
    from hindsight.serve import set_serving  # torch takes over a second to import

    said = set_serving(settings, model, chosen, to)
    if said.before == said.after:
        console.print(f"{model} of {chosen}: checkpoint {said.after} serves already.", highlight=False)
    else:
        before = "the newest weights" if said.before is None else f"checkpoint {said.before}"
        console.print(
            f"{model} of {chosen}: checkpoint {said.after} serves from the next close after"
            f" {said.since:%Y-%m-%d %H:%M:%S} UTC on, instead of {before}.",
            highlight=False,
            soft_wrap=True,
        )
    if said.is_brought_back:
        console.print("Its file was gone, and has been made again from the training steps.")


def _check(settings: Settings, model: str) -> None:
    if model not in settings.models:
        raise SettingRefused(f"expected a model of the setting models, {', '.join(settings.models)}, found {model!r}")


def predicted_stream(settings: Settings, named: str) -> Stream:
    """The predicted stream of that name, or the only one. Raises SettingRefused where it is unknown, or one of many."""
    streams = list(settings.predicted_streams)
    names = " or ".join(f'"{each.symbol} {each.timeframe}"' for each in streams)
    if not named:
        if len(streams) > 1:
            raise SettingRefused(f"{len(streams)} streams are predicted: say which with --stream {names}")
        return streams[0]
    for each in streams:
        if named in (str(each), f"{each.symbol} {each.timeframe}"):
            return each
    raise SettingRefused(f"--stream: expected {names}, which are predicted, found {named!r}")
