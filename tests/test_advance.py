"""The live path: what is landed and advanced piece by piece leaves the tables of one backfill."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from hindsight.advance import Advanced, advance, learn_from_pivots
from hindsight.exchange.landing import Landing
from hindsight.exchange.sources import open_source
from hindsight.ingest import ingest
from hindsight.learn import learn
from hindsight.market.streams import Window, from_ms, to_ms
from hindsight.settings import Settings
from hindsight.store import lock
from hindsight.store.inference_tables import left_unlearned
from hindsight.store.warehouse import Warehouse

START, END = datetime.fromisoformat("2024-02-29T14:00Z"), datetime.fromisoformat("2024-03-02T02:20Z")
MINUTE = timedelta(minutes=1)
# What live and backfill have in common, and how its rows are told apart.
MARKET = {
    "candles": "open_time",
    "candle_revisions": "open_time, revision",
    "gaps": "start_time",
    "indicators": "open_time",
    "pivots": "confirmed_at, pivot_type",
    "pivot_states": "as_of",
}
LEARNING = {
    "inference_references": "made_at",
    "outcomes": "settled_at, made_at, kind",
    "trend_validations": "settled_at, made_at",
    "training_steps": "step",
    "scores": "day, target, predictor",
    "learned_until": "model",
}


def rows(deliveries: pl.DataFrame, stream: object) -> list[dict]:
    """Deliveries (the columns of CANDLES) as the feed lands them."""
    return [
        {
            "stream": str(stream),
            "open_time_ms": to_ms(row["open_time"]),
            **{name: row[name] for name in ("open", "high", "low", "close", "volume")},
            "known_ms": to_ms(row["recorded_at"]) if row["revision"] else None,
            "closed_by": "flag",
        }
        for row in deliveries.sort("recorded_at", "open_time").iter_rows(named=True)
    ]


def land(settings: Settings, window: Window) -> Path | None:
    """Lands what the venue delivered in (start, end], as one segment."""
    stream = settings.streams[0]
    found = pl.concat(open_source(settings).candles(stream, Window(start=START, end=window.end))).filter(
        pl.col("recorded_at").is_between(window.start, window.end, closed="right")
    )
    if found.is_empty():
        return None
    return Landing(settings.landing_path).write("candles", rows(found, stream), to_ms(window.end), to_ms(window.end))


def advanced(settings: Settings, now: datetime, *, leave_pivots: bool = True) -> Advanced:
    *_, last = advance(settings, lambda: now, leave_pivots=leave_pivots)
    assert not last.failures
    return last


def cuts(seed: int) -> list[datetime]:
    """600 candles of history, then a few closes at a time; one by one where the venue corrects and where it is away."""
    chance, found = random.Random(seed), [START, START + 600 * MINUTE]
    corrected, away = datetime.fromisoformat("2024-03-01T04:00Z"), datetime.fromisoformat("2024-03-02T01:36Z")
    while found[-1] < END:
        one_by_one = any(moment <= found[-1] < moment + 10 * MINUTE for moment in (corrected, away))
        found.append(min(found[-1] + (1 if one_by_one else chance.choice((1, 3, 30, 60, 120))) * MINUTE, END))
    return found


@pytest.fixture
def fresh(venue_home: Settings, tmp_path: Path) -> Settings:
    """An empty home with the settings of the recorded one."""
    return venue_home.model_copy(update={"home": tmp_path / "live"})


def assert_same_tables(live: Settings, backfilled: Settings, table: Callable, names: dict[str, str]) -> None:
    for name, order in names.items():
        found, expected = table(live, name, order), table(backfilled, name, order)
        assert len(found) == len(expected), name
        different = [column for column in expected.columns if not found[column].equals(expected[column])]
        assert not different, f"{name}: {different}"


def test_live_equals_backfill(fresh: Settings, learned_home: Settings, table: Callable):
    """To the bit: one close or many at a time, pivots learned from by a run of their own or by the next close."""
    chance, left = random.Random(3), 0
    bounds = cuts(seed=5)
    for start, end in pairwise(bounds):
        land(fresh, Window(start=start, end=end))
        done = advanced(fresh, end)
        taken = done.ingested.streams.get(fresh.streams[0])
        if taken and taken.pivots[2] and taken.closed:
            left += 1
            if chance.random() < 0.6:
                assert not learn_from_pivots(fresh, [(fresh.streams[0], taken.closed)], lambda: end).failures  # noqa: B023
    advanced(fresh, END, leave_pivots=False)
    assert left > 10
    assert_same_tables(fresh, learned_home, table, MARKET | LEARNING)


def test_every_segment_is_archived_and_taking_one_up_again_changes_nothing(fresh: Settings, table: Callable):
    """A run that was killed between its transaction and the archive."""
    for end in (START + 610 * MINUTE, START + 611 * MINUTE):
        land(fresh, Window(start=START if end == START + 610 * MINUTE else end - MINUTE, end=end))
        advanced(fresh, end)
    before = {name: table(fresh, name, order) for name, order in (MARKET | LEARNING).items()}
    assert Landing(fresh.landing_path).segments() == []
    archived = sorted((fresh.home / "archive").rglob("*-candles.jsonl"))
    assert len(archived) == 2
    for path in archived:
        path.rename(fresh.landing_path / path.name)
    again = advanced(fresh, end)
    assert again.ingested.segments == 2
    for name, order in (MARKET | LEARNING).items():
        assert table(fresh, name, order).equals(before[name]), name


def test_the_reference_stands_before_anything_is_learned_from_its_close(fresh: Settings, table: Callable):
    land(fresh, Window(start=START, end=START + 700 * MINUTE))
    parts = advance(fresh, lambda: START + 700 * MINUTE, leave_pivots=False)
    next(parts)
    made = table(fresh, "inference_references", "made_at")
    assert made["made_at"].max() == START + 700 * MINUTE
    assert table(fresh, "learned_until", "model").is_empty()
    assert not list(parts)[-1].failures
    assert table(fresh, "learned_until", "model")["until"].item() == START + 700 * MINUTE
    assert table(fresh, "inference_references", "made_at").equals(made)


def test_a_reference_is_live_when_its_candle_has_not_closed_yet(fresh: Settings):
    now = START + 650 * MINUTE
    land(fresh, Window(start=START, end=now))
    advanced(fresh, now + timedelta(seconds=1))
    with Warehouse(path=fresh.warehouse_path, lock_timeout_seconds=5).reading() as con:
        modes = con.execute("select mode, count(*), max(made_at) from inference_references group by mode").fetchall()
    counts = {mode: (count, newest) for mode, count, newest in modes}
    assert counts["live"] == (1, now)
    assert counts["backfill"][0] > 10


def test_a_correction_that_arrives_after_its_close_was_learned_from_is_known_from_then_on(
    fresh: Settings, table: Callable
):
    """Trap 32: stamped with the instant of an earlier close, it would change what that close's prediction saw."""
    close = START + 650 * MINUTE
    land(fresh, Window(start=START, end=close))
    advanced(fresh, close)
    stream, landing = fresh.streams[0], Landing(fresh.landing_path)
    last = table(fresh, "candles", "open_time").tail(1)
    correction = last.with_columns(close=pl.col("high"), revision=pl.lit(1, pl.Int32))
    for venue_ms in (to_ms(close) + 700, to_ms(close) + 900):  # the same one twice
        landing.write("candles", rows(correction, stream), venue_ms, venue_ms)
        advanced(fresh, from_ms(venue_ms))
    stored = table(fresh, "candles", "open_time").tail(1)
    assert stored["close"].item() == correction["close"].item()
    assert stored["recorded_at"].item() == close + timedelta(milliseconds=700)
    assert len(table(fresh, "candle_revisions", "open_time")) == 1
    assert table(fresh, "refused_candles", "open_time").is_empty()


