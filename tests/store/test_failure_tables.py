"""What is noted of failures: counted once a call, over once the model is well, and never worth a failure itself."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from hindsight.errors import (
    CheckpointUnreadable,
    DeviceFailed,
    LearnerBusy,
    ModelBroken,
    ModelUnloadable,
    ReferenceUnresolvable,
    SettingRefused,
    WarehouseUnusable,
)
from hindsight.market.streams import Stream
from hindsight.store.failure_tables import failing_models, is_its_own, note_outcomes, read_model_failures
from hindsight.store.warehouse import Warehouse

ETH, BTC = (Stream(venue="simulated", symbol=f"{name}/USDT", timeframe="1m") for name in ("ETH", "BTC"))
START, MINUTE = datetime(2024, 3, 1, tzinfo=UTC), timedelta(minutes=1)
HOLD = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def noted(warehouse: Warehouse) -> Callable[..., list[tuple]]:
    """Reads some columns of what is noted, oldest first."""

    def read(*columns: str) -> list[tuple]:
        with warehouse.reading() as con:
            return read_model_failures(con).sort("first_at", "model", "symbol").select(columns).rows()

    return read


def test_a_failure_is_counted_once_a_call_with_its_first_and_last_time_and_its_last_message(
    warehouse: Warehouse, noted: Callable
):
    for minute in (0, 1, 1, 2):
        error = ModelBroken(f"of minute {minute}")
        note_outcomes(warehouse, {(ETH, "cnn"): error}, (), START + minute * MINUTE)
    columns = ("model", "symbol", "error", "message", "times", "first_at", "last_at", "ended_at")
    assert noted(*columns) == [("cnn", "ETH/USDT", "ModelBroken", "of minute 2", 3, START, START + 2 * MINUTE, None)]


def test_models_streams_and_kinds_of_error_are_told_apart(warehouse: Warehouse, noted: Callable):
    note_outcomes(warehouse, {(ETH, "cnn"): ValueError("a"), (BTC, "cnn"): ValueError("b")}, (), START)
    note_outcomes(warehouse, {(ETH, "cnn"): KeyError("c"), (ETH, "lstm"): ValueError("d")}, (), START + MINUTE)
    assert noted("model", "symbol", "error") == [
        ("cnn", "BTC/USDT", "ValueError"),
        ("cnn", "ETH/USDT", "ValueError"),
        ("cnn", "ETH/USDT", "KeyError"),
        ("lstm", "ETH/USDT", "ValueError"),
    ]


def test_a_model_that_is_well_again_ends_all_its_failures_on_that_stream_and_may_fail_again(
    warehouse: Warehouse, noted: Callable
):
    for error in (ValueError("a"), KeyError("b")):
        note_outcomes(warehouse, {(ETH, "cnn"): error, (BTC, "cnn"): error}, (), START)
    for minute in (1, 2):  # the second time it was over already
        note_outcomes(warehouse, {}, [(ETH, "cnn"), (ETH, "lstm")], START + minute * MINUTE)
    assert sorted(noted("symbol", "error", "ended_at"), key=str) == [
        ("BTC/USDT", "KeyError", None),
        ("BTC/USDT", "ValueError", None),
        ("ETH/USDT", "KeyError", START + MINUTE),
        ("ETH/USDT", "ValueError", START + MINUTE),
    ]
    with warehouse.reading() as con:
        assert (failing_models(con, ETH), failing_models(con, BTC)) == (set(), {"cnn"})
        assert read_model_failures(con)["symbol"].to_list() == ["BTC/USDT"] * 2 + ["ETH/USDT"] * 2
    note_outcomes(warehouse, {(ETH, "cnn"): ValueError("c")}, (), START + 3 * MINUTE)
    assert (START, START + 3 * MINUTE, 2, None) in noted("first_at", "last_at", "times", "ended_at")


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (ModelBroken("NaN"), True),
        (ModelUnloadable("no such module"), True),
        (CheckpointUnreadable("truncated"), True),
        (ReferenceUnresolvable("gone"), True),
        (ZeroDivisionError("in its forward"), True),
        (RuntimeError("shapes"), True),
        (SettingRefused("another rule"), False),
        (DeviceFailed("the GPU is full"), False),
        (LearnerBusy("a backfill"), False),
        (WarehouseUnusable("disk full"), False),
        (OSError("disk full"), False),
        (MemoryError(), False),
        (duckdb.IOException("locked"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_model_is_at_fault_for_what_it_raises_itself(warehouse: Warehouse, error: Exception, own: bool):
    assert is_its_own(error) == own
    note_outcomes(warehouse, {(ETH, "cnn"): error}, (), START)
    with warehouse.reading() as con:
        assert failing_models(con, ETH) == {"cnn"}
        assert failing_models(con, ETH, own=True) == ({"cnn"} if own else set())


def test_a_call_without_failures_writes_nothing(warehouse: Warehouse):
    note_outcomes(warehouse, {}, (), START)
    assert not warehouse.path.exists()


def test_a_warehouse_that_cannot_be_had_is_told_and_raises_nothing(
    warehouse: Warehouse, noted: Callable, caplog: pytest.LogCaptureFixture
):
    assert noted("model") == []
    command = [sys.executable, "-c", HOLD, str(warehouse.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdin is not None
        assert shell.stdout.readline() == "held\n"
        note_outcomes(warehouse, {(ETH, "cnn"): ValueError("a")}, (), START)
        shell.stdin.close()
    assert "failures are not noted (cnn of simulated ETH/USDT 1m: ValueError('a'))" in caplog.text
    assert noted("model") == []
