"""What is noted of failures: counted, over once the model is well, and never worth a failure itself."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from hindsight.errors import ModelBroken, WarehouseLocked, WarehouseUnusable
from hindsight.market.streams import Stream
from hindsight.store.failure_tables import MIXTURE, failing_models, note_outcomes, read_model_failures
from hindsight.store.warehouse import Warehouse

MODELS = ("cnn", "lstm")
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
            return read_model_failures(con, MODELS).sort("first_at", "model", "symbol").select(columns).rows()

    return read


def test_a_failure_is_counted_with_its_first_and_last_time_and_its_last_message(warehouse: Warehouse, noted: Callable):
    for minute in (0, 1, 2):
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
        assert read_model_failures(con, MODELS)["symbol"].to_list() == ["BTC/USDT"] * 2 + ["ETH/USDT"] * 2
    note_outcomes(warehouse, {(ETH, "cnn"): ValueError("c")}, (), START + 3 * MINUTE)
    assert (START, START + 3 * MINUTE, 2, None) in noted("first_at", "last_at", "times", "ended_at")


class Mute(Exception):
    def __str__(self) -> str:
        raise TypeError("no words")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Mute(), ""),
        (ValueError("a path: \udcff"), "a path: ?"),
        (ValueError(""), ""),
        (ValueError("x" * 5000), "x" * 1000),
    ],
    ids=["its words raise", "no text", "nothing", "very long"],
)
def test_whatever_an_exception_says_is_noted_and_keeps_no_other_from_being_noted(
    warehouse: Warehouse, noted: Callable, error: Exception, message: str
):
    note_outcomes(warehouse, {(ETH, "cnn"): error, (ETH, "lstm"): KeyError("b")}, (), START)
    assert noted("model", "error", "message") == [
        ("cnn", type(error).__name__, message),
        ("lstm", "KeyError", "'b'"),
    ]


@pytest.mark.parametrize("error", [WarehouseLocked("a shell"), WarehouseUnusable("disk full")])
def test_what_the_warehouse_is_at_fault_for_is_no_failure_of_a_model(
    warehouse: Warehouse, noted: Callable, error: Exception
):
    note_outcomes(warehouse, {(ETH, "cnn"): error}, (), START)
    assert not warehouse.path.exists()


def test_models_that_nobody_asks_for_are_not_told(warehouse: Warehouse):
    failed = {(ETH, model): ValueError("a") for model in ("cnn", "removed", MIXTURE)}
    note_outcomes(warehouse, failed, (), START)
    with warehouse.reading() as con:
        assert read_model_failures(con, ["cnn", "lstm"])["model"].to_list() == ["cnn", MIXTURE]


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
    assert "failures are not noted (cnn of simulated ETH/USDT 1m: ValueError: a)" in caplog.text
    assert noted("model") == []
