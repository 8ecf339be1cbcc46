"""Models of one stream that are taught in one call share what their frames have in common, and nothing else changes.

The simulated venue of seed 19 corrects ETH/USDT at 04:03:54, in the minute of 03:59 and in the hour of 03:00.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.configured import shape_of
from hindsight.exchange.simulated import SimulatedVenue
from hindsight.inference.blocks import Blocks
from hindsight.learn import learn, learn_live
from hindsight.market.streams import Stream, Window, floor_to, from_ms, to_ms
from hindsight.recall_blocks import Shared, recall_blocks
from hindsight.record import record_candles, record_indicators, record_pivots, store_candles
from hindsight.settings import Settings, load
from hindsight.store.book_tables import write_order_book
from hindsight.store.market_tables import read_candles
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_order

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
TABLES = {
    "inference_references": "model, made_at",
    "hidden_states": "model, made_at",
    "outcomes": "model, settled_at, made_at, kind",
    "trend_validations": "model, settled_at, made_at",
    "training_steps": "model, step",
    "learned_until": "model",
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2024-03-01T{text}").replace(tzinfo=UTC)


START, SINCE, END = at("01:30"), at("03:57"), at("04:07")


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


def record(settings: Settings, start: datetime, end: datetime, venue: SimulatedVenue | None = None) -> None:
    """What the venue delivers in (start, end], as it would stand in the tables at `end`."""
    warehouse, venue = warehouse_of(settings), venue or SimulatedVenue(19, 0.3)
    for stream in settings.streams:
        reach = timedelta(days=3) if stream.timeframe == "1h" and start == START else timedelta(0)
        window = Window(start=floor_to(start - reach, stream.step), end=end)
        record_candles(warehouse, venue, stream, window, end)
        record_indicators(warehouse, stream, window)
        record_pivots(warehouse, stream, end, max_gap=settings.max_gap)
    with warehouse.writing() as con:
        for frame in venue.order_book(settings.predicted_streams[0], Window(start=start, end=end)):
            write_order_book(con, frame)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two and a half hours up to the first close of the test, of which nothing is learned yet but the last hour."""
    settings = load(
        home=tmp_path_factory.mktemp("recorded") / "home",
        source="simulated",
        simulated_seed=19,
        timeframes=("1m", "1h"),
        predicted=("ETH/USDT 1m",),
        models=("cnn", "transformer", "dqn"),
        frame=("own=30", "1h=8", "BTC/USDT 1m=20", "book=30", "pivots=2"),
        warmup=10,
        train_every=2,
        batch_size=8,
        replay_window=1000,
        trend_ttl=60,
        score_window=60,
        retrain_steps=0,
        device="cpu",
    )
    record(settings, START, SINCE)
    teach(settings, SINCE)
    return settings


