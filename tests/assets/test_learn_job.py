"""The op graph `learn`, run by hand: what a sensor will start is what a backfill does."""

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pipelines.definitions import defs

LEARNED = (
    *("inference_references", "outcomes", "trend_validations", "training_steps"),
    *("checkpoints", "learned_until", "scores", "promotions", "drifts"),
    *("hidden_states", "refused_frames", "decisions", "gate_states"),
)


def test_the_op_graph_run_by_hand_learns_what_a_backfill_learned(
    chain, copied: Path, fingerprint: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(copied / "hindsight.duckdb")
    with duckdb.connect(str(copied / "hindsight.duckdb")) as con:
        for table in LEARNED:
            con.execute(f"delete from {table}")
    shutil.rmtree(copied / "checkpoints")
    for name, value in {**chain.environment, "HINDSIGHT_HOME": str(copied)}.items():
        monkeypatch.setenv(name, value)
    asked = {"ops": {"due": {"config": {"stream": str(chain.stream), "until": chain.window.end.isoformat()}}}}
    assert defs.resolve_job_def("learn").execute_in_process(run_config=asked).success
    assert fingerprint(copied / "hindsight.duckdb") == before
