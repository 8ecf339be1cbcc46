"""Each question finds the row that was planted for it, and the check shows that row in the UI."""

import shutil
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

from assets.checks import CHECKS, QUESTIONS
from hindsight import verify
from hindsight.settings import load
from hindsight.store import learning_questions, questions
from hindsight.store.warehouse import Warehouse
from resources.scope import ScopeResource
from resources.warehouse import WarehouseResource

MORNING = "timestamptz '2024-01-02 06:00:00+00'"
ONE_REFERENCE = "(select min(inference_id) from inference_references)"
ONE_DECISION = "(select min(made_at) from decisions where used <> 'none')"
ONE_OUTCOME = "(select min(inference_id) from outcomes where kind = 'L2H' and status = 'settled')"
ONE_TREND = "(select min(inference_id) from trend_validations where status = 'validated')"

PLANTED = {
    questions.candles_standing_twice: f"insert into candles from candles where open_time = {MORNING}",
    questions.malformed_candles: f"update candles set high = low - 1 where open_time = {MORNING}",
    questions.candles_known_too_early: f"update candles set recorded_at = open_time where open_time = {MORNING}",
    questions.broken_revisions: f"""
        insert into candle_revisions
        select * exclude (recorded_at), recorded_at, {MORNING} + interval 1 day
        from candles
        where open_time = {MORNING}""",
    questions.holes_not_in_gaps: f"delete from candles where open_time = {MORNING}",
    questions.missing_candles: f"""
        insert into gaps
        select venue, symbol, timeframe, open_time, open_time + interval 1 minute, 1, open_time + interval 2 minutes
        from candles
        where open_time = {MORNING}""",
    questions.indicators_beside_candles: f"delete from indicators where open_time = {MORNING}",
    questions.indicators_not_finite: f"update indicators set macd = 'nan' where open_time = {MORNING}",
    questions.indicators_not_warming_up: f"update indicators set sma_20 = null where open_time = {MORNING}",
    questions.pivots_standing_twice: "insert into pivots from pivots where level = 3 limit 1",
    questions.pivots_confirmed_too_early: f"""
        update pivots set confirmed_at = pivot_time where confirmed_at > {MORNING} and level = 2""",
    questions.pivots_off_their_candle: f"update pivots set price = price + 1 where confirmed_at > {MORNING}",
    learning_questions.references_standing_twice: f"""
        insert into inference_references from inference_references where inference_id = {ONE_REFERENCE}""",
    learning_questions.references_seeing_the_future: f"""
        update inference_references set input_end = input_end + interval 1 minute
        where inference_id = {ONE_REFERENCE}""",
    learning_questions.predictions_not_finite: f"""
        update inference_references set predicted_candle = ['0', 'nan', '0', '0']::float[4]
        where inference_id = {ONE_REFERENCE}""",
    learning_questions.decisions_standing_twice: "insert into decisions from decisions limit 1",
    learning_questions.decisions_not_adding_up: f"""
        update decisions set action = 'sell', probability = 0.6
        where made_at = {ONE_DECISION}""",
    learning_questions.outcomes_standing_twice: f"""
        insert into outcomes from outcomes where inference_id = {ONE_OUTCOME}""",
    learning_questions.outcomes_settled_too_early: f"""
        update outcomes set settled_at = true_at + interval 1 minute
        where kind = 'L2H' and inference_id = {ONE_OUTCOME}""",
    learning_questions.outcomes_not_finite: f"""
        update outcomes set log_return = 'nan' where inference_id = {ONE_OUTCOME}""",
    learning_questions.trends_graded_twice: f"""
        insert into trend_validations from trend_validations where inference_id = {ONE_TREND}""",
    learning_questions.trends_not_adding_up: f"delete from inference_references where inference_id = {ONE_TREND}",
    learning_questions.trends_from_before_their_prediction: f"""
        update trend_validations set start_time = made_at - interval 1 minute where inference_id = {ONE_TREND}""",
    learning_questions.steps_out_of_order: "delete from training_steps where step = 5",
    learning_questions.steps_not_finite: "update training_steps set loss_trend = 'nan' where step = 5",
    learning_questions.checkpoints_not_serving: "update checkpoints set is_serving = false",
}


def plant(home: Path, sql: str) -> None:
    with duckdb.connect(str(home / "hindsight.duckdb")) as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(sql)


def ask(home: Path, question: questions.Question, chain) -> pl.DataFrame:
    with Warehouse(path=home / "hindsight.duckdb", lock_timeout_seconds=5).reading() as con:
        return question(con, chain.stream, chain.window)


@pytest.fixture
def spoilt(chain, tmp_path: Path) -> Path:
    """A folder with a copy of the warehouse alone."""
    shutil.copy(chain.settings.warehouse_path, tmp_path)
    return tmp_path


def test_a_row_is_planted_for_every_question_of_the_tables() -> None:
    of_the_tables = {ask for asks in QUESTIONS.values() for ask in asks if ask.__module__ != "assets.checks"}
    assert of_the_tables == PLANTED.keys()


@pytest.mark.parametrize("question", PLANTED, ids=lambda question: question.__name__)
def test_a_question_finds_the_row_planted_for_it(chain, spoilt: Path, question: questions.Question) -> None:
    before = ask(spoilt, question, chain)
    plant(spoilt, PLANTED[question])
    after = ask(spoilt, question, chain)
    assert before.is_empty()
    assert not after.is_empty()


def test_a_reference_whose_bytes_changed_is_found(chain, copied: Path) -> None:
    plant(copied, "update inference_references set digest = xor(digest, 1)")
    settings = chain.settings.model_copy(update={"home": copied})
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        found = verify.references_not_resolving(settings, con, chain.stream, chain.window)
    assert found.height == learning_questions.SAMPLE


def test_serving_weights_that_were_cut_short_are_found(chain, copied: Path) -> None:
    for weights in (copied / "checkpoints").rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1000])
    settings = chain.settings.model_copy(update={"home": copied})
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        found = verify.serving_checkpoints_not_loading(settings, con, chain.stream)
    assert found["model"].to_list() == list(settings.models)


def test_the_check_fails_with_the_offending_rows_in_its_metadata(
    chain, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(spoilt, PLANTED[questions.malformed_candles])
    monkeypatch.setenv("HINDSIGHT_HOME", str(spoilt))
    assert load().home == spoilt

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [dg.AssetSpec("candles"), *CHECKS[:1]],
            selection=dg.AssetSelection.checks(*CHECKS[:1]),
            instance=instance,
            resources={"warehouse": WarehouseResource(), "scope": ScopeResource()},
        )
    answers = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert not answers["malformed_candles"].passed
    assert answers["malformed_candles"].metadata["offending"].value == 1
    assert "2024-01-02 06:00" in str(answers["malformed_candles"].metadata["rows"].value)
    assert answers["candles_standing_twice"].passed
