"""The freshness of the live path as checks: run from a job, on homes that keep up and homes that do not."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets.health_checks import QUESTIONS, answer, evaluations
from hindsight.health.findings import calls, off, ok
from hindsight.health.report import Health
from hindsight.settings import Settings, load
from hindsight.store.standings import Standings
from pipelines.definitions import defs

NAMES = set(QUESTIONS)
NOWHERE = Standings(streams=(), learners=(), books=())


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def recorded(venue_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a recorded market, and the settings in force."""
    home = copy_home(venue_home).home
    for name, value in {"HOME": home, "SYMBOLS": "ETH/USDT", "SIMULATED_SEED": 19, "BOOKS": "false"}.items():
        monkeypatch.setenv(f"HINDSIGHT_{name}", str(value))
    return load()


def run_health(instance: dg.DagsterInstance) -> dict[str, dg.AssetCheckEvaluation]:
    result = defs.resolve_job_def("health").execute_in_process(instance=instance)
    assert result.success
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_a_home_that_was_never_live_passes(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path / "home"))
    found = run_health(instance)
    assert found.keys() == NAMES
    assert all(each.passed for each in found.values())
    assert {each.description for each in found.values()} == {"Nothing was ever live here."}


def test_candles_in_time_pass_with_their_figures_and_overdue_ones_fail(
    instance: dg.DagsterInstance, recorded: Settings, table: Callable, beat: Callable[..., None]
):
    end = table(recorded, "candles", "open_time")["open_time"].max() + timedelta(minutes=1)
    here = int(datetime.now(UTC).timestamp() * 1000)
    beat(recorded, end, local_ms=here)
    found = run_health(instance)
    assert all(each.passed for each in found.values())
    candles = found["late_candles"]
    assert candles.description == "All in time."
    assert candles.metadata["ok"].value == 1
    assert float(str(candles.metadata["overdue"].value)) < 0
    assert found["late_predictions"].metadata["off"].value == 1

    beat(recorded, end, local_ms=here - 600_000)
    feed = found["late_feed"]
    assert feed.description == "All in time."
    assert float(str(feed.metadata["age"].value)) >= 600  # what each part heard last

    dead = run_health(instance)["late_candles"]
    assert not dead.passed
    assert dead.severity == dg.AssetCheckSeverity.ERROR
    assert dead.metadata["dead"].value == 1
    assert "overdue" in (dead.description or "")
    assert "simulated-19-0.3 ETH/USDT 1m" in str(dead.metadata["findings"].value)


def test_tables_that_cannot_be_read_fail_every_check_with_that_reason(
    instance: dg.DagsterInstance, recorded: Settings, beat: Callable[..., None]
):
    beat(recorded, datetime(2024, 3, 2, tzinfo=UTC))
    recorded.warehouse_path.write_bytes(b"no database")
    found = run_health(instance)
    assert not any(each.passed for each in found.values())
    of_the_tables = {name: each for name, each in found.items() if name != "late_feed"}
    assert all("DuckDB file" in (each.description or "") for each in of_the_tables.values())


def test_what_is_reported_without_a_run_has_a_check_each(tmp_path: Path):
    found = evaluations(Health(now=datetime(2024, 3, 2, tzinfo=UTC)))
    keys = {dg.AssetCheckKey(each.asset_key, each.check_name) for each in found}
    assert keys <= defs.resolve_asset_graph().asset_check_keys
    assert {each.check_name for each in found} == NAMES


def test_the_worst_model_is_plotted_whether_it_has_the_most_or_the_least():
    findings = [
        ok("skill", "good", "It gains.", {"skill": "there", "gain": 0.02, "gain_error": 0.001, "days": 28}),
        calls(
            "skill", "bad", "late", "It does not.", {"skill": "none", "gain": -0.01, "gain_error": 0.004, "days": 20}
        ),
        off("skill", "new", "It will be seen.", {"skill": "too early", "days": 3}),
    ]
    found = Health(now=datetime(2024, 3, 2, tzinfo=UTC), findings=findings, tables=NOWHERE)
    told = answer(found, ["skill"])["metadata"]
    assert {name: told[name] for name in ("gain", "gain_error", "days")} == {
        "gain": -0.01,
        "gain_error": 0.004,
        "days": 3,
    }


@pytest.mark.parametrize("job", ["backfill", "advance", "train_on_pivot"])
def test_no_other_job_asks_after_the_present(job: str):
    graph = defs.resolve_job_def(job).asset_layer.asset_graph
    assert not {key for key in graph.asset_check_keys if key.name in NAMES}
