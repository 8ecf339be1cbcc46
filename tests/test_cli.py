"""The command line: it teaches, refuses nonsense with the cure, and starts fast."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hindsight.cli import DEMO, app
from hindsight.settings import Settings, load


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


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        pytest.param("MODELS", "transformer,nope", "model 'nope' is unknown", id="model"),
        pytest.param("SOURCE", "ccxt:nope", "ccxt has no such venue", id="venue"),
        pytest.param("BOOK_VENUES", "nope", "ccxt.pro has no streams of 'nope'", id="venue of books"),
    ],
)
def test_up_refuses_what_would_fail_for_ever(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(f"HINDSIGHT_{name}", value)
    printed = CliRunner().invoke(app, ["up", "--port", "0"])
    assert printed.exit_code == 1
    assert "SettingRefused" in printed.output
    assert complaint in printed.output


@pytest.mark.parametrize("command", ["backfill --since 2024-01-01 --until 2024-01-02", "up --port 0", "feed"])
@pytest.mark.parametrize("home", ["a file", "/proc/x"])
def test_a_home_that_cannot_be_made_ends_in_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, home: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HINDSIGHT_HOME", home)
    printed = CliRunner().invoke(app, command.split())
    assert printed.exit_code == 1
    assert f"HomeUnwritable: expected a folder to write to, found that {home} cannot be one" in printed.output


@pytest.mark.parametrize("command", ["backfill --since 2024-01-01 --until 2024-01-02", "up --port 0"])
def test_a_database_that_is_away_ends_in_one_clear_message_without_its_password(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # put back at the end: opening an instance sets it
    monkeypatch.setenv("HINDSIGHT_POSTGRES_URL", "postgresql://us:password@localhost:1/x")
    printed = CliRunner().invoke(app, command.split())
    assert printed.exit_code == 1
    assert "expected a PostgreSQL server where the setting postgres_url says" in printed.output
    assert "Connection refused" in printed.output
    assert "password" not in printed.output


def test_the_demo_has_all_that_it_shows_whatever_the_file_here_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ('timeframes = ["1m", "1h"]', 'predicted = ["ETH/USDT 1h"]', 'frame = ["own", "1h", "SOL/USDT 1m"]')
    (tmp_path / "hindsight.toml").write_text("\n".join((*lines, 'symbols = ["ETH/USDT", "SOL/USDT"]')))
    for name, value in DEMO.items():
        monkeypatch.setenv(name, value)
    assert load().predicted_streams == load().streams


@pytest.mark.parametrize("command", ["up --port 99999", "up --port=-5", "venue --port 99999"])
def test_a_port_that_cannot_be_is_refused(command: str) -> None:
    printed = CliRunner().invoke(app, command.split())
    assert printed.exit_code == 2
    assert "Invalid value for '--port'" in printed.output


def test_a_run_that_fails_ends_in_its_message_and_exit_code_one(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    settings = {"HINDSIGHT_HOME": str(tmp_path), "HINDSIGHT_SOURCE": f"archive:{tmp_path / 'nothing'}"}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HINDSIGHT_")}
    found = subprocess.run(
        [sys.executable, "-m", "hindsight", "backfill", "--since", "2022-01-01", "--until", "2022-01-02"],
        env={**plain, **settings, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert "binance ETH/USDT 1m failed" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "streams.txt").exists(), "a stream without candles was noted"
