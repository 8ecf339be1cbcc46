"""The curves of the UI: what an asset holds for each month, of one model and of several."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from assets.metadata import figures_by_month
from assets.partitions import Stretch
from hindsight.inference.trading import TradingCost, rewards_of
from hindsight.market.streams import Window
from hindsight.settings import Settings
from hindsight.store.rows import OF_STREAM, insert, select, stream_key
from hindsight.store.warehouse import Warehouse

SPAN = Window(start=datetime(2024, 2, 1, tzinfo=UTC), end=datetime(2024, 4, 1, tzinfo=UTC))
MONTHS = ("2024-02", "2024-03")


def warehouse(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


def figures(settings: Settings, table: str) -> dict[str, dict[str, float]]:
    with warehouse(settings).reading() as con:
        return figures_by_month(con, table, Stretch(stream=settings.streams[0], window=SPAN))


def happen(settings: Settings, table: str, **columns: object) -> None:
    """Stores one row of the home's stream."""
    with warehouse(settings).writing() as con:
        insert(con, table, pl.DataFrame({name: [value] for name, value in columns.items()}), settings.streams[0])


def drift(settings: Settings, model: str, event_time: datetime, steps: int) -> None:
    losses = {"detector": "adwin", "loss_before": 0.68, "loss_after": 0.71}
    happen(settings, "drifts", model=model, event_time=event_time, **losses, steps=steps)


@pytest.fixture
def one(learned_home: Settings, copy_home: Callable[..., Settings]) -> Settings:
    """A home in which a transformer has learned for a day across the end of February: 12 hours later, in truth."""
    settings = copy_home(learned_home)
    known = {"inference_references": (), "outcomes": ("settled_at",), "trend_validations": ("settled_at",)}
    with warehouse(settings).writing() as con:
        for table, columns in known.items():
            earlier = (f"{name} = {name} - interval 12 hours" for name in ("made_at", *columns))
            con.execute(f"update {table} set {', '.join(earlier)}")
    return settings


@pytest.fixture
def two(one: Settings) -> Settings:
    """The same with a second model: as if it had said and learned the same, and been half as good at it."""
    doubled = {
        "learned_until": "replace ('b' as model)",
        "inference_references": "replace (inference_id + 1 as inference_id, 'b' as model)",
        "outcomes": "replace (inference_id + 1 as inference_id, 2 * log_loss as log_loss, 'b' as model)",
        "trend_validations": "replace (inference_id + 1 as inference_id, 2 * log_loss as log_loss, 'b' as model)",
        "training_steps": "replace (2 * loss as loss, 'b' as model)",
        "scores": "replace (2 * log_loss_sum as log_loss_sum, 'b' as model)",
    }
    with warehouse(one).writing() as con:
        for table, changed in doubled.items():
            con.execute(f"insert into {table} select * {changed} from {table}")
    return one


def test_of_one_model_the_names_are_plain(one: Settings):
    found = figures(one, "outcomes")["2024-03"]
    assert {"rows", "action_accuracy", "action_log_loss", "next_pivot_accuracy"} <= found.keys()
    assert {"action_log_loss_transformer", "action_log_loss_class_prior", "action_log_loss_always_up"} <= found.keys()
    assert not any("_of_" in name for name in found)


def test_of_several_models_each_has_its_own_curve_and_its_own_baselines(two: Settings):
    found = figures(two, "outcomes")["2024-03"]
    for name in ("action_log_loss_class_prior", "next_pivot_log_loss_opposite_side", "action_log_loss"):
        assert found[f"{name}_of_b"] == pytest.approx(2 * found[f"{name}_of_transformer"])
        assert name not in found
    assert found["action_log_loss_b"] == pytest.approx(2 * found["action_log_loss_transformer"])
    trends, steps = figures(two, "trend_validations")["2024-03"], figures(two, "checkpoints")["2024-03"]
    assert trends["trend_log_loss_of_b"] == pytest.approx(2 * trends["trend_log_loss_of_transformer"])
    assert steps["loss_of_b"] == pytest.approx(2 * steps["loss_of_transformer"])


def test_a_run_over_a_part_of_a_month_tells_of_all_of_it(two: Settings):
    part = Window(start=datetime(2024, 3, 1, 3, tzinfo=UTC), end=datetime(2024, 3, 1, 4, tzinfo=UTC))
    stretch = Stretch(stream=two.streams[0], window=part)
    for name in ("candles", "pivots", "inference_references", "outcomes", "trend_validations", "checkpoints"):
        with warehouse(two).reading() as con:
            told = figures_by_month(con, name, stretch)
        assert told == {"2024-03": pytest.approx(figures(two, name)["2024-03"])}


def test_what_is_counted_is_counted_of_all_models_together(two: Settings, table: Callable):
    for name in ("inference_references", "outcomes", "trend_validations"):
        told = sum(month["rows"] for month in figures(two, name).values())
        assert told == len(table(two, name, "made_at"))
    steps = figures(two, "checkpoints")
    assert sum(month.get("training_steps", 0) for month in steps.values()) == len(table(two, "training_steps", "step"))