def test_a_late_correction_is_known_after_the_newest_close_also_by_a_clock_that_is_behind(
    fresh: Settings, table: Callable
):
    """Trap 12: the venue's clock is 3 s behind when it corrects the candle before the last."""
    close = START + 650 * MINUTE
    land(fresh, Window(start=START, end=close))
    advanced(fresh, close)
    last = table(fresh, "candles", "open_time").slice(648, 1)
    correction = last.with_columns(close=pl.col("high"), revision=pl.lit(1, pl.Int32))
    behind = to_ms(close) - 2500
    Landing(fresh.landing_path).write("candles", rows(correction, fresh.streams[0]), behind, behind)
    advanced(fresh, from_ms(behind))
    assert table(fresh, "candles", "open_time")["recorded_at"][648] > close


def test_a_lesson_that_somebody_else_gives_is_left_out_and_the_candles_are_stored(
    fresh: Settings, table: Callable, monkeypatch: pytest.MonkeyPatch
):
    """A backfill may learn for hours; nothing else waits for it."""
    monkeypatch.setattr("hindsight.learn.LIVE_PATIENCE_SECONDS", 0.05)
    land(fresh, Window(start=START, end=START + 610 * MINUTE))
    fresh.checkpoints_path.mkdir(parents=True)
    name = f"{fresh.models[0]} {fresh.streams[0]}.learning".replace("/", "-")
    with lock.held(fresh.checkpoints_path / name), ThreadPoolExecutor(1) as pool:
        done = pool.submit(advanced, fresh, START + 610 * MINUTE).result()
        assert done.lessons == {}
        assert len(table(fresh, "candles", "open_time")) == 610
    assert advanced(fresh, START + 610 * MINUTE, leave_pivots=False).failures == {}


