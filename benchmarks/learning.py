"""What has been learned: on the simulated venue against its known optimum, on real candles against every baseline.

    python -m benchmarks learning --home DIR    reads what a long run into DIR has left in its tables
    python -m benchmarks learning               learns 60 simulated days and real ETH/USDT 2023 first: an hour or so
    python -m benchmarks learning --days 4      tries that out

All scores are prequential: every prediction was made before its answer, by the weights of its time.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import fresh
from benchmarks.figure import Figure, skipped
from benchmarks.homes import CANDLES, ETH, MODEL, new_folder, record_from
from hindsight.exchange.simulated import OPENING, SimulatedVenue
from hindsight.exchange.sources import open_source
from hindsight.market.streams import Stream, Window
from hindsight.settings import load
from hindsight.store.market_tables import read_candles
from hindsight.store.rows import select, stream_key
from hindsight.store.warehouse import Warehouse

SIMULATED_DAYS, JUDGED_DAYS, POINTS = 60, 20, 1.0
SIMULATED = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
YEAR = Window(start=datetime(2023, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 1, tzinfo=UTC))
TARGETS = ("action", "trend", "next_pivot")


def measure(home: Path | None, days: int | None) -> list[Figure]:
    """Both figures, from `home` where it is given, else from runs of their own over `days` (None: as promised)."""
    if home is not None:
        return [_against_the_optimum(home, SIMULATED_DAYS), _against_the_baselines(home)]
    simulated = Window(start=OPENING, end=OPENING + timedelta(days=days or SIMULATED_DAYS))
    real = Window(start=YEAR.start, end=YEAR.start + timedelta(days=days) if days else YEAR.end)
    homes = [new_folder("simulated"), new_folder("real")]
    running = [fresh.start(learn_all, home=str(homes[0]), source="simulated", until=simulated.end.isoformat())]
    if CANDLES.is_dir():
        running.append(
            fresh.start(learn_all, home=str(homes[1]), source=f"archive:{CANDLES}", until=real.end.isoformat())
        )
    for each in running:
        each.outcome()
    found = [_against_the_optimum(homes[0], days or SIMULATED_DAYS)]
    if CANDLES.is_dir():
        return [*found, _against_the_baselines(homes[1])]
    return [*found, skipped("learning on real ETH/USDT, 2023", f"recorded candles are not at {CANDLES}")]


def learn_all(home: str, source: str, until: str) -> dict[str, int]:
    """Records and learns ETH/USDT of `source`, from its first day of the figure to `until`."""
    from hindsight.learn import learn

    settings, end = load(home=Path(home), source=source), datetime.fromisoformat(until)
    stream = settings.streams[0]
    warehouse = _warehouse(Path(home))
    window = Window(start=OPENING if source == "simulated" else YEAR.start, end=end)
    record_from(open_source(settings), settings, warehouse, stream, window)
    return {"closes": learn(settings, stream, MODEL, end).closes}


def _against_the_optimum(home: Path, days: int) -> Figure:
    """Direction accuracy of the last third of the days, by their made_at, against what nobody can do better."""
    name = f"learning on the simulated venue, after {days} days"
    with _warehouse(home).reading() as con:
        scores = _scores(con, SIMULATED).filter(pl.col("target") == "action")
        if scores.is_empty():
            return skipped(name, f"{home} holds no scores of {SIMULATED}")
        begin = OPENING.date()
        scores = scores.filter(pl.col("day") < begin + timedelta(days=days))
        judged = max(1, min(JUDGED_DAYS, scores["day"].n_unique() // 3))
        first, last = scores["day"].max() - timedelta(days=judged - 1), scores["day"].max()
        span = Window(
            start=datetime(first.year, first.month, first.day, tzinfo=UTC),
            end=datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1),
        )
        candles = read_candles(con, SIMULATED, span)
    settings = load()
    optimum = SimulatedVenue(settings.simulated_seed, settings.simulated_phi).optimal_accuracy
    inside = scores.filter(pl.col("day") >= first)
    accuracy = _by_predictor(inside, "correct")
    answers = inside.filter(pl.col("predictor") == "model")["settled"].sum()
    best, error = _best_in_hindsight(candles, settings.simulated_phi), 100 * (0.25 / answers) ** 0.5
    short = 100 * (optimum - accuracy["model"])
    return Figure(
        name=name,
        goal=f"direction accuracy within {POINTS:g} point of the optimum, {100 * optimum:.2f} %",
        measured=f"{100 * accuracy['model']:.2f} % over {span}",
        ratio=f"{short:+.2f} points short of it",
        is_reached=short <= POINTS,
        notes=(
            f"{answers:,} answers; their standard error is {error:.2f} points",
            f"on the same candles, the best rule there is (the sign of the last return) was right {100 * best:.2f} %",
            *(f"{predictor}: {100 * share:.2f} %" for predictor, share in accuracy.items()),
        ),
    )


def _best_in_hindsight(candles: pl.DataFrame, phi: float) -> float:
    """How often the sign of the next return was that of phi times the last one, on these candles."""
    close = np.log(candles["close"].to_numpy())
    minute = candles["open_time"].dt.epoch("ms").to_numpy() // 60_000
    last, following = np.diff(close)[:-1], np.diff(close)[1:]
    unbroken = (minute[2:] - minute[:-2] == 2) & (last != 0) & (following != 0)
    return float(np.mean((np.sign(last) * np.sign(phi) == np.sign(following))[unbroken]))


def _against_the_baselines(home: Path) -> Figure:
    """Mean log loss of each target against every baseline on the same references, over all days of 2023."""
    name = "learning on real ETH/USDT, 2023, prequential"
    with _warehouse(home).reading() as con:
        scores = _scores(con, ETH).filter(pl.col("day").is_between(YEAR.start.date(), YEAR.end.date(), closed="left"))
    if scores.is_empty():
        return skipped(name, f"{home} holds no scores of {ETH} in 2023")
    notes, beaten, asked = [], 0, 0
    for target in TARGETS:
        of_target = scores.filter(pl.col("target") == target)
        losses, accuracy = _by_predictor(of_target, "log_loss_sum"), _by_predictor(of_target, "correct")
        for predictor, loss in losses.items():
            notes.append(
                f"{target:10s}  {predictor:20s} log loss {loss:.5f}, accuracy {100 * accuracy[predictor]:.2f} %"
            )
        rivals = [loss for predictor, loss in losses.items() if predictor != "model"]
        beaten, asked = beaten + sum(losses["model"] < loss for loss in rivals), asked + len(rivals)
    candle = scores.filter(pl.col("target") == "candle")
    notes += [
        f"{'candle':10s}  {predictor:20s} Huber {loss:.5f}"
        for predictor, loss in _by_predictor(candle, "regression_loss_sum").items()
    ]
    return Figure(
        name=name,
        goal="log loss of action, trend and next pivot below every baseline",
        measured=f"below {beaten} of {asked} baselines, {scores['day'].n_unique()} days",
        ratio=f"{beaten}/{asked}",
        is_reached=beaten == asked,
        notes=notes,
    )


def _scores(con: object, stream: Stream) -> pl.DataFrame:
    return select(
        con,  # pyright: ignore[reportArgumentType]
        """
        select day, target, predictor, settled, correct, log_loss_sum, regression_loss_sum
        from scores
        where model = $model
          and venue = $venue
          and symbol = $symbol
          and timeframe = $timeframe""",
        model=MODEL,
        **stream_key(stream),
    )


def _by_predictor(scores: pl.DataFrame, column: str) -> dict[str, float]:
    """The mean of a column of sums over what was settled, per predictor, the model first."""
    means = scores.group_by("predictor").agg(pl.col(column).sum() / pl.col("settled").sum())
    return dict(means.sort(pl.col("predictor") != "model", "predictor").iter_rows())


def _warehouse(home: Path) -> Warehouse:
    return Warehouse(path=home / "hindsight.duckdb", lock_timeout_seconds=60)
