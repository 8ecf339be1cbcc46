"""Showing a reference: what it saw, the weights that made it, and the same prediction again."""

import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from hindsight.errors import ReferenceUnresolvable, SchemaMismatch
from hindsight.inference.references import inference_ids
from hindsight.learn import learn
from hindsight.market.streams import to_ms
from hindsight.remake import remake
from hindsight.settings import Settings
from hindsight.store.warehouse import Warehouse
from hindsight.training.checkpoints import load

MODEL = "transformer"
# Before any step; with a snapshot's weights or between two; over the correction of 03:59; the last one.
MOMENTS = ("01 00:00", "01 03:10", "01 04:00", "01 04:02", "01 04:06", "01 09:30", "02 00:00", "02 01:38")


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2024-03-{text}+00:00")


def id_of(settings: Settings, moment: str) -> int:
    return int(inference_ids(MODEL, settings.streams[0], np.array([to_ms(at(moment))]))[0])


def change(settings: Settings, sql: str, **params: object) -> None:
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        con.execute(sql, params)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_prediction_is_made_again_as_it_was(learned_home: Settings, moment: str):
    """Trap 32 for those around the correction."""
    remade = remake(learned_home, id_of(learned_home, moment))
    assert remade.made_at == at(moment)
    assert remade.difference <= 1e-6
    assert np.isfinite(remade.stored).all()


def test_a_prediction_is_made_again_without_any_file_but_the_warehouse(learned_home: Settings, copy_home: Callable):
    """DESIGN §8: weights are event-sourced, the tape is derived."""
    settings = copy_home(learned_home)
    shutil.rmtree(settings.checkpoints_path)
    shutil.rmtree(settings.tape_path)
    for moment in ("01 00:00", "01 04:02", "02 00:00"):
        remade = remake(settings, id_of(settings, moment))
        assert remade.difference <= 1e-6, moment
    assert remade.checkpoint_id > 60  # more than two snapshots' worth of steps lived again


def test_a_prediction_of_weights_whose_checkpoints_are_evicted_is_made_again(
    learned_home: Settings, copy_home: Callable, table: Callable
):
    settings = copy_home(learned_home)
    kept = table(settings, "checkpoints", "checkpoint_id")["checkpoint_id"].to_list()
    made = table(settings, "inference_references", "made_at").filter(~pl.col("checkpoint_id").is_in(kept))
    change(settings, "update checkpoints set evicted_at = event_time where checkpoint_id > $least", least=kept[0])
    for inference_id in made["inference_id"][[40, 200]]:
        assert remake(settings, inference_id).difference <= 1e-6


