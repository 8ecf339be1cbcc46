"""The command `hindsight`: the whole chain over history, the UI, and what is stored.

The command line is the front door: it alone inside `hindsight` calls `pipelines`, and only inside a command, so that
`hindsight --help` does not wait for Dagster.
"""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from hindsight.market.streams import Window, floor_to
from hindsight.models_command import models
from hindsight.settings import Settings, as_toml, load, make_home
from hindsight.terminal import console, told_plainly

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help=(
        "Predict a market, store every prediction by reference, and learn when the market has answered.\n\n"
        "[b]hindsight demo[/b] shows all of it on simulated candles in a few minutes; "
        "[b]hindsight backfill[/b] does it over your own history; "
        "[b]hindsight up[/b] does it live, and opens the UI.\n\n"
        "Everything lives under HINDSIGHT_HOME (default .hindsight/). Settings come from hindsight.toml, and each can "
        "be overridden by an environment variable, as in HINDSIGHT_SOURCE=archive:DIR."
    ),
)
app.add_typer(models, name="models")
DEMO = {
    "HINDSIGHT_SOURCE": "simulated",
    "HINDSIGHT_SYMBOLS": "ETH/USDT,BTC/USDT",
    "HINDSIGHT_TIMEFRAMES": "1m",
    "HINDSIGHT_PREDICTED": "",
    "HINDSIGHT_FRAME": "own,pivots",  # blocks of other streams would not be recorded
    "HINDSIGHT_FIRST_MONTH": "2024-01",
}


@app.command()
def demo() -> None:
    """Run the main job over 7 days of simulated ETH/USDT and BTC/USDT 1m candles, and print what came of it.

    Needs no network. Run it again and it finds everything done.
    """
    os.environ.update(DEMO)
    console.print("The data is [b]simulated[/b]: a seeded market with a known, planted predictability.")
    with told_plainly():
        settings = load()
        _backfill(settings, _window(settings, "2024-01-01", "2024-01-08"))
        _print_summary(settings)


@app.command()
def backfill(
    since: Annotated[str, typer.Option(metavar="DATE", help="first instant, UTC: 2022-01-01 or 2022-01-01T12:00")],
    until: Annotated[str, typer.Option(metavar="DATE", help="end, UTC, excluded; default: now")] = "",
    symbol: Annotated[list[str] | None, typer.Option(help="only this market; repeat for more")] = None,
    timeframe: Annotated[list[str] | None, typer.Option(help="only candles of this length; repeat for more")] = None,
    model: Annotated[list[str] | None, typer.Option(help="only this model; repeat for more")] = None,
) -> None:
    """Run the whole chain over history: candles, indicators, pivots, predictions, outcomes, trends, checkpoints.

    Each stream is one Dagster run, shown in the UI; the streams run side by side. Stop it whenever you like, with
    Ctrl-C or worse: the same command goes on where it stopped, and what is done is not done again.

    [b]Examples[/b]

      hindsight backfill --since 2024-01-01 --until 2024-02-01

      HINDSIGHT_SOURCE=ccxt:binance hindsight backfill --since 2024-01-01 --symbol ETH/USDT --timeframe 1h

      HINDSIGHT_SOURCE=archive:~/klines hindsight backfill --since 2022-01-01 --until 2024-01-01
    """
    narrowed = {"SYMBOLS": symbol, "TIMEFRAMES": timeframe, "MODELS": model}
    # By environment, so that the processes of the runs and the partitions that they fill agree on it.
    os.environ.update({f"HINDSIGHT_{name}": ",".join(values) for name, values in narrowed.items() if values})
    with told_plainly():
        settings = load()
        _backfill(settings, _window(settings, since, until))
        _print_summary(settings)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="port of the UI; 0: any free one")] = 3000,
    feed: Annotated[bool, typer.Option(help="whether to record the market as it moves")] = True,
) -> None:
    """Open the UI, record the market as it moves, predict and learn at every close, until Ctrl-C.

    Whatever of it dies is started again. With simulated candles it starts the venue that they come from, too. In a
    home that holds history, it first fills and learns everything from there to now; with --no-feed it records nothing.
    """
    with told_plainly():
        from pipelines.up.command import up as run_all

        run_all(load(), port, feed=feed)