def test_a_stream_without_new_candles_is_finished_by_the_run_of_another(fresh: Settings, table: Callable):
    """Its run was killed, and its next close may be an hour away."""
    both = fresh.model_copy(update={"symbols": ("ETH/USDT", "BTC/USDT")})
    land(both, Window(start=START, end=START + 610 * MINUTE))
    advanced(both, START + 610 * MINUTE)
    land(both, Window(start=START + 610 * MINUTE, end=START + 611 * MINUTE))
    warehouse = Warehouse(path=both.warehouse_path, lock_timeout_seconds=5)
    ingest(warehouse, Landing(both.landing_path), lambda: START + 611 * MINUTE, max_gap=3)  # and then killed
    advanced(both, START + 612 * MINUTE)
    assert table(both, "learned_until", "model")["until"].item() == START + 611 * MINUTE


def test_a_segment_that_cannot_be_read_is_set_aside_with_its_reason_and_the_rest_goes_on(
    fresh: Settings, table: Callable
):
    landing = Landing(fresh.landing_path)
    torn = land(fresh, Window(start=START, end=START + 600 * MINUTE))
    land(fresh, Window(start=START + 600 * MINUTE, end=START + 605 * MINUTE))
    assert torn is not None
    torn.write_bytes(torn.read_bytes()[:-200])
    book = {"symbol": "ETH/USDT", "venue": "simulated", "second_ms": 0, "price": 1.0, "bucket_size": 1.0, "anchor": 1.0}
    book |= {"amounts": [0.0] * 7, "imbalance": None, "snapshots": 1, "age_ms": 0, "venues": ["simulated"]}
    book |= {"spread": None}
    try:
        short = landing.write("order_book", [book], to_ms(END), to_ms(END))
    except ValueError:
        short = None  # refused before it lands
    done = advanced(fresh, END)
    assert len(done.ingested.set_aside) == 1 + (short is not None)
    reasons = {path.name: path.read_text() for path in (fresh.landing_path / "refused").glob("*.reason")}
    assert torn.name in reasons[f"{torn.name}.reason"]
    assert len(table(fresh, "candles", "open_time")) == 5
    assert landing.segments() == []


def test_more_streams_than_one_transaction_holds_are_all_taken_up(fresh: Settings, table: Callable):
    symbols = tuple(f"{name}/USDT" for name in ("ETH", "BTC", "SOL", "XRP", "ADA"))
    every = fresh.model_copy(update={"symbols": symbols})
    candles = pl.concat(open_source(fresh).candles(fresh.streams[0], Window(start=START, end=START + 30 * MINUTE)))
    delivered = [row for stream in every.streams for row in rows(candles, stream)]
    Landing(fresh.landing_path).write("candles", delivered, to_ms(END), to_ms(END))
    warehouse = Warehouse(path=fresh.warehouse_path, lock_timeout_seconds=5)
    done = ingest(warehouse, Landing(fresh.landing_path), lambda: END, max_gap=3)
    assert {stream: taken.candles for stream, taken in done.streams.items()} == dict.fromkeys(every.streams, 30)
    assert set(table(fresh, "candles", "symbol")["symbol"]) == set(symbols)
    assert set(table(fresh, "indicators", "symbol")["symbol"]) == set(symbols)
    assert Landing(fresh.landing_path).segments() == []


