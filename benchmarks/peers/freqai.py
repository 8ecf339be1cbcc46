"""From a candle's close to a prediction and to a better model: beside FreqAI, which trains anew on a window of days.

FreqAI stands here twice: with the features of its documentation's minimal configuration, which are made of longer
candles and another market too, and with what is left of them where it is given the same candles as ours and no others.
Each group of figures is a function of its own, whose sizes are arguments; `measure` takes them as they are promised.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import fresh
from benchmarks.figure import Figure
from benchmarks.homes import BTC, ETH, FILES, MODEL, begin_learning_at, new_folder, record, settings_in
from benchmarks.peers.environments import Environment, Ours, Took, take
from benchmarks.peers.turns import Taken, in_turns
from benchmarks.sampling import Sample, Samples
from hindsight.market.streams import Window, to_ms

FREQAI = Environment(
    name="freqai",
    requirements=(
        "freqtrade==2026.9",
        "datasieve==0.1.9",
        "joblib==1.6.0",
        "lightgbm==4.7.0",
        "scikit-learn==1.9.1",
        "tensorboard==2.21.0",
        "xgboost-cpu==3.2.0",  # the module that freqtrade's extra asks for, without the libraries for a GPU
        "torch==2.13.0",
        "numpy==2.4.6",
        "pandas==3.1.1",
    ),
)
OURS, THEIRS = "Hindsight", "FreqAI"
LIGHTGBM, TRANSFORMER = "LightGBMClassifier", "PyTorchTransformerRegressor"
SOONER = {15: 20.0, 60: 200.0}  # the goal of an update, by the days that FreqAI trains on
PREDICTED_SOONER, LESS = 20.0, 10.0
END = datetime(2023, 7, 1, tzinfo=UTC)  # no gap for 60 days before, nor for weeks after
REPLAYED = 15  # days that our model has learned live before its closes are measured: replay draws from 14
CLOSES = 8
JOBS = 2  # threads of LightGBM, and of both sides where they do equal work
BATCH, WINDOW = 64, 30  # of FreqAI's transformer, as documented
DAY = timedelta(days=1)
FEATURES = {  # of FreqAI, as freqai_bot has them; and what to call them
    "wide": "features of 1m, 15m and 4h candles, and of BTC/USDT",
    "narrow": "features of 1m candles alone",
}
CANDLES = {"files": {stream.symbol: str(FILES[stream]) for stream in (ETH, BTC)}}


def measure(repeats: int) -> list[Figure]:
    """All figures at their promised sizes."""
    home = learned_home(days=60, learned_days=REPLAYED)
    return [
        *update(repeats, home, days=15, model=LIGHTGBM, features=tuple(FEATURES)),
        *update(repeats, home, days=60, model=LIGHTGBM, features=tuple(FEATURES)),
        *update(repeats, home, days=60, model=TRANSFORMER, features=("narrow",)),
        *prediction(repeats, home, days=15, features=tuple(FEATURES)),
        *training(repeats, days=60, features=tuple(FEATURES)),
        equal_work(repeats, days=15),
    ]


def learned_home(days: int, learned_days: int) -> Path:
    """A home with `days` of candles before END, the last `learned_days` of them learned by the default model."""
    home = new_folder("freqai")
    fresh.run(fill, home=str(home), days=days, learned_days=learned_days)
    return home


def fill(home: str, days: int, learned_days: int) -> dict[str, Any]:
    """Records and learns, with the default settings."""
    from hindsight.learn import learn

    record(home, ETH, Window(start=END - days * DAY, end=END))
    if learned_days < days:
        begin_learning_at(home, ETH, END - learned_days * DAY)
    settings = settings_in(home, symbols=(ETH.symbol,), models=(MODEL,), device="cpu")
    return {"closes": learn(settings, ETH, MODEL, END).closes}


def update(
    repeats: int,
    home: Path,
    *,
    days: int,
    model: str,
    features: tuple[str, ...],
    closes: int = CLOSES,
    their_closes: int = 1,
    jobs: int = JOBS,
) -> list[Figure]:
    """From a candle's close to a model that has learned from it, predicts, and is on disk."""
    given = {"days": days, "model": model, "closes": their_closes, "is_trained": True, "jobs": jobs}
    taken = _closes_in_turns(repeats, home, closes, features, given)
    return [_update(taken, days, model, each) for each in features]