@app.command()
def feed() -> None:
    """Hear the market live and land what it says below HINDSIGHT_HOME, until stopped; `hindsight up` starts it.

    It never opens the tables, so nothing that reads or fills them can make it lose a message. How each of its parts
    fares stands in feed.json.

      HINDSIGHT_SOURCE=ccxt:binance hindsight feed
    """
    from hindsight.exchange.feed.command import run_feed_command

    with told_plainly():
        settings = load()
        make_home(settings)
        run_feed_command(settings)


@app.command()
def status() -> None:
    """Print what is stored, what is due, which checkpoint serves, and how the trends were graded."""
    from hindsight.printing import print_status
    from hindsight.status import status as how_things_stand

    with told_plainly():
        print_status(how_things_stand(load()), console)


@app.command()
def show(inference_id: Annotated[int, typer.Argument(help="inference_id of a reference, as in the tables")]) -> None:
    """Resolve one reference, check its digest, bring back the weights that made it, and make the prediction again.

    Stored and re-made stand side by side; they agree to 1e-6, also when the checkpoint has been evicted since.

      hindsight show 1234567890123456789
    """
    from hindsight.printing import print_remade
    from hindsight.remake import remake

    with told_plainly():
        remade = remake(load(), inference_id)
    print_remade(remade, console)
    if not remade.is_same:
        raise typer.Exit(1)


@app.command()
def sweep(
    since: Annotated[str, typer.Option(metavar="DATE", help="first instant, UTC")] = "",
    vary: Annotated[
        list[str] | None, typer.Option(metavar="SETTING=VALUE,…", help="what to vary; repeat for more")
    ] = None,
    until: Annotated[str, typer.Option(metavar="DATE", help="end, UTC, excluded; default: now")] = "",
    model: Annotated[str, typer.Option(help="which one; default: the first of the setting models")] = "",
    stream: Annotated[str, typer.Option(metavar="STREAM", help='as in "ETH/USDT 1m"; default: the only one')] = "",
) -> None:
    """Teach one model many times over the same recorded history, each time with other settings, and rank them.

    Every combination of the values learns from nothing, as a backfill with its settings would, and is judged by what
    it predicted before the answers came. The learners of this home are left as they are; the table stays in `sweeps`,
    and without any option all that stand there are shown.

    [b]Example[/b]

      hindsight sweep --since 2024-01-01 --until 2024-03-01 --vary learning_rate=1e-4,2e-4,4e-4 --vary seed=0,1,2
    """
    from rich.progress import Progress

    from hindsight.models_command import predicted_stream
    from hindsight.sweep import grid_of, stored_sweeps
    from hindsight.sweep import sweep as try_all  # torch takes over a second to import
    from hindsight.sweep_printing import print_sweep

    with told_plainly():
        settings = load()
        if not since and not vary:
            stored = stored_sweeps(settings)
            for rows in stored:
                print_sweep(rows, console)
            if not stored:
                console.print("No sweep is stored yet: hindsight sweep --since DATE --vary SETTING=VALUE,VALUE")
            return
        if not since or not vary:
            raise typer.BadParameter("expected both --since and --vary, or neither: then it shows what is stored")
        window, grid, chosen = _window(settings, since, until), grid_of(vary), predicted_stream(settings, stream)
        name = model or settings.models[0]
        with Progress(console=console) as progress:
            bar = progress.add_task(f"{name} of {chosen}", total=None)
            rows = try_all(
                settings,
                chosen,
                name,
                window,
                grid,
                lambda done, all_: progress.update(bar, completed=done, total=all_),
            )
        print_sweep(rows, console)


