"""`hindsight status` on real tables: each model over time, in eighty columns."""

import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from hindsight.errors import ModelBroken
from hindsight.printing import print_status
from hindsight.settings import Settings
from hindsight.status import status
from hindsight.store.failure_tables import note_outcomes
from hindsight.store.rows import insert
from hindsight.store.warehouse import Warehouse

MINUTE = timedelta(minutes=1)


def warehouse(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


def printed(settings: Settings, width: int = 80) -> str:
    told = io.StringIO()
    print_status(status(settings), Console(file=told, width=width))
    assert max(map(len, told.getvalue().splitlines())) <= width
    return told.getvalue()


def row(text: str, name: str) -> str:
    """The cells of the first row that begins so."""
    lines = (" ".join(line.replace("│", " ").split()) + " " for line in text.splitlines())
    return next(line for line in lines if line.startswith(f"{name} ")).removeprefix(name).strip()


def score(settings: Settings, losses: list[float], prior: float, model: str = "transformer") -> None:
    """Replaces the scores: the newest days, on each of which the action had so much loss."""
    days = [date(2024, 2, 1) + timedelta(days=day) for day in range(len(losses))]
    said = [
        (day, *each)
        for day, loss in zip(days, losses, strict=True)
        for each in (("model", loss), ("class_prior", prior))
    ]
    rows = pl.DataFrame(said, schema=["day", "predictor", "log_loss_sum"], orient="row").with_columns(
        model=pl.lit(model),
        target=pl.lit("action"),
        settled=pl.lit(1, pl.Int32),
        correct=pl.lit(1, pl.Int32),
        regression_loss_sum=pl.lit(None, pl.Float64),
    )
    with warehouse(settings).writing() as con:
        con.execute("delete from scores where model = $model", {"model": model})
        insert(con, "scores", rows, settings.streams[0])


@pytest.fixture
def home(learned_home: Settings, copy_home: Callable[..., Settings]) -> Settings:
    return copy_home(learned_home)


def test_a_model_without_drifts_and_with_few_days_has_its_rows(home: Settings):
    told = printed(home)
    assert row(told, "skill") == "too early"
    assert row(told, "drifts") == "0"
    assert row(told, "last drift") == "-"


def test_the_last_drift_is_told_with_what_it_found_and_what_was_done(home: Settings):
    found = pl.DataFrame(
        {
            "model": "transformer",
            "event_time": [datetime(2024, 3, day, 7, 30, tzinfo=UTC) for day in (2, 1)],
            "detector": ["page_hinkley", "adwin"],
            "loss_before": [0.6811, 0.5],
            "loss_after": [0.7123, 0.6],
            "steps": pl.Series([20, 12], dtype=pl.Int32),
        }
    )
    with warehouse(home).writing() as con:
        insert(con, "drifts", found, home.streams[0])
    told = printed(home)
    assert (row(told, "drifts"), row(told, "steps they triggered")) == ("2", "32")
    assert row(told, "last drift") == "2024-03-02 07:30"
    assert row(told, "… found by") == "page hinkley"
    assert row(told, "… loss before, after") == "0.6811, 0.7123"
    assert row(told, "… steps it triggered") == "20"


def test_the_skill_of_every_model_is_told_though_nobody_is_called(home: Settings):
    noise = np.random.default_rng(0).normal(0, 0.001, 28)
    score(home, (0.68 - noise).tolist(), prior=0.69)
    told = printed(home)
    assert row(told, "skill") == "there"
    assert row(told, "days scored") == "28"
    assert row(told, "gain a prediction") == f"{0.01 + noise.mean():+.4f} ± {noise.std(ddof=1) / 28**0.5:.4f}"


def test_the_last_weeks_are_told_newest_first_as_loss_and_gain(home: Settings):
    score(home, [0.70] * 5 + [0.68] * 7 + [0.66] * 7, prior=0.69)
    told = printed(home)
    assert row(told, "newest 7 days") == "0.6600 +0.0300"
    assert row(told, "7 to 14 days before") == "0.6800 +0.0100"
    assert row(told, "14 to 21 days before") == "0.7000 -0.0100"
    assert row(told, "21 to 28 days before") == "-"


def test_more_models_than_fit_are_told_in_further_tables(home: Settings):
    with warehouse(home).writing() as con:
        for model in ("cnn", "dqn", "fusion", "lstm"):
            con.execute(f"insert into learned_until select * replace ('{model}' as model) from learned_until limit 1")
    told = printed(home)
    assert told.count("days scored") == 3
    assert all(model in told for model in ("cnn", "dqn", "fusion", "lstm", "transformer"))
    assert printed(home, width=200).count("days scored") == 1


def test_what_fails_now_is_told_with_its_message_and_what_is_over_with_its_end(home: Settings):
    store, key, start = warehouse(home), (home.streams[0], "transformer"), datetime(2024, 3, 2, 1, tzinfo=UTC)
    assert "Failed" not in printed(home)
    for minute in range(3):
        note_outcomes(store, {key: ValueError("too [bold]few[/] rows")}, [], start + minute * MINUTE)
    note_outcomes(store, {}, [key], start + 30 * MINUTE)
    assert row(told := printed(home), "transformer ValueError") == "3 2024-03-02 01:00 2024-03-02 01:30"
    assert "bold" not in told
    note_outcomes(store, {key: ModelBroken("it said [NaN] " + 100 * "and more ")}, [], start + 60 * MINUTE)
    told = printed(home)
    assert row(told, "transformer ModelBroken") == "1 2024-03-02 02:00 fails now"
    assert row(told, "transformer ValueError") == "3 2024-03-02 01:00 2024-03-02 01:30"
    assert "it said [NaN] and more" in " ".join(told.split())
    assert told.count("and more") < 50
