"""The commands over a chain that is there: what they print, and that a killed backfill is finished by the next."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from hindsight.cli import app
from hindsight.printing import print_status
from hindsight.status import status


@pytest.fixture
def at_home(chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", str(chain.settings.home))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.usefixtures("at_home")
def test_status_prints_what_is_stored_learned_and_scored() -> None:
    printed = CliRunner().invoke(app, ["status"])
    assert printed.exit_code == 0, printed.output
    for words in ("candles", "pivots of level 5", "trend accuracy", "serving checkpoint", "always up"):
        assert words in printed.output


@pytest.mark.parametrize(("references", "is_told"), [(99_999, False), (100_000, True)])
def test_the_size_of_a_reference_is_told_once_there_are_many(chain, references: int, is_told: bool) -> None:
    found, told = status(chain.settings), StringIO()
    assert found.bytes_per_reference is not None
    many = replace(found, learned=found.learned.with_columns(references=pl.lit(references)))
    print_status(many, Console(file=told, width=100))
    assert ("bytes on disk" in told.getvalue()) == is_told


def test_a_backfill_advises_to_look_at_what_it_stored_and_not_to_go_on_live(tmp_path: Path) -> None:
    quick = {name: os.environ[name] for name in os.environ if not name.startswith("HINDSIGHT_")}
    command = [sys.executable, "-m", "hindsight", "backfill", "--symbol", "ETH/USDT", "--model", "transformer"]
    command += ["--since", "2024-01-01", "--until", "2024-01-01T00:30"]
    printed = subprocess.run(
        command, env={**quick, "HINDSIGHT_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    said = " ".join(printed.stdout.split())
    assert "See the runs, charts and checks: hindsight up --no-feed with the settings of this command" in said


@pytest.mark.usefixtures("at_home")
def test_show_makes_the_newest_prediction_again(chain) -> None:
    newest = status(chain.settings).learned["newest_reference"].item()
    printed = CliRunner().invoke(app, ["show", str(newest)])
    assert printed.exit_code == 0, printed.output
    difference = float(printed.output.split("Largest difference:")[1].split(",")[0])
    assert difference < 1e-6


@pytest.mark.usefixtures("at_home")
def test_show_says_plainly_that_there_is_no_such_reference() -> None:
    printed = CliRunner().invoke(app, ["show", "1"])
    assert printed.exit_code == 1
    assert "ReferenceUnresolvable" in printed.output
    assert "Traceback" not in printed.output


def test_a_killed_backfill_is_finished_by_the_next_to_the_same_tables(chain, tmp_path: Path, fingerprint) -> None:
    quick = {name: os.environ[name] for name in os.environ if not name.startswith("HINDSIGHT_")}
    environment = {**quick, **chain.environment, "HINDSIGHT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "hindsight", "backfill", "--symbol", chain.stream.symbol]
    command += ["--since", chain.window.start.isoformat(), "--until", chain.window.end.isoformat()]

    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for(lambda: any((tmp_path / "tape").rglob("*")))  # it has begun to learn
    time.sleep(1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert fingerprint(tmp_path / "hindsight.duckdb") == fingerprint(chain.settings.warehouse_path)


def _wait_for(happened, timeout_seconds: float = 300) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.05)