@app.command()
def venue(
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free one")] = 0,
    speed: Annotated[float, typer.Option(min=0.01, help="seconds that pass at the venue in one of ours")] = 1.0,
    start: Annotated[
        str, typer.Option(metavar="TIME", help="what its clock shows at first, UTC; default: now, or the recording's")
    ] = "",
    recording: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="play messages recorded in this folder, or its 1m candles along a made-up path"
        ),
    ] = "",
    fault: Annotated[
        list[str] | None, typer.Option(metavar="JSON", help='misbehave: {"fault": "drop", "count": 3}; repeat for more')
    ] = None,
) -> None:
    """Serve a market over HTTP and WebSocket as Binance does, for tests: simulated, or recorded.

    Takes symbols, seed and phi from the settings, prints its address, and runs until it is stopped. While it runs,
    POST /control/faults makes it misbehave and GET /control/state tells what it does.

      hindsight venue --port 8123 --speed 60 --start 2024-03-01
    """
    from hindsight.exchange.venue.command import run_venue

    with told_plainly():
        run_venue(load(), port=port, speed=speed, start=start, recording=recording, faults=fault or [])


@app.command()
def settings() -> None:
    """Print a hindsight.toml with every setting, its default, and what it does.

    hindsight settings > hindsight.toml
    """
    print(as_toml())


def _window(settings: Settings, since: str, until: str) -> Window:
    """The window that the user asked for, cut at what has closed. Raises typer.BadParameter for nonsense."""
    now = floor_to(datetime.now(UTC), settings.streams[0].step)
    bounds = []
    for name, text in (("since", since), ("until", until or now.isoformat())):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(f"--{name} {text!r} is not a date like 2022-01-01 or 2022-01-01T12:00") from None
        bounds.append(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC))
    start, end = bounds[0], min(bounds[1], now)
    first = datetime.strptime(settings.first_month, "%Y-%m").replace(tzinfo=UTC)
    if start >= end:
        raise typer.BadParameter(f"--since {since} is not before --until {until or 'now'}")
    if start < first:
        raise typer.BadParameter(f"--since {since} is before the setting first_month = {settings.first_month}")
    return Window(start=start, end=end)


def _backfill(settings: Settings, window: Window) -> None:
    """Runs the job with a bar per stream. Raises typer.Exit(1) where a run failed, 130 where the user stopped it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from pipelines.backfill import backfill as run_backfill

    console.print(f"{', '.join(map(str, settings.streams))} over {window}, into {settings.home}")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    failed = {}
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bars = {
            str(stream): progress.add_task(f"{stream}: starting", total=None, count="") for stream in settings.streams
        }
        try:
            for heard in run_backfill(settings, list(settings.streams), window):
                if heard.stage == "failed":
                    failed[heard.stream] = heard.message
                progress.update(
                    bars[heard.stream],
                    description=f"{heard.stream}: {heard.stage}",
                    count=f"{heard.done:,}/{heard.total:,}" if heard.total else "",
                    total=1 if heard.stage == "done" else heard.total or None,  # None: the bar says that it works
                    completed=1 if heard.stage == "done" else heard.done,
                )
        except KeyboardInterrupt:
            progress.stop()
            console.print("Stopped. The same command goes on from here.")
            raise typer.Exit(130) from None
    for stream, message in failed.items():
        Console(stderr=True).print(f"[red]{stream} failed[/red]: {message}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _print_summary(settings: Settings) -> None:
    from hindsight.printing import print_status
    from hindsight.status import status as how_things_stand

    print_status(how_things_stand(settings), console)
    console.print(
        "See the runs, charts and checks: [b]hindsight up --no-feed[/b] with the settings of this command, then "
        "http://127.0.0.1:3000. Without --no-feed it fills and learns everything from here to now, and goes on live."
    )
