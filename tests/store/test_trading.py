"""What positions have earned, as DuckDB adds it up: against plain lines, of one day and of many."""

import io
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from hindsight.inference.trading import TradingCost, rewards_of
from hindsight.market.streams import Stream
from hindsight.printing import print_status
from hindsight.settings import Settings
from hindsight.status import status
from hindsight.store.rows import insert
from hindsight.store.trading import DAYS, trading_scores
from hindsight.store.warehouse import Warehouse

ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
COST = TradingCost(fee=0.0004, half_spread=0.0001)
MINUTE = timedelta(minutes=1)
START = datetime(2024, 2, 28, 21, tzinfo=UTC)


def experience(
    warehouse: Warehouse, seed: int, count: int, model: str = "dqn", kept: slice = slice(None)
) -> tuple[np.ndarray, ...]:
    """`kept` of `count` minutes of a trader who changes position at random, stored: log returns, previous, actions."""
    chance = np.random.default_rng(seed)
    log_return = (0.002 * chance.normal(size=count)).astype(np.float32)
    actions = chance.integers(0, 3, count).astype(np.int8)
    actions[: count // 3] = 1  # flat at first
    previous = np.concatenate([[1], actions[:-1]]).astype(np.int8)
    made_at = [START + (nth + 1) * MINUTE for nth in range(count)]
    frame = pl.DataFrame(
        {
            "model": [model] * count,
            "made_at": made_at,
            "inference_id": pl.Series(range(count), dtype=pl.UInt64),
            "next_id": pl.Series([None] * count, dtype=pl.UInt64),
            "previous": previous,
            "action": actions,
            "log_return": log_return,
            "reward": rewards_of(log_return, previous, actions, COST).astype(np.float32),
            "td_error": pl.Series([None] * count, dtype=pl.Float32),
            "settled_at": [moment + MINUTE for moment in made_at],
        }
    )
    with warehouse.writing() as con:
        insert(con, "experiences", frame[kept].sample(fraction=1, shuffle=True, seed=0), ETH)
    return log_return[kept], previous[kept], actions[kept]


def test_without_experience_there_is_nothing_to_show(warehouse: Warehouse):
    with warehouse.reading() as con:
        assert trading_scores(con).is_empty()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("first", "end", "midnights"),
    [
        pytest.param(0, 179, [], id="a day without a position"),
        pytest.param(1619, 3059, [], id="a whole day"),
        pytest.param(0, 4000, [179, 1619, 3059], id="four days"),
    ],
)
def test_what_was_earned_is_what_the_domain_adds_up(
    warehouse: Warehouse, seed: int, first: int, end: int, midnights: list[int]
):
    log_return, previous, actions = experience(warehouse, seed, 4000, kept=slice(first, end))
    rewards = rewards_of(log_return, previous, actions, COST)
    equity = peak = 1.0
    deepest = 0.0
    for reward in rewards.tolist():
        equity *= 1 + reward
        peak = max(peak, equity)
        deepest = max(deepest, 1 - equity / peak)
    turnover, held = np.abs(actions - previous), actions != 1
    days = [turnover[start:stop].sum() for start, stop in pairwise([0, *midnights, end - first])]
    with warehouse.reading() as con:
        (found,) = trading_scores(con).rows(named=True)
    assert found["since"] == (START + (first + 1) * MINUTE).date()
    assert found["decisions"] == end - first
    assert found["net_return"] == pytest.approx(equity - 1, rel=1e-5)
    assert found["max_drawdown"] == pytest.approx(deepest, rel=1e-5)
    assert found["time_in_market"] == pytest.approx(held.mean())
    assert found["turnover"] == np.mean(days)
    if not held.any():
        assert found["sharpe"] is found["hit_rate"] is None
        return
    assert found["sharpe"] == pytest.approx(rewards.mean() / rewards.std(ddof=1) * math.sqrt(365 * 1440), rel=1e-5)
    assert found["hit_rate"] == pytest.approx(((actions - 1) * log_return > 0)[held].mean())
    assert found["net_return"] < 0 < found["max_drawdown"]


def test_what_lies_further_back_than_the_window_is_not_looked_at(warehouse: Warehouse, tmp_path: Path):
    """The window begins with a day, and is the same for all who trade."""
    ended = datetime(2024, 4, 9, 4, tzinfo=UTC)
    since = datetime(2024, 3, 11, tzinfo=UTC)
    assert ended.date() - since.date() == timedelta(days=DAYS - 1)
    first, count = (since - START) // MINUTE - 1, (ended - START) // MINUTE
    experience(warehouse, 6, count)
    experience(warehouse, 7, 2000, model="retired")  # until 2024-03-01
    alone = Warehouse(path=tmp_path / "alone.duckdb", lock_timeout_seconds=5)
    experience(alone, 6, count, kept=slice(first, count))
    with warehouse.reading() as con, alone.reading() as other:
        found, expected = trading_scores(con), trading_scores(other)
    assert found["since"].to_list() == [since.date()]
    assert found["decisions"].to_list() == [count - first]
    assert_frame_equal(found, expected)


def test_status_says_how_far_back_it_looks(venue_home: Settings, copy_home: Callable):
    settings, printed = copy_home(venue_home), io.StringIO()
    experience(Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30), 8, 2000)
    print_status(status(settings), Console(file=printed, width=80))
    assert f"in the last {DAYS} days" in " ".join(printed.getvalue().split())
    assert max(map(len, printed.getvalue().splitlines())) <= 80


def test_each_model_is_judged_by_itself(warehouse: Warehouse):
    experience(warehouse, 3, 2000)
    with warehouse.reading() as con:
        alone = trading_scores(con)
    experience(warehouse, 4, 1500, model="other")
    with warehouse.reading() as con:
        both = trading_scores(con)
    assert both["model"].to_list() == ["dqn", "other"]
    assert_frame_equal(both.head(1), alone)
    assert both["net_return"][0] != both["net_return"][1]


def test_a_position_held_over_several_candles_is_one_decision(warehouse: Warehouse):
    """The year of its Sharpe ratio has fewer of them."""
    experience(warehouse, 5, 2000)
    with warehouse.reading() as con:
        every_minute = trading_scores(con)
    with warehouse.writing() as con:
        con.execute("update experiences set settled_at = settled_at + interval 3 minute")
    with warehouse.reading() as con:
        every_fourth = trading_scores(con)
    assert every_fourth["sharpe"][0] == pytest.approx(every_minute["sharpe"][0] / 2)
    assert_frame_equal(every_fourth.drop("sharpe"), every_minute.drop("sharpe"))
