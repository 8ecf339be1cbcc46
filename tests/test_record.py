"""Recording in one range, in pieces, again, with corrections and holes: the tables come out the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.errors import HistoryOutOfOrder
from hindsight.exchange.simulated import OPENING, SimulatedVenue
from hindsight.market.candles import CANDLES, TIME, first_delivery
from hindsight.market.indicators import NAMES, compute
from hindsight.market.streams import Stream, Window
from hindsight.record import CandleReport, record_candles, record_indicators, record_pivots
from hindsight.store import market_tables as tables
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse

STREAM = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
MINUTE = timedelta(minutes=1)
START = datetime(2024, 1, 30, 18, tzinfo=UTC)  # candle 1800 is the first of February
NOW = datetime(2024, 6, 1, tzinfo=UTC)


@dataclass
class Deliveries:
    """A venue that delivers what it is given: first deliveries at their close, corrections when they are recorded."""

    frame: pl.DataFrame
    pieces: int = 1

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        is_first = pl.col("revision") == 0
        opened = (pl.col("open_time") >= window.start) & (pl.col("open_time") + stream.step <= window.end)
        recorded = (pl.col("recorded_at") > window.start) & (pl.col("recorded_at") <= window.end)
        due = self.frame.filter((is_first & opened) | (~is_first & recorded))
        size = max(1, -(-len(due) // self.pieces))
        yield from due.iter_slices(size)


def random_walk(n: int, seed: int, step: timedelta = MINUTE) -> pl.DataFrame:
    """Made-up candles: a random walk on a grid, so that equal highs and lows are common."""
    chance = np.random.default_rng(seed)
    close = 500 + np.round(chance.normal(size=n).cumsum()) / 2
    open_ = np.concatenate([close[:1], close[:-1]])
    spread = chance.integers(0, 3, (2, n)) / 2
    frame = pl.DataFrame(
        {
            "open_time": pl.datetime_range(START, START + (n - 1) * step, step, eager=True).cast(TIME),
            "open": open_,
            "high": np.maximum(open_, close) + spread[0],
            "low": np.minimum(open_, close) - spread[1],
            "close": close,
            "volume": chance.random(n) * 100,
        }
    )
    timeframe = {MINUTE: "1m", timedelta(hours=1): "1h", timedelta(days=1): "1d"}[step]
    return first_delivery(frame, Stream(venue="simulated", symbol="ETH/USDT", timeframe=timeframe))


def corrected(frame: pl.DataFrame, rows: dict[int, int]) -> pl.DataFrame:
    """Corrections of some rows: a wider candle, recorded so many minutes after it opened."""
    return pl.concat(
        frame[row].with_columns(
            high=pl.col("high") + 7,
            volume=pl.col("volume") + 1,
            revision=pl.lit(1, pl.Int32),
            recorded_at=pl.col("open_time") + minutes * MINUTE + timedelta(seconds=17),
        )
        for row, minutes in rows.items()
    )


@pytest.fixture(scope="session")
def busy() -> pl.DataFrame:
    """Two and a half days with holes (one across a month's border) and corrections (minutes, hours, a day late)."""
    frame = random_walk(3_600, seed=1)
    late = corrected(frame, {40: 3, 700: 240, 1_500: 900, 1_795: 45, 1_796: 2, 2_000: 3, 2_001: 600})
    is_hole = pl.col("open_time").is_between(START + 1_797 * MINUTE, START + 1_803 * MINUTE) | (
        pl.col("open_time").is_between(START + 2_500 * MINUTE, START + 2_501 * MINUTE)
    )
    return pl.concat([frame.filter(~is_hole), late]).sort("open_time", "revision")


def warehouse_at(path: Path) -> Warehouse:
    return Warehouse(path=path / "hindsight.duckdb", lock_timeout_seconds=5)


def record(warehouse: Warehouse, source: Deliveries | SimulatedVenue, cuts: list[datetime]) -> None:
    """The whole market chain, piece by piece, as live runs or a backfill would call it."""
    for start, end in pairwise(cuts):
        window = Window(start=start, end=end)
        record_candles(warehouse, source, STREAM, window, NOW)
        record_indicators(warehouse, STREAM, window)
        record_pivots(warehouse, STREAM, end, max_gap=3)


def contents(warehouse: Warehouse) -> dict[str, pl.DataFrame]:
    """Every market table in a fixed order of rows; the newest mark of the pivots alone."""
    keys = {
        "candles": "open_time",
        "candle_revisions": "open_time, revision",
        "gaps": "start_time",
        "indicators": "open_time",
        "pivots": "confirmed_at, side, level",
        "pivot_states": "as_of desc limit 1",
    }
    with warehouse.reading() as con:
        return {table: select(con, f"select * from {table} order by {key}") for table, key in keys.items()}


def assert_same(one: Warehouse, other: Warehouse) -> None:
    expected, found = contents(one), contents(other)
    for table, rows in expected.items():
        assert rows.equals(found[table]), table


@pytest.fixture(scope="session")
def whole(busy: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The busy days recorded in one range."""
    warehouse = warehouse_at(tmp_path_factory.mktemp("whole"))
    record(warehouse, Deliveries(busy), [START, START + 3_600 * MINUTE])
    return warehouse


def minutes(*numbers: int) -> list[datetime]:
    return [START + number * MINUTE for number in numbers]


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param(minutes(*range(0, 3_600, 360), 3_600), id="every six hours"),
        pytest.param(minutes(0, 1_800, 3_600), id="by month"),
        pytest.param(minutes(0, 13, 41, 44, 1_000, 1_796, 1_797, 1_799, 2_003, 2_502, 3_600), id="anywhere"),
        pytest.param(minutes(0, *range(1_785, 1_815), 3_600), id="candle by candle over a month's border"),
    ],
)
def test_any_cut_gives_the_tables_of_one_range(busy: pl.DataFrame, whole: Warehouse, tmp_path: Path, cuts):
    pieces = warehouse_at(tmp_path)
    record(pieces, Deliveries(busy), cuts)
    assert_same(whole, pieces)


def test_recording_again_changes_nothing(busy: pl.DataFrame, whole: Warehouse):
    before = contents(whole)
    record(whole, Deliveries(busy, pieces=7), minutes(0, 2_000, 3_600))
    after = contents(whole)
    for table, rows in before.items():
        assert rows.equals(after[table]), table


def test_the_simulated_venue_in_pieces_gives_the_tables_of_one_range(tmp_path: Path):
    days = [OPENING + timedelta(days=day, hours=hour) for day, hour in [(0, 0), (1, 7), (3, 0), (3, 1), (6, 0)]]
    one, pieces = warehouse_at(tmp_path / "one"), warehouse_at(tmp_path / "pieces")
    record(one, SimulatedVenue(seed=7, phi=0.3), [days[0], days[-1]])
    record(pieces, SimulatedVenue(seed=7, phi=0.3), days)
    assert_same(one, pieces)
    assert contents(one)["candle_revisions"].height > 0
    assert contents(one)["gaps"].height > 0


# Candles -------------------------------------------------------------------------------------------------------------


def test_refused_candles_are_counted_and_noted_and_everything_around_them_lands(tmp_path: Path):
    good = random_walk(10, seed=2)
    bad = pl.concat(
        [
            good[3].with_columns(high=pl.lit(float("nan"))),
            good[4].with_columns(low=pl.col("high") + 1),
            good[5].with_columns(open_time=pl.col("open_time") + timedelta(seconds=1)),
            good[6],
        ]
    )
    source = Deliveries(pl.concat([good[:3], bad, good[6:]]))
    warehouse, window = warehouse_at(tmp_path), Window(start=START, end=START + 10 * MINUTE)
    report = record_candles(warehouse, source, STREAM, window, NOW)
    assert report == CandleReport(candles=7, inserted=7, revised=0, refused=4, gaps=1)
    again = record_candles(warehouse, source, STREAM, window, NOW)
    assert again == CandleReport(candles=7, inserted=0, revised=0, refused=4, gaps=1)
    with warehouse.reading() as con:
        reasons = {row[0] for row in con.execute("select reason from refused_candles").fetchall()}
        assert con.execute("select count(*) from refused_candles").fetchall() == [(4,)]
        gaps = tables.read_gaps(con, STREAM, window).select("start_time", "candles").rows()
    assert reasons == {"not a number", "high below low", "open_time is not a multiple of 1m", "duplicate"}
    assert gaps == [(START + 3 * MINUTE, 3)]


def test_a_source_that_has_nothing_leaves_nothing(tmp_path: Path):
    window = Window(start=START, end=START + 10 * MINUTE)
    report = record_candles(warehouse_at(tmp_path), Deliveries(CANDLES.to_frame()), STREAM, window, NOW)
    assert report == CandleReport(candles=0, inserted=0, revised=0, refused=0, gaps=0)
    assert record_indicators(warehouse_at(tmp_path), STREAM, window) == 0
    assert record_pivots(warehouse_at(tmp_path), STREAM, window.end, max_gap=3).level_1 == 0


# Indicators ----------------------------------------------------------------------------------------------------------


def test_indicators_are_those_of_the_candles_as_they_are_now(busy: pl.DataFrame, whole: Warehouse):
    window = Window(start=START, end=START + 3_600 * MINUTE)
    with whole.reading() as con:
        candles = tables.read_candles(con, STREAM, window)
        found = tables.read_indicators(con, STREAM, window)
    assert found.select("open_time", *NAMES).equals(compute(candles, window, STREAM.step))


def test_indicators_are_known_at_the_close_or_once_the_last_correction_in_them_was(
    busy: pl.DataFrame, whole: Warehouse
):
    window = Window(start=START, end=START + 3_600 * MINUTE)
    with whole.reading() as con:
        known = dict(tables.read_indicators(con, STREAM, window).select("open_time", "known_at").iter_rows())

    def known_after(row: int) -> timedelta:
        return known[START + row * MINUTE] - (START + row * MINUTE)

    # Candle 700 was corrected 240 minutes and 17 seconds after it opened.
    assert known_after(699) == MINUTE
    assert known_after(700) == timedelta(minutes=240, seconds=17)
    assert known_after(939) == timedelta(minutes=1, seconds=17)
    assert known_after(940) == MINUTE
    # Candle 1500 (late by 900 minutes) reaches beyond midnight (candle 1800) through the warm-up.
    assert known_after(1_810) == timedelta(minutes=1_500 + 900 - 1_810, seconds=17)


def test_indicators_of_days_are_known_once_the_last_correction_in_their_warm_up_was(tmp_path: Path):
    daily = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1d")
    day = timedelta(days=1)
    start = START.replace(hour=0)
    frame = random_walk(600, seed=3, step=day).with_columns(pl.col("open_time") - timedelta(hours=18))
    frame = frame.with_columns(recorded_at=pl.col("open_time") + day)
    change = frame[20].with_columns(
        volume=pl.lit(1.0), revision=pl.lit(1, pl.Int32), recorded_at=pl.col("open_time") + 550 * day
    )
    source, window = Deliveries(pl.concat([frame, change])), Window(start=start, end=start + 600 * day)
    one, pieces = warehouse_at(tmp_path / "one"), warehouse_at(tmp_path / "pieces")
    record_candles(one, source, daily, window, NOW)
    record_indicators(one, daily, window)
    for part in (Window(start=start, end=start + 300 * day), Window(start=start + 300 * day, end=window.end)):
        record_candles(pieces, source, daily, part, NOW)
        record_indicators(pieces, daily, part)
    assert_same(one, pieces)
    known = contents(one)["indicators"]["known_at"]
    assert known[19] == start + 20 * day
    assert known[20] == known[532] == start + 570 * day
    assert known[533] == start + 534 * day


# Pivots --------------------------------------------------------------------------------------------------------------


def test_pivots_are_those_of_first_deliveries_with_the_atr_known_then(busy: pl.DataFrame, whole: Warehouse):
    """Two roads: at every confirmation, ATR14 from nothing but what the deliveries up to then say."""
    pivots = contents(whole)["pivots"]
    firsts = busy.filter(pl.col("revision") == 0)
    prices = {
        "high": dict(firsts.select("open_time", "high").rows()),
        "low": dict(firsts.select("open_time", "low").rows()),
    }
    assert all(
        price == prices[side][moment] for side, moment, price in pivots.select("side", "pivot_time", "price").rows()
    )
    at_level_1 = pivots.filter(pl.col("level") == 1, pl.col("side") == "high", ~pl.col("warmup"))
    for row in at_level_1[::20].iter_rows(named=True):
        moment = row["confirmed_at"]
        known = busy.filter(pl.col("recorded_at") <= moment).unique("open_time", keep="last").sort("open_time")
        atr = compute(known, Window(start=moment - MINUTE, end=moment), MINUTE)["atr_14"].item()
        halves = row["strength"] * atr * 2  # the walk is on a grid of one half; any other ATR gives a fraction
        assert halves == pytest.approx(round(halves), abs=1e-9)


def test_pivots_found_anew_from_candles_and_their_revisions_are_the_same(whole: Warehouse):
    before = contents(whole)
    with whole.writing() as con:
        con.execute("delete from pivots")
        con.execute("delete from pivot_states")
    record_pivots(whole, STREAM, START + 3_600 * MINUTE, max_gap=3)
    after = contents(whole)
    assert before["pivots"].equals(after["pivots"])
    assert before["pivot_states"].equals(after["pivot_states"])


def test_a_later_correction_never_changes_a_pivot(tmp_path: Path):
    frame = random_walk(600, seed=4)
    warehouse, window = warehouse_at(tmp_path), Window(start=START, end=START + 600 * MINUTE)
    record(warehouse, Deliveries(frame), [window.start, window.end])
    before = contents(warehouse)["pivots"]
    turned = frame.with_columns(high=pl.col("high") + pl.Series(np.random.default_rng(5).random(600)))
    assert record_candles(warehouse, Deliveries(turned), STREAM, window, NOW).revised == 600
    record_indicators(warehouse, STREAM, window)
    record_pivots(warehouse, STREAM, window.end, max_gap=3)
    assert contents(warehouse)["pivots"].equals(before)
    with warehouse.writing() as con:
        con.execute("delete from pivots")
        con.execute("delete from pivot_states")
    record_pivots(warehouse, STREAM, window.end, max_gap=3)
    assert contents(warehouse)["pivots"].equals(before)


def test_pivots_up_to_a_moment_are_those_of_the_whole_confirmed_by_then(
    whole: Warehouse, busy: pl.DataFrame, tmp_path: Path
):
    until = START + 2_100 * MINUTE
    prefix = warehouse_at(tmp_path)
    record(prefix, Deliveries(busy), [START, until])
    every = contents(whole)["pivots"]
    assert contents(prefix)["pivots"].equals(every.filter(pl.col("confirmed_at") <= until))


def test_the_report_counts_the_pivots_of_each_level(busy: pl.DataFrame, whole: Warehouse, tmp_path: Path):
    warehouse = warehouse_at(tmp_path)
    record_candles(warehouse, Deliveries(busy), STREAM, Window(start=START, end=START + 3_600 * MINUTE), NOW)
    report = record_pivots(warehouse, STREAM, START + 3_600 * MINUTE, max_gap=3)
    levels = contents(whole)["pivots"]["level"]
    found = [report.level_1, report.level_2, report.level_3, report.level_4, report.level_5]
    assert found == [(levels == level).sum() for level in range(1, 6)]
    assert report.level_3 > 0


def test_history_put_before_the_first_pivot_is_refused_with_the_cure(tmp_path: Path):
    frame, warehouse = random_walk(200, seed=6), warehouse_at(tmp_path)
    record(warehouse, Deliveries(frame), minutes(100, 200))
    with pytest.raises(HistoryOutOfOrder, match=r"simulated ETH/USDT 1m.*Record history in the order of time"):
        record(warehouse, Deliveries(frame), minutes(0, 100))


def test_candles_put_beneath_what_pivots_have_seen_are_known_from_now_and_change_no_pivot(tmp_path: Path):
    frame, warehouse = random_walk(5_000, seed=7), warehouse_at(tmp_path)
    record(warehouse, Deliveries(frame), minutes(0, 100))
    record(warehouse, Deliveries(frame), minutes(4_000, 5_000))
    before = contents(warehouse)["pivots"]
    record(warehouse, Deliveries(frame), minutes(100, 4_000))
    assert contents(warehouse)["pivots"].equals(before)
    candles = contents(warehouse)["candles"]
    late = candles["open_time"].is_between(START + 100 * MINUTE, START + 4_000 * MINUTE, closed="left")
    assert (candles.filter(late)["recorded_at"] == NOW).all()
    assert (candles.filter(~late)["recorded_at"] < NOW).all()
    record(warehouse, Deliveries(frame), minutes(0, 5_000))
    assert contents(warehouse)["candles"].equals(candles)