@pytest.fixture
def home(recorded: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(recorded.home, tmp_path / "home")
    return recorded.model_copy(update={"home": tmp_path / "home"})


@pytest.fixture
def backfilled(recorded: Settings, tmp_path: Path) -> Settings:
    """Another home with what a backfill leaves at the end."""
    shutil.copytree(recorded.home, tmp_path / "backfilled")
    settings = recorded.model_copy(update={"home": tmp_path / "backfilled"})
    record(settings, SINCE, END)
    teach(settings, END)
    return settings


def teach(settings: Settings, until: datetime) -> None:
    """Every model up to `until`, each by itself, as a backfill does."""
    for model in in_order(settings.models):
        learn(settings, settings.predicted_streams[0], model, until)


def lessons(settings: Settings, now: datetime) -> dict:
    """The lessons of all models in one call, none of them begun."""
    stream, shared = settings.predicted_streams[0], Shared()
    return {
        model: learn_live(settings, stream, model, lambda: now, leave_pivots=False, shared=shared)
        for model in in_order(settings.models)
    }


def finish(begun: dict) -> None:
    """Takes each lesson to its end, all predictions before all steps."""
    for _ in ("predict", "learn"):
        for lesson in begun.values():
            next(lesson, None)


def read(settings: Settings, model: str, close: datetime, shared: Shared | None = None) -> Blocks:
    """The blocks of the frames made in the ten minutes up to `close`."""
    stream, row = settings.predicted_streams[0], to_ms(close) // 60_000
    with warehouse_of(settings).reading() as con:
        shape = shape_of(settings, stream, model)
        return recall_blocks(con, settings, stream, shape, row - 10, row, shared)


def digests(blocks: Blocks, close: datetime) -> list[int]:
    row = to_ms(close) // 60_000
    return blocks.digests(np.arange(row - 10, row)).tolist()


def assert_same(found: Settings, expected: Settings, table: Callable) -> None:
    """All that was learned, to the bit; of a reference but whether it was live, of a state but when it was known."""
    for name, order in TABLES.items():
        one, other = (table(each, name, order).drop("mode", "available_at", strict=False) for each in (found, expected))
        assert len(one) == len(other) > 0, name
        different = [column for column in other.columns if not one[column].equals(other[column])]
        assert not different, f"{name}: {different}"


def test_models_that_share_leave_the_tables_that_each_by_itself_leaves(
    home: Settings, backfilled: Settings, table: Callable
):
    """Close by close, over a correction of a minute and of an hour that had closed before."""
    for minutes in range(1, 11):
        close = SINCE + minutes * MINUTE
        record(home, close - MINUTE, close)
        finish(lessons(home, close))
    assert_same(home, backfilled, table)


def test_the_market_is_read_once_and_what_other_models_say_for_each(home: Settings):
    shared = Shared()
    cnn, dqn = (read(home, model, SINCE, shared) for model in ("cnn", "dqn"))
    assert [one is other for one, other in zip(cnn.tapes, dqn.tapes, strict=True)] == [True] * 3
    assert cnn.book is dqn.book
    assert cnn.pivots is dqn.pivots
    assert (len(cnn.peers), len(dqn.peers)) == (0, 1)
    assert digests(dqn, SINCE) == digests(read(home, "dqn", SINCE), SINCE)
    earlier = read(home, "cnn", SINCE - MINUTE, shared)
    assert earlier.own.end_row == cnn.own.end_row - 1


def correct(settings: Settings, timeframe: str, opens: datetime, known_at: datetime) -> None:
    """The venue corrects one candle of ETH/USDT."""
    stream = Stream(venue=settings.venue, symbol="ETH/USDT", timeframe=timeframe)
    with warehouse_of(settings).writing() as con:
        (candle,) = read_candles(con, stream, Window(start=opens, end=opens + stream.step)).iter_slices(1)
        corrected = candle.with_columns(
            volume=pl.col("volume") + 1000,
            revision=pl.col("revision") + 1,
            recorded_at=pl.lit(known_at, candle.schema["recorded_at"]),
        )
        store_candles(con, stream, corrected, known_at)


@pytest.mark.parametrize(
    ("timeframe", "opens", "known_at", "is_seen"),
    [
        pytest.param("1m", at("03:50"), SINCE + timedelta(seconds=1.7), False, id="known after the close"),
        pytest.param("1h", at("02:00"), SINCE + timedelta(seconds=0.7), False, id="an hour, known after the close"),
        pytest.param("1h", at("02:00"), SINCE - 9 * SECOND, True, id="an hour, known before it and delivered late"),
    ],
)
def test_a_correction_that_comes_between_two_lessons_of_a_call_is_seen_as_if_nothing_were_shared(
    home: Settings, timeframe: str, opens: datetime, known_at: datetime, is_seen: bool
):
    """Trap 32: it is in no frame made before it was known."""
    shared = Shared()
    first = read(home, "cnn", SINCE, shared)
    before = digests(first, SINCE)
    correct(home, timeframe, opens, known_at)
    second = read(home, "cnn", SINCE, shared)
    assert second.own is not first.own
    assert digests(first, SINCE) == before  # nothing moves below the feet of who has begun
    assert digests(second, SINCE) == digests(read(home, "cnn", SINCE), SINCE)
    assert (digests(second, SINCE)[:-1], digests(second, SINCE)[-1] != before[-1]) == (before[:-1], is_seen)
    shutil.rmtree(home.tape_path)
    assert digests(read(home, "cnn", SINCE), SINCE) == digests(second, SINCE)


def test_a_candle_that_comes_late_between_two_lessons_of_a_call_is_in_no_frame_of_that_close(home: Settings):
    shared, stream, opens = Shared(), home.predicted_streams[0], at("03:52")
    with warehouse_of(home).writing() as con:
        candle = read_candles(con, stream, Window(start=opens, end=opens + MINUTE))
        con.execute("delete from candles where timeframe = '1m' and open_time = $opens", {"opens": opens})
    shutil.rmtree(home.tape_path)
    first = read(home, "cnn", SINCE, shared)
    before = digests(first, SINCE)
    with warehouse_of(home).writing() as con:
        store_candles(con, stream, candle, SINCE + SECOND)
    second = read(home, "cnn", SINCE, shared)
    assert second.own is not first.own
    assert digests(second, SINCE) == before
    record(home, SINCE, SINCE + MINUTE)
    later = read(home, "cnn", SINCE + MINUTE, shared)
    assert digests(later, SINCE + MINUTE)[:-1] == before[1:]
    (row,) = later.own.gather(np.array([to_ms(opens) // 60_000 + 5]), 10)[:, 4]
    assert np.isfinite(row[:5]).all()  # and in the next one it is


def test_a_second_of_the_book_that_comes_late_between_two_lessons_is_read_by_the_later_one(home: Settings):
    shared, stream, second = Shared(), home.predicted_streams[0], SINCE - SECOND
    with warehouse_of(home).writing() as con:
        con.execute("delete from order_book where second = $second", {"second": second})
    before = digests(read(home, "cnn", SINCE, shared), SINCE)
    with warehouse_of(home).writing() as con:
        for frame in SimulatedVenue(19, 0.3).order_book(stream, Window(start=second, end=SINCE)):
            write_order_book(con, frame)
    after = digests(read(home, "cnn", SINCE, shared), SINCE)
    assert after == digests(read(home, "cnn", SINCE), SINCE)
    assert (after[:-1], after[-1] == before[-1]) == (before[:-1], False)


def test_a_candle_that_closes_between_two_lessons_of_a_call_is_learned_by_the_later_one(
    home: Settings, backfilled: Settings, table: Callable
):
    """The CNN has read the close of 03:58 when that of 03:59 is stored; the others find both."""
    record(home, SINCE, SINCE + MINUTE)
    begun = lessons(home, SINCE + MINUTE)
    assert next(begun["cnn"]).until == SINCE + MINUTE
    record(home, SINCE + MINUTE, SINCE + 2 * MINUTE)
    assert next(begun["transformer"]).until == SINCE + 2 * MINUTE
    finish(begun)
    record(home, SINCE + 2 * MINUTE, END)
    finish(lessons(home, END))
    teach(home, END)
    assert_same(home, backfilled, table)


def test_a_call_that_is_killed_between_two_lessons_is_finished_by_the_next_one(
    home: Settings, backfilled: Settings, table: Callable
):
    for minutes in range(1, 11):
        close = SINCE + minutes * MINUTE
        record(home, close - MINUTE, close)
        begun = lessons(home, close)
        for model in in_order(home.models)[: minutes % 3]:  # so many have predicted, and none has learned
            next(begun[model])
        for lesson in begun.values():
            lesson.close()
        if minutes % 2:
            finish(lessons(home, close))
    finish(lessons(home, END))
    assert_same(home, backfilled, table)


def test_what_a_lesson_has_mapped_stays_as_it_is_while_others_bring_the_tapes_up_to_date(home: Settings):
    held = read(home, "cnn", SINCE)
    before = digests(held, SINCE)
    correct(home, "1m", SINCE - 2 * MINUTE, SINCE + 2 * SECOND)
    record(home, SINCE, END)
    newer = read(home, "cnn", from_ms(to_ms(END)))
    assert newer.own.superseded
    assert digests(held, SINCE) == before
