"""The op graph `learn`, run by hand: what a sensor will start is what a backfill does."""

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from hindsight.errors import SettingRefused
from pipelines.definitions import defs
from pipelines.jobs import Lesson, due
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource

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


@pytest.fixture
def at_home(chain, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**chain.environment, "HINDSIGHT_HOME": str(chain.settings.home)}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("at_home")
def test_a_stream_may_be_named_as_on_the_command_line() -> None:
    asked = {"stream": "ETH/USDT 1m", "until": "2024-01-02T12:00"}
    assert _due(asked) == [["simulated ETH/USDT 1m", "transformer", "2024-01-02T12:00:00+00:00"]]


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        pytest.param({"stream": "simulated DOGE/USDT 1m"}, "which are predicted, found 'simulated DOGE", id="stream"),
        pytest.param({"until": "garbage"}, "until: expected an instant or a date, UTC, like", id="until"),
    ],
)
def test_nonsense_is_refused_with_the_field_and_what_would_be_right(asked: dict[str, str], refusal: str) -> None:
    with pytest.raises((SettingRefused, dg.Failure), match=refusal):
        _due(asked)


@pytest.mark.usefixtures("at_home")
def test_a_scope_or_a_trial_that_begins_at_no_instant_is_refused_by_name() -> None:
    with pytest.raises(dg.Failure, match=r"since: expected an instant or a date, UTC, like .* found 'garbage'"):
        ScopeResource(since="garbage").bounds()
    asked = {"ops": {"try_settings": {"config": {"since": "garbage", "vary": ["seed=0,1"]}}}}
    with pytest.raises(dg.Failure, match="since: expected an instant or a date"):
        defs.resolve_job_def("sweep").execute_in_process(run_config=asked)


def _due(asked: dict[str, str]) -> list[list[str]]:
    """What the first op of the job hands to the second."""
    with dg.build_op_context(resources={"warehouse": WarehouseResource()}) as context:
        return due(context, Lesson(**asked))