def _update(taken: Taken, days: int, model: str, features: str) -> Figure:
    runs = _beside(taken, features)
    ours, theirs = (_closes(found) for found in runs.values())
    whole = {name: _samples(found, "wall", "processor") for name, found in ((OURS, ours), (THEIRS, theirs))}
    times, goal = whole[THEIRS].median / whole[OURS].median, SOONER.get(days, 1.0)
    name = "LightGBM" if model == LIGHTGBM else "its transformer, one epoch"
    return Figure(
        name=f"a candle's close → updated model; FreqAI: {name}, {days} days, {FEATURES[features]}",
        goal=f"{goal:g}× sooner",
        measured=f"{1000 * whole[OURS].median:.0f} ms, FreqAI {whole[THEIRS].median:.2f} s",
        ratio=f"{times:.1f}× (processor {whole[THEIRS].processor / whole[OURS].processor:.1f}×)",
        is_reached=times >= goal,
        samples=whole,
        notes=(
            f"both: the candle is taken up, predicted from and learned from, the weights are on disk. Ours takes one "
            f"step of 32 references (the new ones and replayed ones), every close here, every 15th by default; FreqAI "
            f"fits all of {days} days anew, {runs[THEIRS][0].result['features']} features",
            "ours reads the candle from the feed's landing and keeps candles, indicators, pivots and outcomes in "
            "tables; FreqAI holds candles in memory and is handed the new one. Left out: Dagster's run around ours, "
            "FreqAI's look once a second at whose turn it is, and both downloads",
            f"written a close: ours {_middle(ours, 'written') / 1e3:,.0f} kB, FreqAI "
            f"{_middle(theirs, 'written') / 1e3:,.0f} kB",
            _peaks(runs),
        ),
    )


def prediction(
    repeats: int,
    home: Path,
    *,
    days: int,
    features: tuple[str, ...],
    closes: int = CLOSES,
    their_closes: int = 20,
    jobs: int = JOBS,
) -> list[Figure]:
    """From a candle's close to a prediction that is kept, without any training."""
    given = {"days": days, "model": LIGHTGBM, "closes": their_closes, "is_trained": False, "jobs": jobs}
    taken = _closes_in_turns(repeats, home, closes, features, given)
    return [_prediction(taken, each) for each in features]


def _prediction(taken: Taken, features: str) -> Figure:
    runs = _beside(taken, features)
    ours, theirs = (_closes(found) for found in runs.values())
    samples = {
        name: _samples(found, "predicted", "predicted_processor") for name, found in ((OURS, ours), (THEIRS, theirs))
    }
    times = samples[THEIRS].median / samples[OURS].median
    kept = runs[THEIRS][0].result
    return Figure(
        name=f"a candle's close → prediction; FreqAI: {FEATURES[features]}",
        goal=f"{PREDICTED_SOONER:g}× sooner",
        measured=f"{1000 * samples[OURS].median:.1f} ms, FreqAI {1000 * samples[THEIRS].median:.0f} ms",
        ratio=f"{times:.1f}× (processor {samples[THEIRS].processor / samples[OURS].processor:.1f}×)",
        is_reached=times >= PREDICTED_SOONER,
        samples=samples,
        notes=(
            f"handed to the disk a close: ours {_middle(ours, 'predicted_written') / 1e3:,.0f} kB, FreqAI "
            f"{_middle(theirs, 'predicted_written') / 1e3:,.1f} kB. Ours stands in the tables when the time is taken, "
            "and a reference is inserted once; but each time the warehouse closes, the last, incomplete blocks of its "
            "tables are written anew. Whether that counts as appending is not judged here",
            f"FreqAI keeps its prediction in memory, and with every new model writes all it has made again, twice: "
            f"{kept['history_bytes'] / 1e3:.0f} kB for {kept['predictions']:,} predictions here, "
            f"{kept['history_bytes'] / kept['predictions']:.0f} bytes each; those since the last model are lost with "
            "its process",
            "ours: take up, indicators, pivots, a frame of 300 candles, forward, transaction, decision; FreqAI: the "
            f"features of what the exchange holds, {kept['features']} of them, and LightGBM on the last row",
            _peaks(runs),
        ),
    )


def training(repeats: int, *, days: int, features: tuple[str, ...], jobs: int = JOBS) -> list[Figure]:
    """Memory and disk of learning the same days: FreqAI in one training, ours as a backfill."""
    theirs = {each: lambda each=each: _their_training(days, LIGHTGBM, each, 0.25, jobs) for each in features}
    taken = in_turns(repeats, {OURS: lambda: our_learning(days, 0), **theirs})
    return [figure for each in features for figure in _training(taken, days, each)]


def _training(taken: Taken, days: int, features: str) -> list[Figure]:
    runs = _beside(taken, features)
    peak = {name: median(run.peak_bytes for run in found) for name, found in runs.items()}
    ours, theirs = runs[OURS][0].result, runs[THEIRS][0].result
    memory, disk = peak[THEIRS] / peak[OURS], theirs["disk_bytes"] / ours["added_bytes"]
    largest = sorted(theirs["files"].items(), key=lambda each: -each[1])[:2]
    what = f"learning {days} days; FreqAI: {FEATURES[features]}"
    notes = (
        f"FreqAI fits {theirs['rows']:,} rows of {theirs['features']} features once; ours predicts "
        f"{ours['predicted']:,} times and takes {ours['steps']:,} steps on the way, which FreqAI's training does not",
    )
    return [
        Figure(
            name=f"memory of {what}",
            goal=f"{LESS:g}× less",
            measured=f"{peak[OURS] / 1e6:,.0f} MB, FreqAI {peak[THEIRS] / 1e6:,.0f} MB",
            ratio=f"{memory:.1f}×",
            is_reached=memory >= LESS,
            samples=Taken(runs=runs).samples,
            notes=(*notes, "peaks of whole processes, imports and all"),
        ),
        Figure(
            name=f"disk of {what}",
            goal=f"{LESS:g}× less",
            measured=f"{ours['added_bytes'] / 1e6:,.1f} MB, FreqAI {theirs['disk_bytes'] / 1e6:,.1f} MB a model",
            ratio=f"{disk:.1f}×",
            is_reached=disk >= LESS,
            notes=(
                *notes,
                f"ours is all that is there beyond the candles: indicators, pivots, {ours['closes']:,} closes of "
                "references, outcomes and scores, steps, checkpoints, the tape; by folder "
                + ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in ours["folders"].items() if size > 1e4),
                "FreqAI's: " + ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in largest) + "; it keeps two",
                f"written in all: ours {runs[OURS][0].written_bytes / 1e6:,.0f} MB, FreqAI "
                f"{runs[THEIRS][0].written_bytes / 1e6:,.0f} MB",
            ),
        ),
    ]


