"""Labels: the first candle, the first pivots, the first line, and not a moment before they were known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from hindsight.inference.frames import COLUMN, COLUMNS
from hindsight.inference.labels import (
    EXPIRED,
    PENDING,
    PIVOT_TARGETS,
    UNUSABLE,
    VALIDATED,
    Labels,
    TrendRule,
    label,
)
from hindsight.market.candles import TIME
from hindsight.market.streams import Window, from_ms, to_ms
from hindsight.settings import Settings
from hindsight.store import tape as tapes
from hindsight.store.market_tables import pivot_mark
from hindsight.store.tape_changes import pivots_for
from hindsight.store.warehouse import Warehouse

FIRST_ROW = 28_000_000
STEP_MS = 60_000
RULE = TrendRule(flat_fraction=1.0, trend_ttl=60)
DOWN, SIDEWAYS, UP = 0, 1, 2


@dataclass(frozen=True)
class Answer:
    """What ten plain lines say that the market answered to one reference."""

    candle: tuple[int, float] | None
    pivots: dict[str, tuple[int, int, float]]  # pivot_type -> settled row, row, price
    next_type: int
    trend: tuple[int, int, int]  # settled row, status, trend


def plainly(row: int, first_row: int, rows: np.ndarray, pivots: list[dict], rule: TrendRule) -> Answer:
    """The answer to the reference made at the close of `row`: read once from its close on, as it happened."""
    end, missing = first_row + len(rows), np.isnan(rows[:, 0])
    close, atr = rows[row - first_row, COLUMN["close"]], rows[row - first_row, COLUMN["atr_14"]]
    candle = None
    for later in range(row + 1, end):
        if not missing[later - first_row]:
            candle = (later, np.log(np.float64(rows[later - first_row, COLUMN["close"]]) / np.float64(close)))
            break
    found, line, seen = {}, None, {"low": [], "high": []}
    next_type = -1
    for pivot in pivots:  # in the order of confirmation
        at, known = to_ms(pivot["pivot_time"]) // STEP_MS, to_ms(pivot["confirmed_at"]) // STEP_MS - 1
        if at <= row:
            continue  # straddles the prediction
        found.setdefault(pivot["pivot_type"], (known, at, pivot["price"]))
        if pivot["level"] == 2:
            next_type = {"low": 0, "high": 1}[pivot["side"]] if next_type < 0 else next_type
            seen[pivot["side"]].append(pivot["price"])
            if len(seen[pivot["side"]]) == 2 and line is None:
                line = (known, seen[pivot["side"]][1] - seen[pivot["side"]][0])
    deadline = row + rule.trend_ttl
    if line is not None and line[0] <= deadline:
        flat = rule.flat_fraction * np.float64(atr)
        trend = (line[0], VALIDATED, UP if line[1] > flat else DOWN if line[1] < -flat else SIDEWAYS)
    else:
        trend = (deadline, EXPIRED, -1) if deadline < end else (PENDING, -1, -1)
    if trend[0] < PENDING and missing[row + 1 - first_row : trend[0] + 1 - first_row].any():
        trend = (trend[0], UNUSABLE, -1)
    return Answer(candle=candle, pivots=found, next_type=next_type, trend=trend)


def assert_plain(labels: Labels, rows: np.ndarray, pivots: pl.DataFrame, rule: TrendRule, every: int = 1) -> None:
    """Two roads: each reference made with a warm ATR has the answer of `plainly`."""
    first_row, confirmed = labels.first_row, pivots.rows(named=True)
    missing = np.isnan(rows[:, 0])
    for at in np.flatnonzero(np.isfinite(rows[:, COLUMN["atr_14"]]))[::every].tolist():
        answer = plainly(first_row + at, first_row, rows, confirmed, rule)
        if answer.candle is None:
            assert labels.candle.settled[at] == PENDING
            assert not labels.candle.usable[at]
        else:
            settled, log_return = answer.candle
            assert labels.candle.settled[at] == settled
            assert labels.candle.usable[at] == (settled == first_row + at + 1)
            assert labels.candle.log_returns[at, 3] == np.float32(log_return)
        for kind, pivot_type in enumerate(PIVOT_TARGETS):
            if pivot_type not in answer.pivots:
                assert labels.pivot.settled[at, kind] == PENDING
                assert not labels.pivot.usable[at, kind]
                continue
            settled, row, price = answer.pivots[pivot_type]
            assert labels.pivot.settled[at, kind] == settled
            assert labels.pivot.row[at, kind] == row
            assert labels.pivot.candles[at, kind] == row - first_row - at
            assert labels.pivot.log_return[at, kind] == np.float32(
                np.log(price / np.float64(rows[at, COLUMN["close"]]))
            )
            assert labels.pivot.usable[at, kind] != missing[at + 1 : settled + 1 - first_row].any()
        assert labels.pivot.next_type[at] == answer.next_type
        assert labels.trend.settled[at] == answer.trend[0]
        if answer.trend[0] < PENDING:
            assert labels.trend.status[at] == answer.trend[1]
            assert labels.trend.trend[at] == answer.trend[2]


@pytest.mark.parametrize(
    ("seed", "missing"),
    [pytest.param(1, 0.0, id="whole"), pytest.param(2, 0.01, id="holes"), pytest.param(3, 0.04, id="many holes")],
)
def test_labels_are_those_of_ten_plain_lines(walk: Callable, seed: int, missing: float):
    """Traps 13 and 25."""
    rows, pivots = walk(900, seed, missing)
    labels = label(FIRST_ROW, rows, pivots, STEP_MS, RULE)
    assert_plain(labels, rows, pivots, RULE)
    for status in (VALIDATED, EXPIRED, *([UNUSABLE] if missing else [])):
        assert (labels.trend.status[labels.trend.settled < PENDING] == status).any()
    assert set(labels.trend.trend.tolist()) == {-1, DOWN, SIDEWAYS, UP}


@pytest.fixture(scope="module")
def venue(venue_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, np.ndarray, pl.DataFrame]:
    """First row, rows as first known and pivots of the simulated venue: one gap, one correction."""
    stream, folder = venue_home.streams[0], tmp_path_factory.mktemp("tape")
    with Warehouse(path=venue_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
        mark = pivot_mark(con, stream)
        assert mark is not None
        span = Window(start=mark.since, end=mark.as_of)
        tape = tapes.load(con, folder, stream, span, mark.since)
        return tape.first_row, tape.first_known(tape.first_row, tape.end_row), pivots_for(con, stream, span)


def test_labels_of_the_simulated_venue_are_those_of_ten_plain_lines(venue: tuple[int, np.ndarray, pl.DataFrame]):
    first_row, rows, pivots = venue
    labels = label(first_row, rows, pivots, STEP_MS, RULE)
    assert_plain(labels, rows, pivots, RULE, every=7)
    hole = int(np.flatnonzero(np.isnan(rows[:, 0]))[0])
    assert labels.candle.settled[hole - 1] == first_row + hole + 5
    assert not labels.candle.usable[hole - 1]
    assert (labels.trend.status[hole - 5 : hole] == UNUSABLE).all()


@pytest.mark.parametrize("seed", [4, 5])
def test_cutting_off_all_input_after_a_close_changes_no_label_settled_by_then(walk: Callable, seed: int):
    """Trap 1, as a property of every label: the first m rows give what of the whole was settled in them."""
    rows, pivots = walk(700, seed, 0.01)
    whole = label(FIRST_ROW, rows, pivots, STEP_MS, RULE)
    for cut in range(1, 700, 9):
        known = pivots.filter(pl.col("confirmed_at") <= from_ms((FIRST_ROW + cut) * STEP_MS))
        part = label(FIRST_ROW, rows[:cut], known, STEP_MS, RULE)
        last = FIRST_ROW + cut - 1
        for name, each in {"candle": part.candle, "pivot": part.pivot, "trend": part.trend}.items():
            of_whole = getattr(whole, name)
            settled = of_whole.settled[:cut] <= last
            np.testing.assert_array_equal(each.settled[settled], of_whole.settled[:cut][settled])
            assert (each.settled[~settled] == PENDING).all()
            for field in each.__slots__:
                if field in ("settled", "next_type"):
                    continue
                found, expected = getattr(each, field), getattr(of_whole, field)[:cut]
                # a trend that expired, or is unusable, has no line
                says = settled & (each.status == VALIDATED) if name == "trend" and field != "status" else settled
                np.testing.assert_array_equal(found[says], expected[says], err_msg=f"{name}.{field}")
        turned = whole.pivot.settled[:cut, :2].min(axis=1) <= last
        np.testing.assert_array_equal(part.pivot.next_type[turned], whole.pivot.next_type[:cut][turned])
        assert (part.pivot.next_type[~turned] == -1).all()
        assert not part.candle.usable[part.candle.settled == PENDING].any()
        assert not part.pivot.usable[part.pivot.settled == PENDING].any()


# By hand ---------------------------------------------------------------------------------------------------------


def flat_rows(count: int, atr: float = 1.0) -> np.ndarray:
    rows = np.full((count, len(COLUMNS)), 100, np.float32)
    rows[:, COLUMN["atr_14"]] = atr
    return rows


def pivots_at(*turns: tuple[str, int, float, int]) -> pl.DataFrame:
    """Pivots given as (type, row, price, row of the candle that confirmed it), in the order of confirmation."""
    return pl.DataFrame(
        {
            "pivot_type": [turn[0] for turn in turns],
            "level": [int(turn[0][1]) for turn in turns],
            "side": ["low" if turn[0][2] == "L" else "high" for turn in turns],
            "pivot_time": pl.Series([from_ms((FIRST_ROW + turn[1]) * STEP_MS) for turn in turns], dtype=TIME),
            "price": [turn[2] for turn in turns],
            "confirmed_at": pl.Series([from_ms((FIRST_ROW + turn[3] + 1) * STEP_MS) for turn in turns], dtype=TIME),
        },
        schema_overrides={"price": pl.Float64, "level": pl.Int8},
    )


def trend_at(made: int, pivots: pl.DataFrame, rows: np.ndarray, rule: TrendRule = RULE) -> tuple[int, int, int, int]:
    """Settled row (counted from the first), status, trend and side of the reference made at the close of one row."""
    trend = label(FIRST_ROW, rows, pivots, STEP_MS, rule).trend
    settled = int(trend.settled[made])
    return settled - FIRST_ROW, int(trend.status[made]), int(trend.trend[made]), int(trend.side[made])


def test_the_target_of_a_prediction_made_at_a_close_is_the_candle_that_opens_at_that_very_moment():
    """Trap 13: made at :00.000, the target opens at :00.000 and is known a minute later."""
    rows = flat_rows(3)
    rows[1, COLUMN["close"]] = 110
    labels = label(FIRST_ROW, rows, pivots_at(), STEP_MS, RULE)
    assert labels.candle.settled[:2].tolist() == [FIRST_ROW + 1, FIRST_ROW + 2]
    np.testing.assert_allclose(labels.candle.log_returns[:2, 3], [np.log(1.1), np.log(100 / 110)], rtol=1e-6)
    assert labels.candle.settled[2] == PENDING


def test_a_pivot_that_straddles_the_prediction_is_not_its_answer():
    """Trap 25: the low at row 5 is confirmed at 9. Whoever predicts at 5 has seen its candle, whoever at 4 has not."""
    pivots = pivots_at(("L2L", 5, 90, 9), ("L2L", 15, 95, 19), ("L2L", 25, 99, 29))
    labels = label(FIRST_ROW, flat_rows(40), pivots, STEP_MS, RULE)
    assert (labels.pivot.row[4, 0], labels.pivot.row[5, 0]) == (FIRST_ROW + 5, FIRST_ROW + 15)
    assert labels.pivot.candles[[4, 5], 0].tolist() == [1, 10]
    assert trend_at(4, pivots, flat_rows(40))[0] == 19
    assert trend_at(5, pivots, flat_rows(40))[0] == 29


def test_equal_prices_are_sideways_and_so_is_a_change_of_exactly_the_fraction():
    for change, expected in ((0.0, SIDEWAYS), (1.0, SIDEWAYS), (-1.0, SIDEWAYS), (1.001, UP), (-1.001, DOWN)):
        pivots = pivots_at(("L2H", 5, 100, 9), ("L2H", 15, 100 + change, 19))
        assert trend_at(0, pivots, flat_rows(40)) == (19, VALIDATED, expected, 1)


def test_when_highs_rise_and_lows_fall_the_first_side_to_complete_decides():
    up_first = pivots_at(("L2H", 4, 100, 6), ("L2L", 5, 90, 8), ("L2H", 14, 110, 16), ("L2L", 15, 80, 18))
    down_first = pivots_at(("L2H", 4, 100, 6), ("L2L", 5, 90, 8), ("L2L", 14, 80, 16), ("L2H", 15, 110, 18))
    assert trend_at(0, up_first, flat_rows(40)) == (16, VALIDATED, UP, 1)
    assert trend_at(0, down_first, flat_rows(40)) == (16, VALIDATED, DOWN, 0)


def test_sides_that_complete_with_the_same_candle_are_decided_by_the_order_of_confirmation():
    for order, expected in ((("L2H", "L2L"), (UP, 1)), (("L2L", "L2H"), (DOWN, 0))):
        turns = {"L2H": ("L2H", 14, 110, 16), "L2L": ("L2L", 15, 80, 16)}
        pivots = pivots_at(("L2H", 4, 100, 6), ("L2L", 5, 90, 8), *(turns[name] for name in order))
        assert trend_at(0, pivots, flat_rows(40))[2:] == expected


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(10, (70, VALIDATED), id="confirmed at the last moment"),
        pytest.param(9, (69, EXPIRED), id="confirmed one candle too late"),
        pytest.param(80, (PENDING - FIRST_ROW, EXPIRED), id="neither yet"),
    ],
)
def test_a_trend_that_is_not_confirmed_within_its_time_expires_when_that_time_is_over(made: int, expected: tuple):
    pivots = pivots_at(("L2H", 30, 100, 34), ("L2H", 60, 110, 70))
    assert trend_at(made, pivots, flat_rows(120))[:2] == expected


def test_a_line_over_a_missing_candle_is_unusable_but_one_that_ended_before_it_is_not():
    rows = flat_rows(60)
    rows[20] = np.nan
    early = pivots_at(("L2H", 5, 100, 9), ("L2H", 15, 110, 19))
    late = pivots_at(("L2H", 5, 100, 9), ("L2H", 15, 110, 21))
    assert trend_at(0, early, rows)[:2] == (19, VALIDATED)
    assert trend_at(0, late, rows)[:2] == (21, UNUSABLE)
    labels = label(FIRST_ROW, rows, late, STEP_MS, RULE)
    assert labels.pivot.usable[0, 1]  # the first high was confirmed before the hole
    assert not labels.pivot.usable[10, 1]
    assert labels.candle.settled[[18, 19, 21]].tolist() == [FIRST_ROW + 19, FIRST_ROW + 21, FIRST_ROW + 22]
    assert labels.candle.usable[[18, 19, 21]].tolist() == [True, False, True]


def test_a_missing_candle_right_at_the_expiry_makes_it_unusable_not_expired():
    rows = flat_rows(100)
    rows[60] = np.nan
    assert trend_at(0, pivots_at(), rows)[:2] == (60, UNUSABLE)
    assert trend_at(0, pivots_at(), flat_rows(100))[:2] == (60, EXPIRED)


@pytest.mark.parametrize("missing", [0.0, 0.02, 0.3])  # of so many, some are more than a pivot is looked for across
@pytest.mark.parametrize("trend_ttl", [5, 60, 10_000])
def test_trends_settle_in_the_order_in_which_they_were_predicted(walk: Callable, trend_ttl: int, missing: float):
    rows, pivots = walk(900, 3, missing)
    settled = label(FIRST_ROW, rows, pivots, STEP_MS, TrendRule(trend_ttl=trend_ttl)).trend.settled
    assert (np.diff(settled) >= 0).all()
    assert len(np.unique(settled)) > 20


def test_a_market_without_any_candle_or_pivot_has_no_answers():
    labels = label(FIRST_ROW, np.full((5, len(COLUMNS)), np.nan, np.float32), pivots_at(), STEP_MS, RULE)
    assert (labels.candle.settled == PENDING).all()
    assert (labels.pivot.settled == PENDING).all()
    assert not labels.candle.usable.any()
