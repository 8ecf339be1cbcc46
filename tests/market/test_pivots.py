"""Pivots: the known fixture, ten plain lines beside the fast rule, and no change by any cut."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hindsight.market import pivots
from hindsight.market.candles import TIME
from hindsight.market.pivots import PIVOTS, PivotState, advance

START = datetime(2022, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KNOWN = [
    *[(101, 99), (103, 100), (102.8, 100.5), (102.5, 99.5), (105, 99.8), (105, 102), (104, 101), (104.5, 100.5)],
    *[(104.8, 102), (105.5, 102.5), (105.5, 101), (103, 100.2), (104, 100.4), (101, 98), (102, 98.4), (101.7, 97)],
    (99, 97.2),
]


def candles(edges, opens=None, closes=None, minutes=None, atr=1.0):
    """Candles of (high, low) pairs; without opens and closes each closes where it opened."""
    high, low = zip(*edges, strict=True) if edges else ((), ())
    minutes = range(len(edges)) if minutes is None else minutes
    return pl.DataFrame(
        {
            "open_time": [START + minute * MINUTE for minute in minutes],
            "open": opens or low,
            "high": high,
            "low": low,
            "close": closes or low,
            "atr_14": [atr] * len(edges),
        },
        schema={"open_time": TIME, **dict.fromkeys(("open", "high", "low", "close", "atr_14"), pl.Float64)},
        strict=False,
    )


def run(frame, max_gap=3, state=None, step=MINUTE):
    return advance(state or PivotState.initial(), frame, step, max_gap)[1]


def told(found):
    """Pivots as `type price@index kconfirming`, the way the known fixture is written."""
    at = ((pl.col("pivot_time") - START) / MINUTE).cast(pl.Int64)
    by = ((pl.col("confirmed_at") - START) / MINUTE).cast(pl.Int64) - 1
    rows = found.select("pivot_type", "price", at=at, by=by).rows()
    return [f"{kind} {price:g}@{at} k{by}" for kind, price, at, by in rows]


def plain_rule(frame, max_gap):
    """The rule of DESIGN §5 in plain lines: (level, side, pivot index, confirming index) in order."""
    rows = frame.rows(named=True)
    streams = {(level, side): [] for level in range(1, 7) for side in ("low", "high")}
    found = []

    def push(level, side, price, at, by):
        seen = streams[level, side]
        if seen and seen[-1][0] == price:
            return
        seen.append((price, at))
        sign = 1 if side == "high" else -1
        if level <= 5 and len(seen) >= 3 and sign * seen[-2][0] > max(sign * seen[-3][0], sign * seen[-1][0]):
            found.append((level, side, seen[-2][1], by))
            push(level + 1, side, *seen[-2], by)

    for i, row in enumerate(rows):
        before = rows[i - 1] if i else None
        if before and row["open_time"] - before["open_time"] > (max_gap + 1) * MINUTE:
            streams[1, "low"], streams[1, "high"], before = [], [], None
        if before and row["high"] <= before["high"] and row["low"] >= before["low"]:
            continue
        for side in ("low", "high") if row["close"] > row["open"] else ("high", "low"):
            push(1, side, row[side], i, i)
    return found


def by_index(found, frame):
    """The pivots as plain_rule tells them."""
    index = {time: i for i, time in enumerate(frame["open_time"])}
    rows = found.select("level", "side", "pivot_time", "confirmed_at").rows()
    return [(level, side, index[at], index[by - MINUTE]) for level, side, at, by in rows]


def test_known_fixture():
    found = told(run(candles(KNOWN)))
    assert found == [
        *["L1H 103@1 k3", "L1L 99.5@3 k4", "L1H 105@4 k6", "L1L 100.5@7 k8", "L1H 105.5@9 k11", "L1L 100.2@11 k12"],
        *["L1H 104@12 k13", "L2H 105.5@9 k13", "L1L 98@13 k14", "L1H 102@14 k15"],
    ]


def test_the_columns_are_those_of_the_schema_also_when_nothing_is_found():
    for frame in (candles(KNOWN), candles([])):
        assert dict(run(frame).schema) == dict(PIVOTS)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tick", [pytest.param(0.5, id="many ties"), pytest.param(0, id="no ties")])
def test_equals_the_plain_rule_on_a_random_walk(walk_candles, seed, tick):
    frame = walk_candles(1500, seed, tick).sample(fraction=0.93, seed=seed).sort("open_time")
    for max_gap in (1, 3):
        found = run(frame, max_gap)
        assert by_index(found, frame) == plain_rule(frame, max_gap)
    assert found["level"].max() >= 3


def test_equals_the_plain_rule_on_recorded_candles(recorded):
    days = pl.col("open_time").is_between(datetime(2023, 3, 22, tzinfo=UTC), datetime(2023, 3, 26, tzinfo=UTC))
    stretch = recorded.filter(days)
    assert len(stretch) > 4000
    assert by_index(run(stretch), stretch) == plain_rule(stretch, 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 4), st.booleans(), st.sampled_from([1, 1, 1, 2, 4, 5, 9]))))
def test_equals_the_plain_rule_on_anything(moves):
    edges = [(low + height, low) for low, height, _, _ in moves]
    opens = [low + height * (not is_up) for low, height, is_up, _ in moves]
    closes = [low + height * is_up for low, height, is_up, _ in moves]
    minutes = np.cumsum([minute for *_, minute in moves]).tolist()
    frame = candles(edges, opens, closes, minutes)
    assert by_index(run(frame), frame) == plain_rule(frame, 3)


def test_the_first_candles_give_the_first_pivots_of_the_whole(walk_candles):
    """Prefix invariance, for every cut and each level: an emitted pivot never changes."""
    frame = walk_candles(900, seed=0)
    whole = run(frame)
    assert whole["level"].max() >= 4
    for m in range(len(frame) + 1):
        cut = frame["open_time"][m - 1] + MINUTE if m else START
        assert_frame_equal(run(frame[:m]), whole.filter(pl.col("confirmed_at") <= cut))


def test_the_first_recorded_candles_give_the_first_pivots_of_the_whole(recorded):
    frame = recorded.filter(pl.col("open_time") > datetime(2023, 3, 24, 6, tzinfo=UTC))[:1200]
    whole = run(frame)
    assert whole["after_gap"].any()
    for m in range(0, len(frame), 7):
        cut = frame["open_time"][m] + MINUTE
        assert_frame_equal(run(frame[: m + 1]), whole.filter(pl.col("confirmed_at") <= cut))


@pytest.mark.parametrize("pieces", [pytest.param(1, id="candle by candle"), pytest.param(97, id="by 97")])
def test_a_history_in_pieces_is_a_history_in_one_run(recorded, pieces):
    frame = recorded.filter(pl.col("open_time") > datetime(2023, 3, 24, 6, tzinfo=UTC))[:1500]
    end, whole = advance(PivotState.initial(), frame, MINUTE, 3)
    state, found = PivotState.initial(), []
    for start in range(0, len(frame), pieces):
        state = PivotState.from_bytes(state.to_bytes())
        state, more = advance(state, frame[start : start + pieces], MINUTE, 3)
        found.append(more)
    assert state == end
    assert_frame_equal(pl.concat(found), whole)


def test_split_at_any_candle_gives_the_same(walk_candles):
    frame = walk_candles(400, seed=11).sample(fraction=0.9, seed=2).sort("open_time")
    end, whole = advance(PivotState.initial(), frame, MINUTE, 1)
    for m in range(len(frame) + 1):
        state, first = advance(PivotState.initial(), frame[:m], MINUTE, 1)
        before = state.to_bytes()
        last, second = advance(state, frame[m:], MINUTE, 1)
        assert last == end
        assert state.to_bytes() == before, "the passed state was changed"
        assert_frame_equal(pl.concat([first, second]), whole)


def test_compiled_equals_uncompiled(recorded):
    assert len(recorded) > 2 * pivots.COMPILED_FROM
    end, compiled = advance(PivotState.initial(), recorded, MINUTE, 3)
    state, plain = PivotState.initial(), []
    for start in range(0, len(recorded), pivots.COMPILED_FROM - 1):
        state, more = advance(state, recorded[start : start + pivots.COMPILED_FROM - 1], MINUTE, 3)
        plain.append(more)
    assert state == end
    assert_frame_equal(pl.concat(plain), compiled)
    assert compiled["level"].max() == 5


def test_compiled_equals_uncompiled_on_a_random_walk(walk_candles):
    frame = walk_candles(pivots.COMPILED_FROM + 1000, seed=5).sample(fraction=0.97, seed=1).sort("open_time")
    first, early = advance(PivotState.initial(), frame[:5000], MINUTE, 1)
    assert len(frame) >= pivots.COMPILED_FROM
    end, late = advance(first, frame[5000:], MINUTE, 1)
    whole_end, whole = advance(PivotState.initial(), frame, MINUTE, 1)
    assert end == whole_end
    assert_frame_equal(pl.concat([early, late]), whole)


def test_a_live_candle_does_not_import_numba():
    code = (
        "import sys; from hindsight.market.pivots import *; import polars as pl; from datetime import *;"
        "f = pl.DataFrame({'open_time': [datetime(2022, 1, 1, tzinfo=UTC)], 'open': 1., 'high': 1., 'low': 1.,"
        "'close': 1., 'atr_14': 1.}); advance(PivotState.initial(), f, timedelta(minutes=1), 3);"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def highs(values):
    """Candles whose lows fall throughout, so that none is inside and only highs turn."""
    return candles([(value, 4 - i * 0.01) for i, value in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([5, 7, 6], ["L1H 7@1 k2"], id="peak"),
        pytest.param([5, 7, 7, 6], ["L1H 7@1 k3"], id="double top is its earliest candle"),
        pytest.param([5, 7, 7, 7, 6], ["L1H 7@1 k4"], id="triple top"),
        pytest.param([5, 7, 7, 9], [], id="5,7,7,9 goes on up"),
        pytest.param([5, 7, 7, 9, 8], ["L1H 9@3 k4"], id="5,7,7,9,8"),
        pytest.param([7, 6, 5], [], id="the first is never a pivot"),
        pytest.param([7, 7, 6, 5], [], id="nor is a first plateau"),
        pytest.param([5, 6, 7], [], id="the last is pending"),
        pytest.param([5, 7, 7, 7], [], id="a last plateau is pending"),
        pytest.param([5, 7, 6, 7, 5], ["L1H 7@1 k2", "L1H 7@3 k4"], id="two tops apart are two"),
        pytest.param(
            [5, 6, 5, 7, 6, 7, 5, 6, 5],
            ["L1H 6@1 k2", "L1H 7@3 k4", "L1H 7@5 k6", "L1H 6@7 k8", "L2H 7@3 k8"],
            id="level 2 collapses equal tops to the earliest",
        ),
    ],
)
def test_plateaus(values, expected):
    assert told(run(highs(values))) == expected


@pytest.mark.parametrize("edges", [pytest.param((5, 5), id="points"), pytest.param((6, 5), id="ranges")])
def test_a_flat_market_has_no_pivots(edges):
    assert run(candles([edges] * 300, atr=0.0)).is_empty()


def test_an_inside_candle_is_passed_over_even_after_another_inside_candle():
    # 2 is inside 1, 3 is inside 2; 4 lies inside 1 but not inside 3, so it counts and confirms the high of 1.
    found = run(candles([(10, 5), (12, 6), (11, 7), (10.5, 7.5), (11.5, 7), (9, 6.5)]))
    assert told(found) == ["L1H 12@1 k4"]


def test_a_candle_as_wide_as_the_one_before_is_inside():
    assert told(run(candles([(10, 5), (12, 6), (12, 6), (12, 7), (11, 5)]))) == ["L1H 12@1 k4"]


@pytest.mark.parametrize(
    ("opened", "closed", "expected"),
    [
        pytest.param(7, 9, ["L1L 5@1 k3", "L1H 13@1 k3"], id="closed up: low first"),
        pytest.param(9, 7, ["L1H 13@1 k3", "L1L 5@1 k3"], id="closed down: high first"),
        pytest.param(8, 8, ["L1H 13@1 k3", "L1L 5@1 k3"], id="closed where it opened: high first"),
    ],
)
def test_an_outside_candle_may_be_both_in_the_order_of_the_confirming_candle(opened, closed, expected):
    # 2 is inside 1; 3 lies inside 1 as well, but not inside 2, and so confirms both sides of 1.
    edges = [(10, 8), (13, 5), (9, 8.5), (9.5, 7)]
    assert told(run(candles(edges, opens=[9, 9, 9, opened], closes=[9, 9, 9, closed]))) == expected


@pytest.mark.parametrize(
    ("missing", "is_reset"),
    [pytest.param(3, False, id="max_gap is bridged"), pytest.param(4, True, id="longer resets")],
)
def test_a_gap_resets_level_one(missing, is_reset):
    edges = [(10, 5), (12, 6), (11, 5.5), (14, 7), (13, 6), (12, 5)]
    minutes = [0, 1, 2, 3, 4 + missing, 5 + missing]
    found = run(candles(edges, minutes=minutes))
    assert ("L1H 14@3" in " ".join(told(found))) != is_reset


def test_a_gap_marks_the_next_pivot_of_each_level_and_side():
    before, after = [5, 7, 5, 9, 5, 6, 5], [5, 8, 5, 7, 5, 6]
    frame = highs(before + after).with_columns(
        open_time=pl.Series([START + m * MINUTE for m in [*range(7), *range(12, 18)]], dtype=TIME)
    )
    found = run(frame)
    assert found.select("pivot_type", "price", "after_gap").rows() == [
        ("L1H", 7, False),
        ("L1H", 9, False),
        ("L1H", 6, False),
        ("L2H", 9, False),
        ("L1H", 8, True),
        ("L1H", 7, False),
        ("L2H", 8, True),  # 6 before the gap, 8 and 7 after it: level 2 kept its state
    ]


def test_the_first_candle_after_a_long_gap_has_no_predecessor():
    # It lies inside the last candle before the gap, and is still the first of its window.
    edges = [(10, 5), (20, 1), (8, 6), (9, 5), (7, 4)]
    found = run(candles(edges, minutes=[0, 1, 20, 21, 22]))
    assert told(found) == ["L1H 9@21 k22"]


def test_strength_is_the_smaller_distance_in_atr_of_the_confirming_candle():
    frame = highs([5, 8, 7]).with_columns(atr_14=pl.Series([9.0, 9.0, 0.5]))
    assert run(frame)["strength"].to_list() == [2.0]  # min(3, 1) / 0.5


@pytest.mark.parametrize(
    "atr", [pytest.param(None, id="null"), pytest.param(0.0, id="zero"), pytest.param(float("nan"), id="NaN")]
)
def test_without_a_warm_atr_a_pivot_is_marked_and_has_no_strength(atr):
    found = run(highs([5, 8, 7]).with_columns(atr_14=pl.lit(atr, pl.Float64)))
    assert found.select("warmup", "strength").rows() == [(True, 0.0)]


def test_candles_left_and_right_count_the_candles_that_exist():
    frame = highs([5, 6, 9, 9, 8]).with_columns(
        open_time=pl.Series([START + m * MINUTE for m in [0, 1, 3, 4, 7]], dtype=TIME)
    )
    assert run(frame).select("candles_left", "candles_right").rows() == [(1, 2)]


def test_a_pivot_is_known_after_it_happened(recorded):
    found = run(recorded)
    assert (found["confirmed_at"] > found["pivot_time"]).all()
    # The pivot's own candle has to close, and then at least one more.
    assert (found["confirmed_at"] - found["pivot_time"]).min() >= 2 * MINUTE
    assert found["confirmed_at"].is_sorted()
    assert found.select("level", "side", "pivot_time").is_unique().all()
    assert found["strength"].is_finite().all()


def test_using_a_pivot_at_its_pivot_time_would_look_ahead_by_this_much():
    """Median confirmation lag on a random walk: about 1, 6, 25, 104, 419 candles for levels 1 to 5."""
    chance = np.random.default_rng(1)
    n, ticks = 300_000, 20
    path = chance.normal(size=(n, ticks)).cumsum().reshape(n, ticks) + 1e6
    opened = np.concatenate([[1e6], path[:-1, -1]])
    frame = pl.DataFrame(
        {
            "open_time": pl.datetime_range(START, START + (n - 1) * MINUTE, MINUTE, eager=True).cast(TIME),
            "open": opened,
            "high": np.maximum(opened, path.max(axis=1)),
            "low": np.minimum(opened, path.min(axis=1)),
            "close": path[:, -1],
            "atr_14": 1.0,
        }
    )
    lag = (pl.col("confirmed_at") - pl.col("pivot_time")) / MINUTE - 1
    median = run(frame).group_by("level").agg(lag.median().alias("lag")).sort("level")["lag"]
    assert median.to_list() == pytest.approx([1, 6, 25, 104, 419], rel=0.12)


def test_a_candle_twice_or_out_of_order_is_refused():
    frame = candles(KNOWN)
    state, _ = advance(PivotState.initial(), frame, MINUTE, 3)
    with pytest.raises(ValueError, match="already seen"):
        advance(state, frame[-1:], MINUTE, 3)
    with pytest.raises(ValueError, match="sorted"):
        run(frame.reverse())


def test_a_state_of_another_rule_or_size_is_refused():
    data = PivotState.initial().to_bytes()
    with pytest.raises(ValueError, match="rule version 9"):
        PivotState.from_bytes(b"\x09" + data[1:])
    with pytest.raises(ValueError, match="bytes"):
        PivotState.from_bytes(data[:-1])


def test_an_empty_stretch_changes_nothing():
    state, found = advance(PivotState.initial(), candles([]), MINUTE, 3)
    assert state == PivotState.initial()
    assert found.is_empty()