def test_the_calibration_error_of_a_month_is_that_of_ten_plain_lines(one: Settings, table: Callable):
    outcomes = table(one, "outcomes", "made_at").filter(pl.col("kind") == "candle", pl.col("is_correct").is_not_null())
    said = table(one, "inference_references", "made_at").select("inference_id", "action_confidence")
    answers = outcomes.join(said, on="inference_id").with_columns(month=pl.col("made_at").dt.strftime("%Y-%m"))
    found = figures(one, "outcomes")
    for month in MONTHS:
        confidence, came = answers.filter(month=month).select("action_confidence", "is_correct").to_numpy().T
        bins = np.floor(confidence.astype(np.float64) * 20)
        gaps = [abs((confidence - came)[bins == each].sum()) for each in np.unique(bins)]
        assert found[month]["action_calibration_error_transformer"] == pytest.approx(sum(gaps) / len(came), rel=1e-4)
    assert {"trend_calibration_error_transformer", "next_pivot_calibration_error_transformer"} <= found[
        MONTHS[1]
    ].keys()


def test_drifts_and_promotions_are_counted_by_month_and_none_is_a_number_too(two: Settings):
    drift(two, "b", datetime(2024, 3, 1, 5, tzinfo=UTC), steps=20)
    drift(two, "b", datetime(2024, 3, 1, 9, tzinfo=UTC), steps=12)
    served = {"serving_before": 3, "challenger": 7, "schema_hash": "x", "confidence": None, "references_compared": None}
    losses = dict.fromkeys(("loss_champion", "loss_challenger", "difference", "difference_low", "difference_high"))
    for hour, (outcome, after) in enumerate((("promoted", 7), ("kept", 3), ("rolled back", 3))):
        when = datetime(2024, 2, 29, 20 + hour, tzinfo=UTC)
        row = {"outcome": outcome, "serving_after": after, **served, **losses, "blocks": None}
        happen(two, "promotions", model="transformer", event_time=when, **row)
    february, march = (figures(two, "checkpoints")[month] for month in MONTHS)
    assert (march["drifts_of_b"], march["retrain_steps_of_b"]) == (2, 32)
    assert (march["drifts_of_transformer"], february["drifts_of_b"]) == (0, 0)
    names = ("looks", "promotions", "changes_by_hand")
    assert [february[f"{name}_of_transformer"] for name in names] == [2, 1, 1]
    assert [february[f"{name}_of_b"] for name in names] == [0, 0, 0]


def test_refused_frames_are_told_of_a_month_without_any_prediction(one: Settings):
    first = datetime(2024, 2, 29, 18, tzinfo=UTC)
    row = {"block": "own", "need": 600, "fewest": 3, "first_at": first, "last_at": first}
    with warehouse(one).writing() as con:
        con.execute("delete from inference_references where made_at < '2024-03-01'")
        con.execute("delete from refused_frames")
    for block, closes in (("own", 40), ("book", 2)):
        happen(one, "refused_frames", model="transformer", day=first.date(), closes=closes, **{**row, "block": block})
    found = figures(one, "inference_references")
    assert found["2024-02"] == {"refused_frames": 42}
    assert found["2024-03"]["refused_frames"] == 0


def test_a_month_before_a_model_began_has_no_number(one: Settings):
    with warehouse(one).writing() as con:
        con.execute("update learned_until set since = '2024-03-01 06:00:00+00'")
    found = figures(one, "checkpoints")
    assert "drifts" not in found.get("2024-02", {})
    assert found["2024-03"]["drifts"] == 0


def test_what_a_trader_earned_is_told_of_each_month_and_of_traders_only(two: Settings):
    stream = two.streams[0]
    with warehouse(two).writing() as con:
        sql = f"select made_at, inference_id from inference_references where {OF_STREAM} and model = 'b' order by all"
        made = select(con, sql, **stream_key(stream))
        chance, cost = np.random.default_rng(3), TradingCost(fee=0.0004, half_spread=0.0001)
        returns = (0.002 * chance.normal(size=len(made))).astype(np.float32)
        actions = chance.integers(0, 3, len(made)).astype(np.int8)
        previous = np.concatenate([[1], actions[:-1]]).astype(np.int8)
        rewards = rewards_of(returns, previous, actions, cost)
        rows = made.with_columns(
            model=pl.lit("b"), next_id=pl.lit(None, pl.UInt64), previous=previous, action=actions,
            log_return=returns, reward=rewards.astype(np.float32), td_error=pl.lit(None, pl.Float32),
            settled_at=pl.col("made_at").dt.offset_by("2m"),
        )  # fmt: skip
        insert(con, "experiences", rows, stream)
    found = figures(two, "outcomes")
    for month in MONTHS:
        part = rewards[(made["made_at"].dt.strftime("%Y-%m") == month).to_numpy()]
        equity = np.cumprod(1 + part)
        fall = 1 - (equity / np.maximum.accumulate(np.maximum(equity, 1))).min()
        assert found[month]["net_return_of_b"] == pytest.approx(equity[-1] - 1, rel=1e-4)
        assert found[month]["max_drawdown_of_b"] == pytest.approx(fall, rel=1e-4)
        assert found[month]["sharpe_of_b"] == pytest.approx(
            part.mean() / part.std(ddof=1) * (365 * 720) ** 0.5, rel=1e-4
        )
        assert 0 < found[month]["hit_rate_of_b"] < 1
        assert "net_return_of_transformer" not in found[month]
