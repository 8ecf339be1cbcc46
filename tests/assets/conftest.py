"""A whole chain, made once: a day and a half of one simulated stream, by a run as the command line starts it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from hindsight.market.streams import Stream, Window
from hindsight.settings import Settings, load
from pipelines.backfill import run_job
from pipelines.home.instance import open_instance
from resources.progress import silence

DAYS = Window(start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 2, 12, tzinfo=UTC))
TABLES = (
    *("candles", "candle_revisions", "gaps", "refused_candles", "indicators", "pivots", "pivot_states"),
    *("inference_references", "outcomes", "trend_validations", "checkpoints", "learned_until", "scores"),
    *("hidden_states", "refused_frames", "decisions", "gate_states", "promotions", "drifts"),
)
QUICK = {
    "SOURCE": "simulated",
    "MODELS": "transformer",
    "PREDICT_EVERY": "3",
    "TRAIN_EVERY": "240",
    "SCORE_WINDOW": "60",
}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What a run of the chain left behind."""

    settings: Settings
    stream: Stream
    window: Window
    instance: dg.DagsterInstance
    result: dg.ExecuteInProcessResult

    @property
    def environment(self) -> dict[str, str]:
        """What makes another process run the same chain."""
        return {f"HINDSIGHT_{name}": value for name, value in QUICK.items()}


def run_chain(folder: Path, patch: pytest.MonkeyPatch) -> Chain:
    """Runs the chain over DAYS below `folder`, with settings given as a user gives them: by environment."""
    patch.setenv("DAGSTER_HOME", "")  # opening the instance sets it; put back with the rest
    for name, value in {"HOME": str(folder), **QUICK}.items():
        patch.setenv(f"HINDSIGHT_{name}", value)
    settings = load()
    stream, instance = settings.streams[0], open_instance(settings)
    result = run_job("backfill", stream, DAYS, silence)
    return Chain(settings=settings, stream=stream, window=DAYS, instance=instance, result=result)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The chain that the tests read; those that change something take `copied`."""
    with pytest.MonkeyPatch.context() as patch:
        made = run_chain(tmp_path_factory.mktemp("chain"), patch)
    with made.instance:
        yield made


@pytest.fixture
def copied(chain: Chain, tmp_path: Path) -> Path:
    """A copy of the chain's folder, to be spoiled."""
    return Path(shutil.copytree(chain.settings.home, tmp_path / "home"))


@pytest.fixture
def rerun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dg.ExecuteInProcessResult]:
    """Runs the chain again, over what lies in a folder."""

    def run(folder: Path) -> dg.ExecuteInProcessResult:
        again = run_chain(folder, monkeypatch)
        again.instance.dispose()
        return again.result

    return run


@pytest.fixture
def fingerprint() -> Callable[[Path], dict[str, object]]:
    """Per table of a DuckDB file, how many rows there are and a hash of all of them, whatever their order."""

    def take(path: Path) -> dict[str, object]:
        with duckdb.connect(str(path), read_only=True) as con:
            con.execute("set TimeZone = 'UTC'")
            sums = {table: con.execute(f"select count(*), sum(hash(t)) from {table} t").fetchall() for table in TABLES}
            # How long a step took is the one thing that differs.
            steps = "select count(*), sum(hash(columns(* exclude (seconds)))) from training_steps"
            return {**sums, "training_steps": con.execute(steps).fetchall()}

    return take
