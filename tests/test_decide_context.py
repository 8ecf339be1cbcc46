"""The market that a decision looks at: the book where one is recorded, as it was known a second before each close."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.decide import context_at, decide
from hindsight.inference.gate_state import GateState
from hindsight.inference.mixture import CONTEXT
from hindsight.market.book_rows import book_frame
from hindsight.market.candles import TIME, first_delivery
from hindsight.market.streams import Stream, to_ms
from hindsight.settings import Settings, load
from hindsight.store.book_tables import write_order_book
from hindsight.store.decision_tables import read_gate
from hindsight.store.rows import insert, select
from hindsight.store.warehouse import Warehouse

START = datetime(2024, 3, 1, 23, 58, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="simulated", symbol="BTC/USDT", timeframe="1m")
NAMES = [feature.name for feature in CONTEXT]
SPREAD, IMBALANCE = NAMES.index("spread"), NAMES.index("imbalance")
COUNT = 40  # candles from START on


def book(known_at: datetime, imbalance: float | None = 0.5, stream: Stream = ETH, **changed: object) -> pl.DataFrame:
    """The row that becomes known at an instant."""
    row = {"symbol": stream.symbol, "venue": stream.venue, "second_ms": to_ms(known_at) - 1000, "price": 200.0}
    row |= {"spread": 0.5, "bucket_size": 1.0, "anchor": 200.0, "amounts": [1.0] * 40, "imbalance": imbalance}
    return book_frame([{**row, "snapshots": 10, "age_ms": 47, "venues": [stream.venue], **changed}])


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(path=tmp_path / "hindsight.duckdb", lock_timeout_seconds=5)


def context(warehouse: Warehouse, *closes: datetime, stream: Stream = ETH) -> np.ndarray:
    """What is known at each of these closes, at which returns are of the scale 0.001."""
    rows = np.array([to_ms(close) // stream.step_ms - 1 for close in closes])
    with warehouse.reading() as con:
        return context_at(con, stream, rows, np.full(len(rows), 0.001, np.float32))


def test_without_a_book_its_features_are_unknown_and_the_others_are_known(warehouse: Warehouse) -> None:
    found = context(warehouse, START + MINUTE, START + 2 * MINUTE)
    assert np.isnan(found[:, [SPREAD, IMBALANCE]]).all()
    assert found[:, NAMES.index("volatility")] == pytest.approx(np.log(0.001))
    assert found[1, NAMES.index("day_sine")] == pytest.approx(0, abs=1e-9)  # midnight
    assert found[1, NAMES.index("day_cosine")] == 1
    assert context(warehouse).shape == (0, len(CONTEXT))


def test_with_a_book_they_are_its_imbalance_and_the_log_of_its_spread_over_its_mid(warehouse: Warehouse) -> None:
    close = START + MINUTE
    with warehouse.writing() as con:
        write_order_book(con, book(close - 2 * SECOND, -0.25))
        write_order_book(con, book(close - 2 * SECOND, 0.75, BTC, spread=4.0))
    [of_eth], [of_btc] = context(warehouse, close), context(warehouse, close, stream=BTC)
    assert of_eth[[SPREAD, IMBALANCE]] == pytest.approx([np.log(0.5 / 200), -0.25])
    assert of_btc[[SPREAD, IMBALANCE]] == pytest.approx([np.log(4 / 200), 0.75])


@pytest.mark.parametrize(
    ("before", "is_read"),
    [
        pytest.param(-SECOND, False, id="after the close"),
        pytest.param(0 * SECOND, False, id="at the close, when it may not be stored yet"),
        pytest.param(SECOND, True, id="a second before it"),
        pytest.param(5 * SECOND, True, id="just young enough"),
        pytest.param(6 * SECOND, False, id="too old"),
    ],
)
def test_a_book_is_read_if_it_was_known_a_second_before_the_close_and_was_young_then(
    warehouse: Warehouse, before: timedelta, is_read: bool
) -> None:
    with warehouse.writing() as con:
        write_order_book(con, book(START + MINUTE - before, 0.25))
    assert (context(warehouse, START + MINUTE)[0, IMBALANCE] == 0.25) == is_read


@pytest.mark.parametrize(
    "spread", [pytest.param(None, id="unknown"), pytest.param(0.0, id="touching"), pytest.param(-0.5, id="overlapping")]
)
def test_a_spread_that_is_none_is_unknown_and_the_imbalance_beside_it_is_not(
    warehouse: Warehouse, spread: float | None
) -> None:
    with warehouse.writing() as con:
        write_order_book(con, book(START + MINUTE - SECOND, None, spread=0.5))
        write_order_book(con, book(START + 2 * MINUTE - SECOND, 0.25, spread=spread))
    found = context(warehouse, START + MINUTE, START + 2 * MINUTE)[:, [SPREAD, IMBALANCE]]
    assert np.isnan(found).tolist() == [[False, True], [True, False]]


# Decisions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, record: Callable, deliveries: Callable) -> Callable[[], Settings]:
    """Makes homes of one market of 40 candles, about which two models have said nothing yet. Frames hold no book."""
    opens = [START + at * MINUTE for at in range(COUNT)]
    walk = 200 + np.random.default_rng(3).normal(size=COUNT + 1).cumsum()
    open_, close = walk[:-1], walk[1:]
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    times = pl.Series(opens, dtype=TIME)
    candles = first_delivery(pl.DataFrame({"open_time": times, **prices, "volume": 1.0}), ETH)

    def make() -> Settings:
        folder = tmp_path / f"home {sum(1 for _ in tmp_path.iterdir())}"
        options = {"symbols": ("ETH/USDT",), "models": ("cnn", "transformer"), "lock_timeout_seconds": 5.0}
        settings = load(home=folder, predict_every=1, frame=("own",), **options)
        record(settings, deliveries(candles), [START, START + COUNT * MINUTE])
        return settings

    return make


def opinions(settings: Settings, closes: range) -> pl.DataFrame:
    """What both models say at closes of so many candles."""
    made_at = [START + count * MINUTE for count in closes]
    said = [0.2 + 0.6 * ((7 * count) % 11) / 11 for count in closes]
    frame = pl.DataFrame({"made_at": pl.Series(made_at, dtype=TIME), "said": said})
    return pl.concat(
        [
            frame.select(
                "made_at",
                inference_id=pl.col("made_at").dt.epoch("ms").cast(pl.UInt64) + number,
                model=pl.lit(model),
                target_time="made_at",
                input_start="made_at",
                input_end="made_at",
                norm_params=pl.lit([200.0, 0.001, 0.0, 1.0], pl.Array(pl.Float32, 4)),
                action=pl.lit("buy"),
                action_confidence=(pl.col("said") + number / 10).cast(pl.Float32),
                predicted_candle=pl.lit([0.0] * 4, pl.Array(pl.Float32, 4)),
                trend=pl.lit("up"),
                trend_probabilities=pl.lit([0.2, 0.3, 0.5], pl.Array(pl.Float32, 3)),
                next_pivot_high=pl.lit(0.5, pl.Float32),
                predicted_pivots=pl.lit([0.0] * 8, pl.Array(pl.Float32, 8)),
                serving_id=pl.lit(None, pl.Int32),
                served=pl.lit(None, pl.List(pl.UInt16)),
                extras=pl.lit(None, pl.List(pl.Float32)),
                checkpoint_id=0,
                schema_hash=pl.lit("none"),
                digest=pl.lit(0, pl.UInt64),
                device=pl.lit("cpu"),
                mode=pl.lit("live"),
            )
            for number, model in enumerate(settings.models)
        ]
    )


def books(count: int) -> pl.DataFrame:
    """The ten rows up to a second before the close of so many candles, some with a spread of 0; of some, none."""
    last = START + count * MINUTE - SECOND
    if count % 7 == 0:
        return book(last).clear()
    return pl.concat(
        [book(last - back * SECOND, (count * back % 9 - 4) / 8, spread=0.01 * (count % 5)) for back in range(10)]
    )


def gate(settings: Settings) -> GateState:
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        state = read_gate(con, ETH)
    assert state is not None
    return GateState.from_bytes(state)


def store(settings: Settings, *frames: pl.DataFrame, closes: range) -> None:
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        for frame in frames:
            write_order_book(con, frame)
        insert(con, "inference_references", opinions(settings, closes), ETH)


def decisions(settings: Settings) -> pl.DataFrame:
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        return select(con, "select * from decisions order by made_at")


def last_book(settings: Settings) -> list[float | None]:
    """The spread and the imbalance of the last close decided, in scales from the centre; None where unknown."""
    pending = gate(settings).as_arrays()[1]["context"][-1]
    return [None if pending[1 + len(NAMES) + at] else pending[1 + at] for at in (SPREAD, IMBALANCE)]


def test_live_decides_as_a_backfill_does_whether_or_not_the_last_second_of_the_book_was_stored(home: Callable) -> None:
    live, backfilled, closes = home(), home(), range(2, 17)
    late = {count: book(START + count * MINUTE, 0.99, spread=9.0) for count in closes}
    for count in closes:
        store(live, books(count), *([late[count]] if count % 2 else []), closes=range(count, count + 1))
        assert decide(live, ETH).decided == 1
    store(backfilled, *(books(count) for count in closes), *late.values(), closes=closes)
    assert decide(backfilled, ETH).decided == len(closes)
    assert decisions(live).equals(decisions(backfilled))
    assert gate(live) == gate(backfilled)


def test_the_gate_reads_the_book_of_a_market_whose_frames_hold_none(home: Callable) -> None:
    known, unknown = home(), home()
    close = START + 3 * MINUTE
    store(known, book(close - SECOND, 0.3, spread=0.02), closes=range(3, 4))
    store(unknown, closes=range(3, 4))
    for settings in (known, unknown):
        assert decide(settings, ETH).until == close
    feature = CONTEXT[SPREAD]
    scales = (np.log(0.02 / 200) - feature.centre) / feature.scale
    assert last_book(known) == [pytest.approx(scales, abs=1e-6), pytest.approx(1.0)]
    assert last_book(unknown) == [None, None]


def test_a_row_that_comes_after_the_decision_changes_neither_it_nor_what_the_gate_learns_from_it(
    home: Callable,
) -> None:
    prompt, late = home(), home()
    for settings in (prompt, late):
        store(settings, closes=range(3, 4))
        decide(settings, ETH)
    store(late, book(START + 3 * MINUTE - SECOND), closes=range(4, 10))
    store(prompt, closes=range(4, 10))
    for settings in (prompt, late):
        assert decide(settings, ETH).decided == 6
    assert decisions(prompt).equals(decisions(late))
    assert gate(prompt) == gate(late)
