"""Sweeps over the simulated venue: every variation is what a backfill with its settings is, and the tables stay."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from hindsight import sweep as swept
from hindsight.cli import app
from hindsight.errors import ModelBroken, SettingRefused
from hindsight.market.streams import Window
from hindsight.settings import Settings
from hindsight.store.sweep_tables import read_sweeps
from hindsight.store.warehouse import Warehouse
from hindsight.sweep import grid_of, sweep, variations
from hindsight.sweep_printing import print_sweep
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, new_learner
from tests.conftest import VENUE_DAYS

GRID = {"learning_rate": ["0.0002", "0.01"], "train_every": ["60", "30"]}  # the first of each are those of the home
MEASURED = "seconds"


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5)


@pytest.fixture(scope="module")
def rows(learned_home: Settings) -> pl.DataFrame:
    """Of the whole market, four variations."""
    return sweep(learned_home, learned_home.streams[0], "transformer", VENUE_DAYS, GRID)


def test_a_variation_is_a_backfill_with_its_settings(learned_home: Settings, rows: pl.DataFrame):
    """As many steps, and the loss of the predictions that the backfill has on record, answered as it has on record."""
    with warehouse_of(learned_home).reading() as con:
        ((steps, references, loss),) = con.execute(
            """
            with losses as (
              select inference_id, made_at, settled_at, log_loss from outcomes where kind = 'candle' or is_next
              union all
              select inference_id, made_at, settled_at, log_loss from trend_validations
            )
            select
              (select count(*) from training_steps),
              count(distinct inference_id),
              sum(log_loss) / count(distinct inference_id)
            from losses
            where log_loss is not null and made_at <= $until - $ttl and settled_at <= made_at + $ttl
            """,
            {"until": VENUE_DAYS.end, "ttl": learned_home.trend_ttl * learned_home.streams[0].step},
        ).fetchall()
    same = rows.filter(pl.col("settings") == '{"learning_rate": 0.0002, "train_every": 60}').row(0, named=True)
    assert (same["steps"], same["references_judged"]) == (steps, references)
    assert same["loss"] == pytest.approx(loss, rel=1e-6)


def test_the_least_loss_comes_first_and_the_others_are_held_against_it(rows: pl.DataFrame):
    assert len(rows) == 4
    assert rows["place"].to_list() == [1, 2, 3, 4]
    assert rows["loss"].is_sorted()
    assert rows["difference"][0] == 0
    np.testing.assert_allclose(rows["difference"], rows["loss"] - rows["loss"][0], atol=1e-12)
    assert rows["references_judged"].n_unique() == 1
    assert rows["references_judged"][0] > 500
    assert 1.5 < rows["loss"][0] < np.log(2) * 2 + np.log(3) < rows["loss"][3] + 0.2


def test_the_pieces_that_history_is_taken_in_change_nothing(
    learned_home: Settings, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(swept, "PIECE", 333)
    parts: list[tuple[int, int]] = []
    again = sweep(
        learned_home, learned_home.streams[0], "transformer", VENUE_DAYS, GRID, lambda *done: parts.append(done)
    )
    assert len(parts) > 3
    assert parts[-1][0] == parts[-1][1]
    assert again.drop(MEASURED).equals(rows.drop(MEASURED))


def test_the_same_sweep_again_takes_the_place_of_the_first_and_the_learners_stay_as_they_were(
    learned_home: Settings, rows: pl.DataFrame, copy_home: Callable[..., Settings], table: Callable
):
    home = copy_home(learned_home)
    before = {name: table(home, name, "all") for name in ("training_steps", "inference_references", "checkpoints")}
    window = Window(start=VENUE_DAYS.start, end=VENUE_DAYS.start + (VENUE_DAYS.end - VENUE_DAYS.start) / 2)
    for _ in range(2):
        other = sweep(home, home.streams[0], "transformer", window, {"seed": [1, 2]})
        with warehouse_of(home).reading() as con:
            stored = read_sweeps(con)
        assert len(stored) == len(rows) + len(other)
        assert set(stored["sweep_id"]) == {rows["sweep_id"][0], other["sweep_id"][0]}
    for name, expected in before.items():
        assert table(home, name, "all").equals(expected)


def test_what_would_change_the_references_is_no_matter_of_a_sweep(learned_home: Settings):
    assert grid_of(["learning_rate=1e-4, 2e-4", "seed=0"]) == {"learning_rate": ["1e-4", "2e-4"], "seed": ["0"]}
    with pytest.raises(SettingRefused, match="expected NAME=VALUE,VALUE, found 'seed'"):
        grid_of(["seed"])
    for twice in (["seed=0", "seed=1"], ["seed=1,1"]):
        with pytest.raises(SettingRefused, match="name it once, and each value once"):
            grid_of(twice)
    for grid, said in (
        ({"predict_every": [2]}, "cannot be varied"),
        ({"learning_rate": []}, "needs values"),
        ({"learning_rate": ["fast"]}, "learning_rate = 'fast'"),
        ({"max_uses": [0]}, "max_uses = 0"),
    ):
        with pytest.raises(SettingRefused, match=said):
            variations(learned_home, grid)


def test_a_window_of_which_nothing_is_recorded_is_refused(learned_home: Settings):
    later = Window(start=VENUE_DAYS.end, end=VENUE_DAYS.end + (VENUE_DAYS.end - VENUE_DAYS.start))
    with pytest.raises(SettingRefused, match="is recorded over"):
        sweep(learned_home, learned_home.streams[0], "transformer", later, {"seed": [1]})


def test_a_variation_that_breaks_comes_last_and_costs_the_others_nothing(
    learned_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
):
    home = copy_home(learned_home)
    half = Window(start=VENUE_DAYS.start, end=VENUE_DAYS.start + (VENUE_DAYS.end - VENUE_DAYS.start) / 2)
    given = (home, home.streams[0], "transformer", half)

    def spoiled(model: str, hyper: Hyperparameters, *rest: Any) -> Learner:
        learner = new_learner(model, hyper, *rest)
        if hyper.learning_rate == 0.1:
            next(learner.average.parameters()).detach().fill_(torch.nan)
        return learner

    monkeypatch.setattr(swept, "new_learner", spoiled)
    monkeypatch.setattr(swept, "PIECE", 700)
    rows = sweep(*given, {"learning_rate": ["0.1", "0.0002"]})
    by_itself = sweep(*given, {"learning_rate": ["0.0002"]})
    for name in ("settings", "loss", "loss_late", "steps", "references_judged"):
        assert rows[name][0] == by_itself[name][0]
    assert (rows["place"].to_list(), rows["loss"].is_nan().to_list()) == ([1, 2], [False, True])
    assert rows["difference_low"][1] is None
    with warehouse_of(home).reading() as con:
        stored = read_sweeps(con).filter(pl.col("sweep_id") == rows["sweep_id"][0])
    assert stored["loss"].is_nan().to_list() == [False, True]
    monkeypatch.setenv("COLUMNS", "160")
    print_sweep(rows, console := Console(record=True))
    assert "1 came to predict what is not a number" in console.export_text()
    with pytest.raises(ModelBroken, match="every variation"):
        sweep(*given, {"learning_rate": ["0.1"]})


def put_in(environment: pytest.MonkeyPatch, settings: Settings) -> None:
    """The settings that are not the usual ones, as somebody would set them."""
    for name, value in settings.model_dump().items():
        if value != Settings.model_fields[name].default:
            plain = ",".join(value) if isinstance(value, tuple) else str(value)
            environment.setenv(f"HINDSIGHT_{name.upper()}", plain)


SINCE, UNTIL = "2024-02-29T14:00", "2024-03-01T12:00"


def test_the_command_prints_the_table_and_later_all_that_are_stored(
    venue_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
):
    put_in(monkeypatch, copy_home(venue_home))
    monkeypatch.setenv("COLUMNS", "100")
    nothing = CliRunner().invoke(app, ["sweep"])
    assert (nothing.exit_code, "No sweep is stored yet" in nothing.output) == (0, True)
    options = ("--since", SINCE, "--until", UNTIL, "--vary", "seed=0,1", "--vary", "learning_rate=0.001")
    printed = CliRunner().invoke(app, ["sweep", *options])
    assert printed.exit_code == 0, printed.output
    assert re.search(r"transformer over 2024-02-29 14:00 to 2024-03-01 12:00: prequential loss of \d+", printed.output)
    assert "2 variations in" in printed.output
    table = printed.output[printed.output.index("transformer over") :].strip()
    assert CliRunner().invoke(app, ["sweep"]).output.strip() == table
    assert CliRunner().invoke(app, ["sweep", "--since", SINCE]).exit_code == 2
    assert len(re.findall(r"0\.001 ", printed.output)) == 2
    refused = CliRunner().invoke(app, ["sweep", "--since", SINCE, "--vary", "lookback=60"])
    assert refused.exit_code == 1


def test_the_job_of_the_ui_leaves_its_table_and_a_picture(
    learned_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
):
    from pipelines.sweep import sweep as job  # dagster takes a second to import

    home = copy_home(learned_home)
    put_in(monkeypatch, home)
    asked = {"since": SINCE, "until": UNTIL, "vary": ["seed=0,1"]}
    run = job.execute_in_process(run_config={"ops": {"try_settings": {"config": asked}}})
    assert run.success
    (output,) = [event for event in run.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    with warehouse_of(home).reading() as con:
        stored = read_sweeps(con).filter(pl.col("sweep_id") == metadata["sweep_id"].value)
    assert len(stored) == 2
    assert metadata["loss"].value == pytest.approx(stored["loss"][0])
    assert metadata["variations"].value.count("\n") == 3
    assert "data:image/png;base64," in metadata["weekly_loss"].value