def test_candles_from_before_the_recorded_history_are_left_out_aloud(
    fresh: Settings, table: Callable, caplog: pytest.LogCaptureFixture
):
    land(fresh, Window(start=START + 60 * MINUTE, end=START + 90 * MINUTE))
    advanced(fresh, START + 90 * MINUTE)
    land(fresh, Window(start=START, end=START + 70 * MINUTE))
    advanced(fresh, START + 90 * MINUTE)
    assert len(table(fresh, "candles", "open_time")) == 30
    assert any("before the recorded history" in record.getMessage() for record in caplog.records)


def test_what_is_left_to_learn_is_told_until_it_is_done(fresh: Settings):
    warehouse = Warehouse(path=fresh.warehouse_path, lock_timeout_seconds=5)

    def left() -> dict[tuple[str, str], datetime]:
        with warehouse.reading() as con:
            return left_unlearned(con, fresh.streams, fresh.models)

    assert left() == {}
    for start, end in pairwise((START, START + 610 * MINUTE, START + 620 * MINUTE)):
        assert left() == {}  # the history that a stream starts with waits for its first live close
        land(fresh, Window(start=start, end=end))
        ingest(warehouse, Landing(fresh.landing_path), lambda: END, max_gap=3)
    assert left() == {(str(fresh.streams[0]), fresh.models[0]): START + 620 * MINUTE}
    advanced(fresh, END, leave_pivots=False)
    assert left() == {}


def test_the_timings_tell_how_long_after_its_close_each_candle_was_stored_predicted_from_and_learned_from(
    fresh: Settings, table: Callable
):
    close = START + 660 * MINUTE
    land(fresh, Window(start=START, end=close - MINUTE))
    advanced(fresh, close - MINUTE)
    land(fresh, Window(start=close - MINUTE, end=close))
    advanced(fresh, close + timedelta(seconds=2), leave_pivots=False)
    noted = table(fresh, "timings", "close_time, stage").filter(pl.col("close_time") == close)
    assert noted["stage"].to_list()[:2] == ["predicted", "stored"]
    assert set(noted["reached_at"]) == {close + timedelta(seconds=2)}
    history = table(fresh, "timings", "close_time, stage").filter(pl.col("stage") == "stored")
    assert len(history) == 1  # the history that a stream starts with is late by nature, and not counted


def test_the_run_of_a_candle_and_the_run_of_a_pivot_at_once_learn_everything_once(
    fresh: Settings, venue_home: Settings, copy_home: Callable, table: Callable
):
    """Trap 34: one after the other they teach the model, also where one is woken twice, and nothing is lost."""
    quick = {"models": ("cnn",), "lookback": 60, "warmup": 60, "predict_every": 1}
    settings, stream = fresh.model_copy(update=quick), fresh.streams[0]
    confirmed = table(venue_home, "pivots", "confirmed_at").filter(pl.col("level") == 2)["confirmed_at"].unique()
    closes = confirmed.filter(confirmed > START + 240 * MINUTE).sort()[:8:2].to_list()
    bounds = [START, *(close + n * MINUTE for close in closes for n in (-1, 0, 1))]
    for start, end in pairwise(bounds):
        land(settings, Window(start=start, end=end))
        if start in closes:  # the close before this one has left what it confirmed to the run of its pivot
            with ThreadPoolExecutor(3) as pool:
                woken = (learn_from_pivots, settings, [(stream, start)], lambda: end)  # noqa: B023
                runs = [pool.submit(*woken), pool.submit(*woken), pool.submit(advanced, settings, end)]
                assert not any(run.result().failures for run in runs)
        else:
            advanced(settings, end)
    advanced(settings, END, leave_pivots=False)
    backfilled = copy_home(venue_home, **quick)
    learn(backfilled, stream, "cnn", bounds[-1])
    assert_same_tables(settings, backfilled, table, LEARNING)
