"""`hindsight up` disturbed while closes come: whatever happens to it, the tables end as those of an undisturbed run.

The tests go on from one another in one home: each lands a stretch of the market, disturbs what takes it up, waits until
nothing is left to do, and compares every table with that of a twin that took the same up in peace.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import dagster as dg
import pytest

from benchmarks.live.likeness import likenesses
from hindsight.advance import advance
from hindsight.exchange.landing import Landing
from hindsight.exchange.venue_time import venue_clock
from hindsight.settings import Settings, load
from hindsight.store.inference_tables import left_unlearned
from hindsight.store.warehouse import Warehouse
from pipelines.home.instance import prepare
from tests.conftest import QUICK
from tests.pipelines.conftest import TERMINATE, live_in, until
from tests.pipelines.up.test_up import SECONDS, Up, running
from tests.test_advance import END, MINUTE, START, Window, land

SET = {**QUICK, "source": "simulated", "simulated_seed": 19, "symbols": "ETH/USDT", "lock_timeout_seconds": 4}
UNFINISHED = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)
FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
HOLD = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"


@dataclass
class Chain:
    """A running `hindsight up` without a feed, in whose place the tests land candles; and its undisturbed twin."""

    up: Up
    settings: Settings
    twin: Settings
    instance: dg.DagsterInstance
    reached: datetime = START

    def land(self, minutes: int) -> None:
        """The next stretch of the market lands here and at the twin's."""
        end = min(self.reached + minutes * MINUTE, END)
        for settings in (self.settings, self.twin):
            land(settings, Window(start=self.reached, end=end))
        self.reached = end

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        return self.instance.get_runs(dg.RunsFilter(job_name="advance", statuses=statuses))

    def is_at_rest(self) -> bool:
        """Whether nothing waits, nothing runs, and everything is learned."""
        if Landing(self.settings.landing_path).segments() or self.instance.get_runs(
            dg.RunsFilter(statuses=[*UNFINISHED, dg.DagsterRunStatus.CANCELING])
        ):
            return False
        with Warehouse(path=self.settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
            return not left_unlearned(con, self.settings.streams, self.settings.models)

    def assert_is_as_undisturbed(self) -> None:
        until(self.is_at_rest, f"everything is done; so far {self.up.said}", SECONDS)
        *_, last = advance(self.twin, venue_clock(self.twin.heartbeat_path), leave_pivots=False)
        assert not last.failures
        found = likenesses(self.settings, self.twin)
        assert [each for each in found if not each.is_same] == []
        filled = {each.table for each in found if each.rows}
        assert filled >= {"candles", "indicators", "pivots", "inference_references", "outcomes", "training_steps"}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, beat: Callable[..., None]) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        live_in(folder / "home", patch)
        for name, value in SET.items():
            patch.setenv(f"HINDSIGHT_{name.upper()}", str(value))
        settings = load()
        twin = settings.model_copy(update={"home": folder / "twin"})
        for each in (settings, twin):
            beat(each, END, local_ms=time.time_ns() // 1_000_000)
        prepare(settings)
        instance = stack.enter_context(dg.DagsterInstance.get())
        yield Chain(stack.enter_context(running(folder / "home", folder, "--no-feed")), settings, twin, instance)


def test_a_daemon_that_is_killed_in_the_middle_of_a_tick_costs_nothing(chain: Chain) -> None:
    until(lambda: chain.up.part("daemon"), "the daemon runs", SECONDS)
    for before, after in pairwise((600, 1, 5, 30)):
        chain.land(before)
        # The first time as soon as a run is asked for; then, as there is one already, while the tick sees the candles.
        until(chain.runs, f"a run is asked for; so far {chain.up.said}", SECONDS)
        daemon = chain.up.part("daemon")
        assert daemon is not None
        daemon.send(signal.SIGKILL)
        chain.land(after)
        until(lambda daemon=daemon: chain.up.part("daemon") not in (None, daemon), "the daemon runs again", SECONDS)
    chain.assert_is_as_undisturbed()


def test_a_run_that_the_button_of_the_ui_ends_is_made_up_for(chain: Chain) -> None:
    chain.land(400)
    until(lambda: chain.runs(dg.DagsterRunStatus.STARTED), "a run works on it", SECONDS)
    (run,) = chain.runs(dg.DagsterRunStatus.STARTED)
    body = json.dumps({"query": TERMINATE, "variables": {"run": run.run_id}}).encode()
    button = urllib.request.Request(f"{chain.up.address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(button, timeout=60) as answer:
        assert json.load(answer)["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"
    until(lambda: chain.runs(CANCELED), "it has ended as canceled", SECONDS)
    assert [each.run_id for each in chain.runs(CANCELED)] == [run.run_id]
    chain.assert_is_as_undisturbed()


def test_a_foreign_program_that_holds_the_tables_longer_than_runs_wait_costs_nothing(chain: Chain) -> None:
    holder = [sys.executable, "-c", HOLD, str(chain.settings.warehouse_path)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as foreign:
        assert foreign.stdin is not None
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == b"held\n"
        for _ in range(3):
            chain.land(1)
        until(lambda: chain.runs(FAILURE), f"a run has waited in vain; so far {chain.up.said}", SECONDS)
        chain.land(2)
        foreign.communicate(b"\n")
    chain.assert_is_as_undisturbed()
