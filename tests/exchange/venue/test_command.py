"""`hindsight venue` as a process: it says where it is, does what its options say, and stops when told to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

COMMAND = [sys.executable, "-m", "hindsight", "venue"]


@contextmanager
def _running(*options: str, **settings: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    environment = {**os.environ, **{f"HINDSIGHT_{name.upper()}": value for name, value in settings.items()}}
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    with process.stdout:
        try:
            said = process.stdout.readline()
            assert said.startswith("venue at http://127.0.0.1:")
            yield said.split()[-1], process
        finally:
            process.terminate()
            assert process.wait(60) == 0


def _ask(url: str) -> Any:
    with urlopen(url) as answer:
        return json.load(answer)


def test_the_command_serves_the_settings_market_until_it_is_stopped() -> None:
    fault = '{"fault": "skew", "ms": 60000000}'
    options = ("--port", "0", "--speed", "50", "--start", "2024-03-01T12:00", "--fault", fault)
    with _running(*options, symbols="BTC/USDT", simulated_seed="3") as (url, _):
        info = _ask(f"{url}/api/v3/exchangeInfo")
        assert [market["symbol"] for market in info["symbols"]] == ["BTCUSDT"]
        state = _ask(f"{url}/control/state")
        assert state["clock"]["start_ms"] == 1709294400000
        assert state["clock"]["speed"] == 50
        assert _ask(f"{url}/api/v3/time")["serverTime"] - state["clock"]["now_ms"] >= 60_000_000


def test_the_command_plays_a_folder_of_recordings(shared_data: Path) -> None:
    with _running("--recording", str(shared_data / "candles")) as (url, process):
        assert _ask(f"{url}/control/state")["clock"]["start_ms"] == 1640995200000
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    with _running("--recording", str(shared_data / "messages")) as (url, _):
        assert _ask(f"{url}/control/state")["clock"]["start_ms"] == 1723161256000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--start", "tomorrow"), "not a time like"),
        (("--fault", "{"), "not JSON"),
        (("--fault", '{"fault": "explode"}'), "expected one of drop"),
        (("--recording", "/nowhere"), "expected an existing folder"),
    ],
)
def test_nonsense_is_refused_by_name(options: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert subprocess.run([*COMMAND, *options], check=False).returncode == 1
    assert says in capfd.readouterr().err


def test_a_port_that_is_taken_is_said_to_be_so(capfd: pytest.CaptureFixture[str]) -> None:
    with _running() as (url, _):
        port = url.rpartition(":")[2]
        assert subprocess.run([*COMMAND, "--port", port], check=False).returncode == 1
    assert f"port {port}" in capfd.readouterr().err
