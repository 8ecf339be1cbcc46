"""A backfill started as the UI starts it: through GraphQL, cut into runs by the daemon, each in its own process."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.test.utils import execute_dagster_graphql

from hindsight.settings import load
from hindsight.status import status
from pipelines.home.instance import WORKSPACE, open_instance

LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
STREAMS = ("simulated ETH/USDT 1h", "simulated BTC/USDT 1h")
MARKET = ("candles", "indicators", "pivots")
LEARNING = ("inference_references", "decisions", "outcomes", "trend_validations", "checkpoints")
QUICK = {"MODELS": "transformer", "PREDICT_EVERY": "5", "TRAIN_EVERY": "240"}
JOB = {
    "partitionSetName": "backfill_partition_set",
    "repositorySelector": {"repositoryLocationName": "hindsight", "repositoryName": "__repository__"},
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceProcessContext]:
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")  # put back at the end: opening the instance sets it
    monkeypatch.setenv("HINDSIGHT_SOURCE", "simulated")
    for name, value in QUICK.items():
        monkeypatch.setenv(f"HINDSIGHT_{name}", value)
    monkeypatch.setenv("HINDSIGHT_TIMEFRAMES", "1h")
    monkeypatch.setenv("HINDSIGHT_SYMBOLS", "ETH/USDT,BTC/USDT")
    with (
        open_instance(load()) as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(WORKSPACE)])) as context,
    ):
        yield context


# Dagster's own GraphQL resolver calls a function that Dagster has deprecated.
@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated")
@pytest.mark.parametrize(
    ("page", "assets"),
    [
        # References name the order book, and nobody has one of these months.
        pytest.param({}, (*MARKET, *LEARNING), id="lineage"),
        pytest.param({"selector": JOB}, MARKET, id="job"),
    ],
)
def test_two_months_of_two_streams_come_out_whole_although_their_runs_start_together(
    workspace: WorkspaceProcessContext, page: dict[str, object], assets: tuple[str, ...]
) -> None:
    months = ("2024-01", "2024-02")
    keys = [f"{month}|{stream}" for month in months for stream in STREAMS]
    params = {"assetSelection": [{"path": [asset]} for asset in assets], "partitionNames": keys, **page}

    launched = execute_dagster_graphql(workspace.create_request_context(), LAUNCH, variables={"params": params})
    assert launched.data["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", launched.data
    backfill_id = launched.data["launchPartitionBackfill"]["backfillId"]
    _run_daemon_until_done(workspace, backfill_id)

    instance = workspace.instance
    assert instance.get_backfill(backfill_id).status == BulkActionStatus.COMPLETED_SUCCESS
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    assert len(runs) == 2
    for asset in assets:
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(keys)
    stored = status(load()).stored
    assert set(stored["candles"] + stored["missing"]) == {24 * (31 + 29)}
    assert set(stored["first"].dt.month()) == {1}


def _run_daemon_until_done(workspace: WorkspaceProcessContext, backfill_id: str, timeout_seconds: float = 300) -> None:
    logger, deadline = logging.getLogger("daemon"), time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        list(execute_backfill_iteration(workspace, logger))
        if workspace.instance.get_backfill(backfill_id).status != BulkActionStatus.REQUESTED:
            return
        time.sleep(0.5)
    raise TimeoutError(f"the backfill has not ended after {timeout_seconds} s")
