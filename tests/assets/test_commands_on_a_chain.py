"""The commands over a chain that is there: what they print, and that a killed backfill is finished by the next."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hindsight.cli import app
from hindsight.status import status


@pytest.fixture
def at_home(chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", str(chain.settings.home))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.usefixtures("at_home")
def test_status_prints_what_is_stored_learned_and_scored() -> None:
    printed = CliRunner().invoke(app, ["status"])
    assert printed.exit_code == 0, printed.output
    for words in ("candles", "pivots of level 5", "trend accuracy", "serving checkpoint", "always up", "bytes"):
        assert words in printed.output


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
