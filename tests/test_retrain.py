"""Retraining where the loss drifts: what is found and done, the same in pieces, live, after a kill, and lived again.

The market is synthetic: of ten candles nine rise, and one falls as far as they rise together, until it turns: then nine
fall. What a model has learned of it is wrong from one candle to the next. As the price goes nowhere, pivots of all
levels are confirmed, and no prediction of one is pending for so long that a call would look back to it anyway. An
anchor of the detectors, the Thursday, lies before the first turn: what they find there stands on losses of before it.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.configured import drift_rule
from hindsight.inference.drift import drifts
from hindsight.inference.references import inference_ids
from hindsight.learn import learn, learn_live
from hindsight.market.candles import TIME, first_delivery
from hindsight.market.streams import Stream, to_ms
from hindsight.remake import remake
from hindsight.settings import Settings, load
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_order

MINUTE = timedelta(minutes=1)
START = datetime(2024, 3, 6, tzinfo=UTC)
CANDLES, TURNS = 4300, (2160, 4140)
FOUND, AGAIN = START + 2280 * MINUTE, START + 4260 * MINUTE  # two hours of wrong predictions after each turn
END = FOUND + 50 * MINUTE
STEPS = 30
# What is compared, and the column that says when a row became known.
TABLES = {
    "inference_references": ("model, made_at", "made_at"),
    "hidden_states": ("model, made_at", "made_at"),
    "outcomes": ("model, settled_at, made_at, kind", "settled_at"),
    "trend_validations": ("model, settled_at, made_at", "settled_at"),
    "training_steps": ("model, step", "event_time"),
    "drifts": ("model, event_time, detector", "event_time"),
    "experiences": ("made_at", "settled_at"),
}


def turning_market(against: float = 9.0) -> pl.DataFrame:
    """Deliveries of the candles, each at its close. One that goes against the others goes so many times as far."""
    chance, minute = np.random.default_rng(5), np.arange(CANDLES)
    way = np.where(np.searchsorted(TURNS, minute, side="right") % 2 == 0, 1, -1)
    goes = np.where(chance.random(CANDLES) < 0.9, way, -way)
    size = np.where(goes == way, 1, against) * chance.uniform(1e-4, 3e-4, CANDLES)
    close = 1000 * np.exp((goes * size).cumsum())
    open_ = np.concatenate([[1000.0], close[:-1]])
    beyond = chance.uniform(0, 5e-5, (2, CANDLES))
    candles = {
        "open_time": pl.datetime_range(START, START + (CANDLES - 1) * MINUTE, MINUTE, eager=True).cast(TIME),
        "open": open_,
        "high": np.maximum(open_, close) * (1 + beyond[0]),
        "low": np.minimum(open_, close) * (1 - beyond[1]),
        "close": close,
        "volume": chance.uniform(1, 100, CANDLES),
    }
    return first_delivery(pl.DataFrame(candles), Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m"))


def settings_in(home: Path) -> Settings:
    """Models that see half an hour, and learn as fast as this market allows."""
    return load(
        home=home,
        symbols=("ETH/USDT",),
        models=("cnn", "dqn"),
        frame=("own=30",),
        warmup=10,
        predict_every=1,
        train_every=30,
        batch_size=16,
        replay_window=1000,
        max_uses=100,
        trend_ttl=60,
        score_window=60,
        snapshot_every=100,
        learning_rate=0.01,
        weight_decay=3.0,
        average_decay=0.5,
        retrain_steps=STEPS,
        device="cpu",
        lock_timeout_seconds=30.0,
    )


def teach(settings: Settings, until: datetime) -> None:
    """Every model up to `until`, one after the other, as a backfill does."""
    for model in in_order(settings.models):
        learn(settings, settings.streams[0], model, until)


def copied(settings: Settings, home: Path) -> Settings:
    shutil.copytree(settings.home, home)
    return settings.model_copy(update={"home": home})


@pytest.fixture(scope="module")
def market(record: Callable, deliveries: Callable) -> Callable[[Settings, datetime, datetime], None]:
    """Records what the synthetic market delivers in (start, end]."""
    venue = deliveries(turning_market())
    return lambda settings, start, end: record(settings, venue, [start, end])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, market: Callable) -> Settings:
    """Until fifty closes after the first drift is found, recorded and learned in one range."""
    settings = settings_in(tmp_path_factory.mktemp("whole") / "home")
    market(settings, START, END)
    teach(settings, END)
    return settings


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory, market: Callable) -> Settings:
    """The same until three closes before it is found. Nothing is known yet of what follows."""
    settings = settings_in(tmp_path_factory.mktemp("turned") / "home")
    market(settings, START, FOUND - 3 * MINUTE)
    teach(settings, FOUND - 3 * MINUTE)
    return settings


def assert_same(found: Settings, expected: Settings, table: Callable, until: datetime = END) -> None:
    """All that was learned, to the bit; of a reference but whether it was live, of a state but when it was stored."""
    for name, (order, known) in TABLES.items():
        one, other = (table(each, name, order).drop("available_at", strict=False) for each in (found, expected))
        other = other.filter(pl.col(known) <= until)
        assert len(one) == len(other) > 0, name
        different = [column for column in other.columns if not one[column].equals(other[column])]
        assert not different, f"{name}: {different}"


@pytest.mark.parametrize("model", ["cnn", "dqn"])
def test_what_is_found_in_the_losses_on_record_stands_in_the_table_and_nothing_else(
    whole: Settings, table: Callable, model: str
):
    """Two roads: looked for every hour while the model learned, and once in all losses of its answers."""
    outcomes = table(whole, "outcomes", "settled_at, made_at").filter(model=model, kind="candle")
    outcomes = outcomes.filter(pl.col("log_return") != 0)
    rows = outcomes["settled_at"].dt.epoch("ms").to_numpy() // 60_000 - 1
    expected = drifts(rows, outcomes["log_loss"].to_numpy(), rule=drift_rule(whole))
    found = table(whole, "drifts", "event_time").filter(model=model)
    assert found["event_time"].to_list() == [FOUND]
    assert found["detector"].to_list() == [each.detector for each in expected]
    # A look is at the hour, and finds what has become known since the one before.
    assert [-(-(each.row + 1) // 60) * 60_000 * 60 for each in expected] == [to_ms(FOUND)]
    for column, values in (("loss_before", "mean_before"), ("loss_after", "mean_after")):
        assert found[column].to_list() == pytest.approx([getattr(each, values) for each in expected], abs=1e-6)
    assert (found["loss_after"] > 2 * found["loss_before"]).all()


@pytest.mark.parametrize("model", ["cnn", "dqn"])
def test_a_drift_triggers_as_many_steps_as_are_set_at_that_close_and_there_are_none_elsewhere(
    whole: Settings, table: Callable, model: str
):
    """All of them on what was answered by then, between the candle's step and a pivot's; no two draw the same."""
    steps = table(whole, "training_steps", "step").filter(model=model)
    taken = steps.filter(trigger="drift")
    assert table(whole, "drifts", "event_time").filter(model=model)["steps"].to_list() == [STEPS]
    assert taken["event_time"].to_list() == [FOUND] * STEPS
    assert steps["step"].to_list() == list(range(1, len(steps) + 1))
    here = steps.filter(pl.col("event_time") == FOUND)["trigger"].to_list()
    assert here == ["candle", *["drift"] * STEPS, *["pivot"] * (len(here) - STEPS - 1)]
    assert (taken["settled"].list.len() == 0).all()
    assert (taken["replayed"].list.len() == whole.batch_size).all()
    assert taken["seed"].is_unique().all()
    outcomes = table(whole, "outcomes", "settled_at").filter(model=model, kind="candle")
    used = taken.select("event_time", inference_id="replayed").explode("inference_id")
    used = used.join(outcomes.select("inference_id", "settled_at"), on="inference_id", how="left")
    assert (used["settled_at"] <= used["event_time"]).all()
    assert used["settled_at"].null_count() == 0


def test_no_drift_is_found_within_the_cool_down_of_another(
    record: Callable, deliveries: Callable, tmp_path: Path, table: Callable
):
    """Of two turns 33 hours apart the second is one of its own, unless the first is cooling down for 34.

    In a market with a trend what has turned is soon learned, so that the detectors see the second turn as well.
    """
    shared = settings_in(tmp_path / "shared").model_copy(update={"models": ("cnn",)})
    record(shared, deliveries(turning_market(against=1.0)), [START, AGAIN])
    teach(shared, AGAIN - MINUTE)
    for hours, found in ((32, [FOUND, AGAIN]), (34, [FOUND])):
        settings = copied(shared, tmp_path / f"{hours} hours").model_copy(update={"drift_cool_down": hours * 60})
        teach(settings, AGAIN)
        steps = table(settings, "training_steps", "step")
        assert table(settings, "drifts", "event_time")["event_time"].to_list() == found
        assert steps.filter(trigger="drift")["event_time"].to_list() == [each for each in found for _ in range(STEPS)]


def test_history_in_pieces_has_the_drifts_of_history_in_one(
    whole: Settings, turned: Settings, market: Callable, tmp_path: Path, table: Callable
):
    """Pieces end just before, at and after the close of a drift, and after each of them nothing is remembered."""
    settings = copied(turned, tmp_path / "pieces")
    market(settings, FOUND - 3 * MINUTE, END)
    for cut in (FOUND - MINUTE, FOUND, FOUND + MINUTE, END):
        teach(settings, cut)
    assert_same(settings, whole, table)


def test_a_drift_that_is_lived_through_close_by_close_and_killed_in_between_is_that_of_a_backfill(
    whole: Settings, turned: Settings, market: Callable, tmp_path: Path, table: Callable
):
    """The call that finds the drift ends between its prediction and its steps, twice, and the next one takes it up."""
    settings, stream = copied(turned, tmp_path / "live"), turned.streams[0]
    closes = [FOUND + n * MINUTE for n in range(-2, 3)]
    for close in closes:
        market(settings, close - MINUTE, close)
        for model in settings.models:
            for _ in range(2 if close == FOUND else 0):
                begun = learn_live(settings, stream, model, lambda: close, leave_pivots=False)  # noqa: B023
                assert next(begun).steps == 0
                begun.close()
                assert table(settings, "drifts", "event_time").filter(model=model).is_empty()
        for model in settings.models:
            for _ in learn_live(settings, stream, model, lambda: close, leave_pivots=close.minute % 2 == 0):  # noqa: B023
                pass
        for model in settings.models if close == FOUND else ():
            learn(settings, stream, model, close, clock=lambda: close)  # noqa: B023  # what was left to a pivot
            assert table(settings, "drifts", "event_time").filter(model=model)["steps"].to_list() == [STEPS]
    assert_same(settings, whole, table, until=closes[-1])


@pytest.mark.parametrize("model", ["cnn", "dqn"])
def test_a_prediction_of_weights_that_a_drift_has_trained_is_made_again_without_its_checkpoint(
    whole: Settings, copy_home: Callable, table: Callable, model: str
):
    """The steps of the drift are lived again among the others; without them it would be another prediction."""
    settings, moment = copy_home(whole), FOUND + MINUTE
    wanted = int(inference_ids(model, settings.streams[0], np.array([to_ms(moment)]))[0])
    steps = table(settings, "training_steps", "step").filter(model=model)
    last = steps.filter(pl.col("trigger") == "drift", pl.col("event_time") == FOUND)["step"].max()
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5)
    with warehouse.reading() as con:
        kept = select(con, "select checkpoint_id, file from checkpoints where model = $model", model=model)
    for checkpoint_id, file in kept.iter_rows():
        if checkpoint_id > last - STEPS:
            (settings.checkpoints_path / file).unlink()
    remade = remake(settings, wanted)
    assert remade.checkpoint_id >= last
    assert remade.difference <= 1e-6
    with warehouse.writing() as con:
        con.execute("delete from training_steps where trigger = 'drift'")
    assert remake(settings, wanted).difference > 1e-3
