"""A venue of the benchmark's own, `hindsight venue`: its clock seen from ours, and the faults that it is told."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.live.ended import ended

READY_SECONDS = 60.0
SAYS = "venue at "
SYNCS = 20


@dataclass(slots=True)
class Venue:
    """A venue that runs. Its clock began when it did, and runs evenly: one look at it serves for good."""

    url: str
    speed: float
    process: subprocess.Popen[bytes]
    synced_ms: float = 0.0  # venue time ...
    synced_at: float = 0.0  # ... when this machine's clock showed so many seconds since 1970

    def sync(self) -> None:
        """Reads its clock often, and keeps the reading that took the shortest."""
        shortest = float("inf")
        for _ in range(SYNCS):
            asked = time.time()
            now_ms = self.state()["clock"]["now_ms"]
            took = time.time() - asked
            if took < shortest:
                shortest, self.synced_ms, self.synced_at = took, now_ms, asked + took / 2

    def now_ms(self, at: float | None = None) -> float:
        """What its clock shows when ours shows `at`; now, by default."""
        return self.synced_ms + ((time.time() if at is None else at) - self.synced_at) * self.speed * 1000

    def here(self, moment: datetime) -> float:
        """Seconds since 1970 by our clock when its clock shows `moment`."""
        return self.synced_at + (moment.timestamp() * 1000 - self.synced_ms) / 1000 / self.speed

    def arm(self, *faults: Mapping[str, object]) -> list[int]:
        """Tells it to misbehave; the numbers of the faults."""
        return self._ask("/control/faults", "POST", list(faults))["armed"]

    def disarm(self, number: int) -> None:
        """Takes a fault away."""
        self._ask(f"/control/faults?number={number}", "DELETE")

    def state(self) -> dict[str, Any]:
        """Its clock, connections, counters, faults and corrections."""
        return self._ask("/control/state")

    def stop(self) -> None:
        """The market stands still from here on; again, nothing happens."""
        ended(self.process, 10.0)

    def _ask(self, path: str, method: str = "GET", told: object = None) -> Any:
        data = None if told is None else json.dumps(told).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            return json.loads(answer.read())


@contextmanager
def venue(environment: Mapping[str, str], folder: Path, speed: float, start: datetime) -> Iterator[Venue]:
    """A venue whose clock shows `start` now, stopped at the end. What it says stands in `folder`/venue.log."""
    command = [sys.executable, "-m", "hindsight", "venue", "--port", "0", "--speed", str(speed)]
    with (folder / "venue.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--start", start.isoformat()],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    try:
        found = Venue(_address(folder / "venue.log", process), speed, process)
        found.sync()
        yield found
    finally:
        ended(process, 10.0)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith(SAYS):
                return line.removeprefix(SAYS)
        time.sleep(0.05)
    raise RuntimeError(f"the venue did not start: {log.read_text()[-2000:]}")