def equal_work(repeats: int, *, days: int, threads: int = JOBS) -> Figure:
    """A full refit of a transformer by both: one pass over the same rows."""
    given = {"end_ms": to_ms(END), "days": days, "batch_size": BATCH, "threads": threads}
    short = f"{OURS}, frames of {WINDOW}"
    taken = in_turns(
        repeats,
        {
            OURS: lambda: take(Ours(), "hindsight_refit", **given, lookback=300),
            short: lambda: take(Ours(), "hindsight_refit", **given, lookback=WINDOW),
            THEIRS: lambda: _their_training(days, TRANSFORMER, "narrow", 0, threads),
        },
    )
    runs = taken.runs
    samples = taken.samples
    first = {name: found[0].result for name, found in runs.items()}
    rows = [found["rows"] for found in first.values()]
    if max(rows) - min(rows) > 1:
        raise RuntimeError(f"expected both to be fitted on the same rows, found {rows}")
    times = samples[THEIRS].median / samples[short].median
    return Figure(
        name=f"equal work: a transformer fitted anew, one pass over {rows[0]:,} rows ({days} days)",
        goal="no slower, with as long a window",
        measured=f"{samples[short].median:.1f} s, FreqAI {samples[THEIRS].median:.1f} s",
        ratio=f"{times:.2f}× (frames of 300: {samples[THEIRS].median / samples[OURS].median:.2f}×)",
        is_reached=times >= 1,
        samples=samples,
        notes=(
            f"both: features, {rows[0]:,} rows once in batches of {BATCH}, {threads} threads, weights saved; FreqAI "
            "holds no rows out here",
            f"weights: ours {first[OURS]['weights']:,}, FreqAI's {first[THEIRS]['weights']:,}; ours reads {WINDOW} (or "
            f"300) candles of its own channels, and pivots; FreqAI's {WINDOW} rows of {first[THEIRS]['features']} "
            "features",
            "ours learns 17 numbers (action, candle, trend, pivots) and keeps a running mean of the weights; FreqAI's "
            "one number, the next return. Ours shuffles, FreqAI's goes backwards in time",
            _peaks(runs),
        ),
    )


def _closes_in_turns(
    repeats: int, home: Path, closes: int, features: tuple[str, ...], given: Mapping[str, Any]
) -> Taken:
    """Closes of ours, and of FreqAI as `given` with each of these features."""
    theirs = {
        each: lambda each=each: take(FREQAI, "freqai_close", **CANDLES, end_ms=to_ms(END), features=each, **given)
        for each in features
    }
    return in_turns(repeats, {OURS: lambda: _our_closes(home, closes), **theirs})


def _beside(taken: Taken, features: str) -> dict[str, list[Took]]:
    """The runs of ours, and of FreqAI with these features."""
    return {OURS: taken.runs[OURS], THEIRS: taken.runs[features]}


def _our_closes(home: Path, closes: int) -> Took:
    return take(Ours(), "hindsight_close", home=str(home), end_ms=to_ms(END), closes=closes)


def _their_training(days: int, model: str, features: str, test_size: float, jobs: int) -> Took:
    given = {"days": days, "model": model, "features": features, "test_size": test_size, "jobs": jobs}
    return take(FREQAI, "freqai_training", **CANDLES, end_ms=to_ms(END), **given)


def our_learning(days: int, candles: int) -> Took:
    start, end = END - days * DAY, END + candles * ETH.step
    return take(Ours(), "hindsight_learning", start_ms=to_ms(start), said_from_ms=to_ms(END), end_ms=to_ms(end))


def _closes(runs: Iterable[Took]) -> list[dict[str, float]]:
    return [each for run in runs for each in run.result["closes"]]


def _samples(closes: Iterable[dict[str, float]], wall: str, processor: str) -> Samples:
    return Samples([Sample(each[wall], each[processor]) for each in closes])


def _middle(closes: Iterable[dict[str, float]], name: str) -> float:
    return median(each[name] for each in closes)


def _peaks(runs: Mapping[str, list[Took]]) -> str:
    peaks = (f"{name} {median(run.peak_bytes for run in found) / 1e6:,.0f} MB" for name, found in runs.items())
    return f"peak of memory, whole processes, preparation too: {', '.join(peaks)}"
