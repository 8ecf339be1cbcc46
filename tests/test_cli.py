"""The command line: it teaches, refuses nonsense with the cure, and starts fast."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hindsight.cli import app
from hindsight.settings import Settings


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "hindsight demo", id="the whole"),
        pytest.param(["backfill"], "hindsight backfill --since 2024-01-01 --until 2024-02-01", id="backfill"),
        pytest.param(["demo"], "7 days of simulated", id="demo"),
        pytest.param(["up"], "--port", id="up"),
        pytest.param(["status"], "which checkpoint serves", id="status"),
        pytest.param(["show"], "1e-6", id="show"),
        pytest.param(["sweep"], "--vary learning_rate=1e-4,2e-4,4e-4", id="sweep"),
        pytest.param(["settings"], "hindsight.toml", id="settings"),
    ],
)
def test_help_teaches(arguments: list[str], words: str) -> None:
    printed = CliRunner().invoke(app, [*arguments, "--help"])
    assert printed.exit_code == 0
    assert words in " ".join(printed.output.split())


def test_help_waits_for_neither_dagster_nor_torch() -> None:
    script = "import sys, hindsight.cli; print([m for m in ('dagster', 'torch', 'duckdb') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_settings_prints_a_file_that_sets_every_default() -> None:
    printed = CliRunner().invoke(app, ["settings"])
    assert tomllib.loads(printed.output).keys() == Settings.model_fields.keys()


def test_status_of_nothing_says_how_to_start() -> None:
    printed = CliRunner().invoke(app, ["status"])
    assert printed.exit_code == 0
    assert "hindsight demo" in printed.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--since", "yesterday"], "is not a date like 2022-01-01", id="not a date"),
        pytest.param(["--since", "2022-02-01", "--until", "2022-01-01"], "is not before", id="backwards"),
        pytest.param(["--since", "2999-01-01"], "is not before", id="in the future"),
        pytest.param(["--since", "2001-01-01"], "first_month", id="before the first partition"),
    ],
)
def test_backfill_refuses_a_window_that_makes_no_sense(arguments: list[str], complaint: str) -> None:
    printed = CliRunner().invoke(app, ["backfill", *arguments])
    assert printed.exit_code == 2
    assert complaint in " ".join(printed.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        pytest.param("SOURCE", "ftp:somewhere", "simulated, ccxt:VENUE or archive:DIR", id="source"),
        pytest.param("TIMEFRAMES", "7m", "expected some of", id="timeframes"),
        pytest.param("BATCH_SIZE", "1", "batch_size", id="out of range"),
    ],
)
def test_a_refused_setting_ends_in_one_clear_message(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(f"HINDSIGHT_{name}", value)
    printed = CliRunner().invoke(app, ["status"])
    assert printed.exit_code == 1
    assert "SettingRefused" in printed.output
    assert complaint in printed.output


def test_a_run_that_fails_ends_in_its_message_and_exit_code_one(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    found = subprocess.run(
        [sys.executable, "-m", "hindsight", "backfill", "--since", "2022-01-01", "--until", "2022-01-02"],
        env={"HINDSIGHT_HOME": str(tmp_path), "HINDSIGHT_SOURCE": f"archive:{tmp_path / 'nothing'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert "binance ETH/USDT 1m failed" in found.stderr
    assert "Traceback" not in found.stderr
