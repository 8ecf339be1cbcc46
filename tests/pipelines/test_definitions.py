"""The code location loads fast and light, and holds exactly what it is known to hold."""

import subprocess
import sys

import dagster as dg
from dagster._core.run_coordinator import DefaultRunCoordinator

from assets.partitions import MARKET_MONTHS, STREAM_MONTHS
from hindsight.settings import load
from pipelines.definitions import defs
from pipelines.home.instance import WORKSPACE, open_instance

HEAVY = ("torch", "ccxt", "numba", "sklearn", "matplotlib", "scipy", "pandas")

GRAPH = {
    "candles": set(),
    "order_book": set(),
    "indicators": {"candles"},
    "pivots": {"candles", "indicators"},
    "inference_references": {"candles", "indicators", "pivots", "order_book"},
    "decisions": {"candles", "inference_references"},
    "outcomes": {"inference_references", "candles", "pivots"},
    "trend_validations": {"inference_references", "pivots"},
    "checkpoints": {"outcomes", "trend_validations"},
}
CHECKS = {
    "candles": {
        "broken_revisions",
        "candles_known_too_early",
        "candles_standing_twice",
        "holes_not_in_gaps",
        "late_candles",
        "late_feed",
        "malformed_candles",
        "missing_candles",
    },
    "indicators": {"indicators_beside_candles", "indicators_not_finite", "indicators_not_warming_up"},
    "pivots": {"pivots_confirmed_too_early", "pivots_off_their_candle", "pivots_standing_twice"},
    "order_book": {
        "book_seconds_standing_twice",
        "books_seeing_the_future",
        "imbalance_means_off_their_seconds",
        "imbalances_off_their_book",
        "late_order_books",
        "malformed_books",
    },
    "inference_references": {
        "late_predictions",
        "predictions_not_finite",
        "references_not_resolving",
        "references_seeing_the_future",
        "references_standing_twice",
    },
    "decisions": {"decisions_not_adding_up", "decisions_standing_twice"},
    "outcomes": {"outcomes_not_finite", "outcomes_settled_too_early", "outcomes_standing_twice", "skill_lost"},
    "trend_validations": {"trends_from_before_their_prediction", "trends_graded_twice", "trends_not_adding_up"},
    "checkpoints": {
        "checkpoints_not_serving",
        "late_checkpoints",
        "serving_checkpoints_not_loading",
        "steps_not_finite",
        "steps_out_of_order",
    },
}


def test_the_assets_and_what_each_depends_on() -> None:
    graph = defs.resolve_asset_graph()
    found = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert found == GRAPH


def test_the_checks_of_each_asset() -> None:
    found: dict[str, set[str]] = {}
    for key in defs.resolve_asset_graph().asset_check_keys:
        found.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    assert found == CHECKS


def test_every_asset_is_described_owned_grouped_and_partitioned_by_stream_or_market_and_month() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners == ["team:hindsight"]
        assert node.group_name in ("market", "learning")
        assert node.kinds
        is_of_market = key.to_user_string() == "order_book"
        assert node.partitions_def == (MARKET_MONTHS if is_of_market else STREAM_MONTHS)
        assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_jobs_and_sensors() -> None:
    jobs = {job.name for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {"record", "backfill", "learn", "advance", "train_on_pivot", "health", "sweep"}
    sensors = {sensor.name for sensor in defs.get_repository_def().sensor_defs}
    assert sensors == {"candle_closed", "pivot_confirmed", "run_failed", "freshness"}


def test_every_check_and_sensor_is_described_in_lines_that_are_no_code() -> None:
    checks = [spec for asked in defs.asset_checks or () for spec in asked.check_specs]
    told = {spec.name: spec.description for spec in checks}
    told |= {sensor.name: sensor.description for sensor in defs.get_repository_def().sensor_defs}
    assert [name for name, text in told.items() if not text or "\n  " in text] == []


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    script = f"import sys, pipelines.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_dagster_validates_the_workspace(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    validate = ["-m", "dagster", "definitions", "validate", "--workspace", str(WORKSPACE)]
    found = subprocess.run([sys.executable, *validate], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_instance_lies_below_the_home_and_starts_runs_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    with open_instance(load()) as instance:
        assert instance.root_directory == str(tmp_path / "dagster")
        assert isinstance(instance.run_coordinator, DefaultRunCoordinator)
        assert not instance.telemetry_enabled


def test_a_run_whose_process_is_gone_is_closed_as_failed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    job = defs.resolve_job_def("learn")
    with open_instance(load()) as instance:
        run = instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.STARTED, tags={"hindsight/pid": str(gone.pid)}
        )
    with open_instance(load()) as instance:
        found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.FAILURE