def test_a_damaged_checkpoint_is_named_and_nothing_of_it_is_used(
    learned_home: Settings, copy_home: Callable, caplog: pytest.LogCaptureFixture
):
    """The newest is truncated, and of the others one half fits: the weights come from the steps alone."""
    from safetensors.torch import save_file

    settings = copy_home(learned_home)
    files = sorted(settings.checkpoints_path.rglob("*.safetensors"))
    for file in files[:-1]:
        tensors = load(file, _schema(settings))
        half = {name: value + 1 for name, value in tensors.items() if name.startswith("model.")}
        save_file(half, file)
    files[-1].write_bytes(files[-1].read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        remade = remake(settings, id_of(settings, "02 01:38"))
    assert remade.difference <= 1e-6
    refusals = [record.getMessage() for record in caplog.records]
    assert len(refusals) >= 3
    assert all(str(settings.streams[0]) in refusal for refusal in refusals)


def _schema(settings: Settings) -> str:
    from hindsight.configured import schema_of

    return schema_of(settings, settings.streams[0], MODEL)


def test_weights_of_a_lineage_that_started_late_are_lived_again_with_the_numbers_its_steps_had(
    venue_home: Settings, copy_home: Callable
):
    """After a change of schema, steps are numbered on, and learning starts from initial weights."""
    settings, until = copy_home(venue_home), at("01 06:00")
    learn(settings, settings.streams[0], MODEL, until)
    for name in ("inference_references", "training_steps", "checkpoints"):
        change(settings, f"update {name} set schema_hash = 'of another'")
    for file in settings.checkpoints_path.rglob("*.json"):
        file.write_text(file.read_text().replace(_schema(settings), "of another"))
    learn(settings, settings.streams[0], MODEL, at("01 09:00"))
    there = remake(settings, id_of(settings, "01 09:00"))
    shutil.rmtree(settings.checkpoints_path)
    again = remake(settings, id_of(settings, "01 09:00"))
    assert there.checkpoint_id == again.checkpoint_id > 10
    assert there.difference <= 1e-6
    assert again.difference <= 1e-6
    with pytest.raises(
        SchemaMismatch, match=r"input schema of another of an older version, the model at hand is transformer"
    ):
        remake(settings, id_of(settings, "01 03:10"))


def test_learning_goes_on_by_the_settings_of_today_although_old_steps_are_lived_again_by_their_own(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    settings, until = copy_home(venue_home), at("01 03:00")
    learn(settings, settings.streams[0], MODEL, until)
    shutil.rmtree(settings.checkpoints_path)
    faster = settings.model_copy(update={"learning_rate": 5e-3})
    learn(faster, faster.streams[0], MODEL, at("01 05:00"))
    steps = table(faster, "training_steps", "step")
    of_today = steps["hyperparameters"].str.contains('"learning_rate": 0.005', literal=True)
    assert (of_today == (steps["event_time"] > until)).all()


# What cannot be shown -------------------------------------------------------------------------------------------------


def test_an_unknown_id_is_an_error_that_names_it(learned_home: Settings):
    with pytest.raises(ReferenceUnresolvable, match="no reference has the id 12345"):
        remake(learned_home, 12345)


def test_a_digest_that_does_not_match_is_an_error_that_names_both(
    learned_home: Settings, copy_home: Callable, table: Callable
):
    settings = copy_home(learned_home)
    chosen = id_of(settings, "01 09:30")
    references = table(settings, "inference_references", "made_at").filter(pl.col("inference_id") == chosen)
    change(settings, "update inference_references set digest = 255 where inference_id = $id", id=chosen)
    with pytest.raises(ReferenceUnresolvable, match="00000000000000ff") as raised:
        remake(settings, chosen)
    assert f"{references['digest'].item():016x}" in str(raised.value)
    assert "[2024-02-29 23:30, 2024-03-01 09:30)" in str(raised.value)
    assert remake(settings, id_of(settings, "01 09:32")).difference <= 1e-6


@pytest.mark.parametrize("without_checkpoints", [False, True])
def test_a_reference_whose_candles_were_deleted_is_an_error_that_names_its_window(
    learned_home: Settings, copy_home: Callable, without_checkpoints: bool
):
    """Trap 31: not a prediction from fewer candles, and not the error of something further down."""
    settings = copy_home(learned_home)
    span = {"start": at("01 00:00"), "end": at("01 00:05")}
    change(settings, "delete from candles where open_time >= $start and open_time < $end", **span)
    shutil.rmtree(settings.tape_path)
    if without_checkpoints:
        shutil.rmtree(settings.checkpoints_path)
    message = (
        r"ETH/USDT 1m saw \[2024-02-29 23:30, 2024-03-01 09:30\): 5 of 600 candles of ETH/USDT 1m are gone. Record"
    )
    with pytest.raises(ReferenceUnresolvable, match=message):
        remake(settings, id_of(settings, "01 09:30"))


@pytest.mark.parametrize(
    ("since", "found"),
    [
        pytest.param(None, "none is left", id="no pivots"),
        pytest.param(
            datetime(2024, 3, 1, 2, tzinfo=UTC), "the first one left opens at 2024-03-01 02:00", id="later ones"
        ),
    ],
)
def test_a_reference_from_before_the_first_candle_is_an_error_that_names_its_window(
    learned_home: Settings, copy_home: Callable, since: datetime | None, found: str
):
    settings = copy_home(learned_home)
    if since is None:
        change(settings, "delete from pivot_states")
    else:
        change(settings, "update pivot_states set since = $since", since=since)
    with pytest.raises(ReferenceUnresolvable, match=found):
        remake(settings, id_of(settings, "01 09:30"))


def test_showing_a_reference_changes_nothing(learned_home: Settings, copy_home: Callable, table: Callable):
    settings = copy_home(learned_home)
    before = table(settings, "training_steps", "step"), table(settings, "checkpoints", "checkpoint_id")
    files = sorted(settings.checkpoints_path.rglob("*.*"))
    remake(settings, id_of(settings, "01 09:30"))
    after = table(settings, "training_steps", "step"), table(settings, "checkpoints", "checkpoint_id")
    assert before[0].equals(after[0])
    assert before[1].equals(after[1])
    assert sorted(settings.checkpoints_path.rglob("*.*")) == files
