"""Every asset materialises, reports what it made, and changes nothing when it is made again."""

import base64
from pathlib import Path

import dagster as dg
import pytest

ASSETS = (
    *("candles", "indicators", "pivots"),
    *("inference_references", "outcomes", "trend_validations", "checkpoints"),
)


def metadata(chain, asset: str) -> dict[str, object]:
    events = chain.result.get_asset_materialization_events()
    (found,) = (each.materialization for each in events if each.asset_key == dg.AssetKey(asset))
    return {name: value.value for name, value in found.metadata.items()}


@pytest.mark.parametrize("asset", ASSETS)
def test_an_asset_materialises_in_the_partition_of_its_month(chain, asset: str) -> None:
    partitions = chain.instance.get_materialized_partitions(dg.AssetKey(asset))
    assert partitions == {f"2024-01|{chain.stream}"}


def test_a_stream_that_has_candles_is_noted(chain) -> None:
    assert chain.settings.streams_path.read_text() == f"{chain.stream}\n"


@pytest.mark.parametrize(
    ("asset", "figures"),
    [
        pytest.param("candles", {"rows", "missing_candles", "revised"}, id="candles"),
        pytest.param("indicators", {"rows", "not_warm"}, id="indicators"),
        pytest.param("pivots", {"rows", "level_1", "level_2", "level_3", "level_4", "level_5"}, id="pivots"),
        pytest.param("inference_references", {"rows", "bytes_per_reference", "refused_frames"}, id="references"),
        pytest.param("outcomes", {"rows", "action_accuracy", "action_log_loss_always_up"}, id="outcomes"),
        pytest.param("outcomes", {"action_calibration_error_transformer"}, id="calibration"),
        pytest.param("trend_validations", {"rows", "trend_accuracy"}, id="trends"),
        pytest.param("checkpoints", {"training_steps", "loss_candle", "steps_per_second"}, id="checkpoints"),
        pytest.param("checkpoints", {"drifts", "retrain_steps", "looks", "promotions"}, id="changes"),
    ],
)
def test_an_asset_reports_figures_that_the_ui_plots(chain, asset: str, figures: set[str]) -> None:
    reported = metadata(chain, asset)
    assert figures <= reported.keys()
    assert all(isinstance(reported[name], int | float) for name in figures)


@pytest.mark.parametrize("asset", ASSETS)
def test_what_the_run_did_stands_under_a_name_that_is_the_same_in_every_run(chain, asset: str) -> None:
    reported = metadata(chain, asset)
    assert any(str(chain.stream) in about for about in reported["report"])
    assert not any(str(chain.stream) in name for name in reported)


def test_candles_reports_every_candle_of_the_window(chain) -> None:
    reported = metadata(chain, "candles")
    assert (
        reported["rows"] + reported["missing_candles"] == (chain.window.end - chain.window.start) // chain.stream.step
    )


def test_pivots_carries_a_chart_as_a_png(chain) -> None:
    _, _, encoded = str(metadata(chain, "pivots")["chart"]).partition("base64,")
    assert base64.b64decode(encoded.removesuffix(")")).startswith(b"\x89PNG")


def test_every_check_is_asked_and_nothing_is_wrong(chain) -> None:
    answers = chain.result.get_asset_check_evaluations()
    wrong = [each.check_name for each in answers if not each.passed and each.severity == dg.AssetCheckSeverity.ERROR]
    assert len(answers) == 28
    assert wrong == []


def test_twice_is_once(chain, copied: Path, rerun, fingerprint) -> None:
    assert rerun(copied).success
    before, after = fingerprint(chain.settings.warehouse_path), fingerprint(copied / "hindsight.duckdb")
    assert after == before
