"""One row a second: from what came before its end, from every venue that is alive, and from nothing else."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.market.book_rows import BookSecond
from hindsight.market.book_seconds import BookSeconds, BookSource

START = 1_700_000_000_000
WHOLE = (0.0, float("inf"))
Levels = list[list[float]]


def seconds(*names: str, age_limit_ms: int = 3000, **rates: float) -> BookSeconds:
    sources = [
        BookSource(name=name, age_limit_ms=age_limit_ms, quote_to_usd=rates.get(name, 1.0))
        for name in names or ("one",)
    ]
    return BookSeconds(symbol="ETH/USDT", venue="one", bucket_size=1.0, sources=sources, quote_to_usd=1.0)


def book(middle: float, size: float = 1.0) -> tuple[Levels, Levels]:
    """30 levels a side, half a dollar apart."""
    offsets = [0.25 + 0.5 * level for level in range(60)]
    return [[middle - off, size] for off in offsets], [[middle + off, size] for off in offsets]


def add(rows: BookSeconds, after_ms: int, middle: float, source: str = "one", size: float = 1.0, **more) -> str | None:
    return rows.add(source, START + after_ms, *book(middle, size), **{"reach": WHOLE, **more})


def given_out(rows: BookSeconds, until_ms: int) -> list[tuple[float, float, int, int]]:
    """(second, price, snapshots, age) of the rows until then."""
    return [
        ((row.second_ms - START) / 1000, row.price, row.snapshots, row.age_ms) for row in rows.rows(START + until_ms)
    ]


def test_a_row_is_the_last_book_of_its_second() -> None:
    rows = seconds()
    for after_ms, middle in ((0, 100.0), (500, 101.0), (999, 102.0), (1100, 103.0)):
        assert add(rows, after_ms, middle) is None
    assert given_out(rows, 999) == []
    assert given_out(rows, 1000) == [(0, 102.0, 3, 1)]
    assert given_out(rows, 1999) == []
    assert given_out(rows, 2000) == [(1, 103.0, 1, 900)]


@pytest.mark.parametrize(
    "after_ms", [pytest.param(1000, id="at the close"), pytest.param(1001, id="at the close + 1 ms")]
)
def test_a_book_from_the_close_on_is_excluded(after_ms: int) -> None:
    """Trap 24: the row of a second holds nothing of the next one."""
    rows = seconds()
    add(rows, 400, 100.0)
    add(rows, after_ms, 999.0)
    assert given_out(rows, 1000) == [(0, 100.0, 1, 600)]
    assert given_out(rows, 2000) == [(1, 999.0, 1, 2000 - after_ms)]


def test_a_book_is_carried_forward_with_its_age_until_its_limit_and_then_there_is_no_row() -> None:
    rows = seconds(age_limit_ms=2500)
    add(rows, 500, 100.0)
    add(rows, 6200, 105.0)
    assert given_out(rows, 7000) == [(0, 100.0, 1, 500), (1, 100.0, 0, 1500), (2, 100.0, 0, 2500), (6, 105.0, 1, 800)]
    assert rows.refused["one"] == {"stale": 3}


def test_a_pause_of_years_costs_nothing() -> None:
    rows = seconds()
    assert rows.add("one", 0, *book(100.0), reach=WHOLE) is None  # a venue that does not know the time yet
    add(rows, 0, 101.0)
    assert given_out(rows, 1000)[-1] == (0, 101.0, 1, 1000)
    assert rows.rows(START + 10**12) != []
    add(rows, 10**12 + 5, 102.0)
    assert given_out(rows, 10**12 + 1000) == [(10**9, 102.0, 1, 995)]


def test_a_book_that_comes_late_counts_for_the_seconds_after_it() -> None:
    rows = seconds()
    add(rows, 100, 100.0)
    assert given_out(rows, 1000) == [(0, 100.0, 1, 900)]
    assert add(rows, 900, 107.0) is None
    assert given_out(rows, 2000) == [(1, 107.0, 0, 1100)]
    assert rows.late == {"one": 1}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda bids, asks: ([], asks), "empty", id="no bids"),
        pytest.param(lambda bids, asks: (bids, []), "empty", id="no asks"),
        pytest.param(lambda bids, asks: ([[asks[0][0], 1.0], *bids], asks), "crossed", id="touching"),
        pytest.param(lambda bids, asks: ([[asks[0][0] + 1, 1.0], *bids], asks), "crossed", id="crossed"),
        pytest.param(lambda bids, asks: ([["100", 1.0], *bids], asks), "malformed", id="text"),
        pytest.param(lambda bids, asks: ([[None, 1.0], *bids], asks), "malformed", id="nothing"),
        pytest.param(lambda bids, asks: ([[float("nan"), 1.0], *bids], asks), "malformed", id="price is NaN"),
        pytest.param(lambda bids, asks: (bids, [[float("inf"), 1.0]]), "malformed", id="infinite price"),
        pytest.param(lambda bids, asks: ([[bids[0][0], -1.0], *bids[1:]], asks), "malformed", id="negative size"),
        pytest.param(lambda bids, asks: (bids, [[asks[0][0], float("nan")], *asks[1:]]), "malformed", id="size is NaN"),
        pytest.param(lambda bids, asks: (bids[::-1], asks), "malformed", id="worst first"),
        pytest.param(lambda bids, asks: ([bids[0], bids[2], bids[1]], asks), "malformed", id="out of order"),
        pytest.param(lambda bids, asks: ([[-1.0, 1.0]], asks), "malformed", id="negative price"),
        pytest.param(lambda bids, asks: ([[]], asks), "malformed", id="an empty level"),
    ],
)
def test_an_unusable_book_is_refused_and_counted_and_the_one_before_it_stands(spoil, reason: str) -> None:
    rows = seconds()
    add(rows, 100, 100.0)
    assert rows.add("one", START + 200, *spoil(*book(101.0)), reach=WHOLE) == reason
    assert rows.refused["one"] == {reason: 1}
    assert given_out(rows, 1000) == [(0, 100.0, 1, 900)]


def test_times_that_cannot_be_are_refused() -> None:
    rows = seconds()
    assert add(rows, 100, 100.0, latest_ms=START + 120) is None
    assert add(rows, 99, 101.0, latest_ms=START + 130) == "out of order"
    assert add(rows, 141, 101.0, latest_ms=START + 140) == "from the future"
    assert add(rows, 100, 102.0, latest_ms=START + 150) is None
    assert given_out(rows, 1000) == [(0, 102.0, 2, 900)]


def test_how_far_a_book_is_known_is_read_off_the_first_one_after_a_snapshot() -> None:
    rows = seconds()
    bids, asks = book(100.0)
    shallow = (bids[:31], asks[:31])  # 84.75 .. 115.25
    deep = ([*bids, [20.0, 1.0]], [*asks, [180.0, 1.0]])
    for after_ms, (bids, asks), is_fresh in ((0, shallow, False), (1000, deep, False), (2000, deep, True)):
        assert rows.add("one", START + after_ms, bids, asks, is_fresh=is_fresh) is None
    unknown = [
        [bucket for bucket, amount in enumerate(row.amounts) if amount is None] for row in rows.rows(START + 3000)
    ]
    assert unknown == [[*range(5), *range(35, 40)], [*range(5), *range(35, 40)], []]


def test_books_as_arrays_and_with_a_third_column_are_read_alike() -> None:
    bids, asks = book(100.3)
    found = []
    for shape in (list, np.array, lambda levels: [[*level, 7] for level in levels]):
        rows = seconds()
        assert rows.add("one", START, shape(bids), shape(asks), reach=WHOLE) is None
        found += rows.rows(START + 1000)
    assert found == found[:1] * 3


def test_nothing_is_kept_of_a_book_that_changes_afterwards() -> None:
    rows, (bids, asks) = seconds(), book(100.0)
    rows.add("one", START, bids, asks, reach=WHOLE)
    bids[0][1] = 1e9
    asks.clear()
    assert given_out(rows, 1000) == [(0, 100.0, 1, 1000)]


# Several venues ------------------------------------------------------------------------------------------------------


def test_books_of_several_venues_are_added_up_by_bucket() -> None:
    alone, both = seconds("one"), seconds("one", "two")
    add(alone, 100, 100.0, size=3.0)
    add(both, 100, 100.0, "one")
    add(both, 300, 100.0, "two", size=2.0)
    (of_one,), (of_both,) = alone.rows(START + 1000), both.rows(START + 1000)
    assert of_both.amounts == of_one.amounts
    assert (of_both.snapshots, of_both.age_ms, of_both.venues) == (2, 700, ["one", "two"])


def test_a_venue_frozen_for_five_seconds_is_left_out_and_counted() -> None:
    """Trap 21: beyond its age limit a venue counts for nothing, and is back with its next book."""
    rows = seconds("one", "two")
    for after_ms in range(0, 9000, 500):
        add(rows, after_ms, 100.0, "one")
        if after_ms < 2000 or after_ms >= 7000:
            add(rows, after_ms, 100.0, "two")
    found = rows.rows(START + 9000)
    assert [row.venues for row in found] == [["one", "two"]] * 4 + [["one"]] * 3 + [["one", "two"]] * 2
    assert rows.refused["two"] == {"stale": 3}
    halves = [sum(amount for amount in row.amounts if amount) for row in found]
    assert halves[4] == pytest.approx(halves[3] / 2)


def test_a_venue_that_repeats_an_old_book_is_frozen_too() -> None:
    """Trap 21: what counts is the event's time, and not that something came."""
    rows = seconds("one", "two")
    for after_ms in range(0, 6000, 500):
        add(rows, after_ms, 100.0, "one")
        assert add(rows, 0, 100.0, "two") is None  # the same event again and again
    assert rows.rows(START + 6000)[-1].venues == ["one"]


def test_a_crossed_book_of_one_venue_takes_only_that_venue_out() -> None:
    """Trap 21."""
    rows = seconds("one", "two", age_limit_ms=900)
    bids, asks = book(100.0)
    add(rows, 500, 100.0, "one")
    assert rows.add("two", START + 500, [[101.0, 1.0], *bids], asks, reach=WHOLE) == "crossed"
    (row,) = rows.rows(START + 1000)
    assert row.venues == ["one"]


def test_each_venue_has_its_own_quote_currency_and_its_own_age_limit() -> None:
    """Trap 21: a tether is not a dollar."""
    sources = [
        BookSource(name="tether", age_limit_ms=3000, quote_to_usd=0.5),
        BookSource(name="dollar", age_limit_ms=1000, quote_to_usd=1.0),
    ]
    rows = BookSeconds(symbol="ETH/USDT", venue="tether", bucket_size=1.0, sources=sources, quote_to_usd=0.5)
    rows.add("tether", START + 100, [[99.5, 2.0]], [[100.5, 2.0]], reach=WHOLE)
    rows.add("dollar", START + 100, [[49.75, 2.0]], [[50.25, 2.0]], reach=WHOLE)
    first, second = rows.rows(START + 2000)
    assert (first.price, first.amounts[19], first.amounts[20]) == (100.0, 99.5 + 99.5, 100.5 + 100.5)
    assert (second.venues, second.amounts[19]) == (["tether"], 99.5)


def test_the_spread_is_the_best_ask_less_the_best_bid_without_the_noise_of_floats() -> None:
    rows = seconds()
    for after_ms, bid, ask in ((0, 3020.17, 3020.18), (1000, 0.1, 0.3), (2000, 60_000.01, 60_011.5)):
        assert rows.add("one", START + after_ms, [[bid, 1.0]], [[ask, 1.0]], reach=WHOLE) is None
    assert 3020.18 - 3020.17 != 0.01
    assert [row.spread for row in rows.rows(START + 3000)] == [0.01, 0.2, 11.49]


@pytest.mark.parametrize(
    ("bid", "ask", "spread"),
    [
        pytest.param(99.75, 100.25, 0.5, id="within the other's"),
        pytest.param(99.0, 101.0, 1.0, id="around the other's"),
        pytest.param(100.25, 101.0, 0.25, id="above, in part"),
        pytest.param(100.5, 101.5, 0.0, id="touching"),
        pytest.param(100.7, 101.5, -0.2, id="overlapping"),
    ],
)
def test_the_spread_of_several_venues_is_from_the_best_bid_of_all_to_the_best_ask_of_all(
    bid: float, ask: float, spread: float
) -> None:
    rows = seconds("one", "two", two=2.0)  # whose unit of quote buys two
    rows.add("one", START + 100, [[99.5, 1.0]], [[100.5, 1.0]], reach=WHOLE)
    rows.add("two", START + 200, [[bid / 2, 1.0]], [[ask / 2, 1.0]], reach=WHOLE)
    (row,) = rows.rows(START + 1000)
    assert row.spread == spread
    assert row.price == (max(bid, 99.5) + min(ask, 100.5)) / 2


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_must_be_a_positive_number(rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        BookSource(name="one", age_limit_ms=3000, quote_to_usd=rate)


# Properties ----------------------------------------------------------------------------------------------------------

events = st.lists(
    st.tuples(
        st.integers(0, 1500),  # ms after the one before
        st.sampled_from(["one", "two"]),
        st.integers(-8, 8),  # dollars off 100
        st.sampled_from([0.5, 1.0, 3.0]),
    ),
    min_size=1,
    max_size=40,
)
Event = tuple[int, str, float, float]


def timed(found: Iterable[tuple[int, str, int, float]]) -> list[Event]:
    after_ms, timeline = 0, []
    for step, source, off, size in found:
        after_ms += step
        timeline.append((after_ms, source, 100.0 + off / 2, size))
    return timeline


def play(timeline: list[Event], until_ms: int, *, asked_each_time: bool = False) -> list[BookSecond]:
    rows, found = seconds("one", "two"), []
    for after_ms, source, middle, size in timeline:
        add(rows, after_ms, middle, source, size=size)
        if asked_each_time:
            found += rows.rows(START + after_ms)
    return found + rows.rows(START + until_ms)


@given(events, st.integers(0, 60_000))
def test_what_comes_after_t_changes_no_row_known_by_t(found, t: int) -> None:
    timeline = timed(found)
    until_ms = timeline[-1][0] + 5000
    known = [row for row in play(timeline, until_ms) if row.second_ms + 1000 <= START + t]
    before = [event for event in timeline if event[0] < t]
    absurd = [(max(t, event[0]), event[1], 1e6, 1e9) for event in timeline if event[0] >= t]
    assert play(before, t) == known
    assert play([*before, *absurd], t) == known


@given(events)
def test_asking_at_every_book_gives_the_rows_of_asking_once(found) -> None:
    timeline = timed(found)
    until_ms = timeline[-1][0] + 5000
    assert play(timeline, until_ms, asked_each_time=True) == play(timeline, until_ms)


@given(events)
def test_rows_hold_what_they_promise(found) -> None:
    """Traps 22 and 23: the price lies in the bucket of its anchor, and an imbalance in [-1, 1]."""
    timeline = timed(found)
    rows = play(timeline, timeline[-1][0] + 5000)
    assert [row.second_ms for row in rows] == sorted({row.second_ms for row in rows})
    for row in rows:
        inside = [event for event in timeline if 0 <= START + event[0] - row.second_ms < 1000]
        used = [event for event in timeline if row.second_ms + 1000 - 3000 <= START + event[0] < row.second_ms + 1000]
        assert row.snapshots == len(inside)
        assert row.venues == [name for name in ("one", "two") if any(event[1] == name for event in used)]
        assert row.age_ms == row.second_ms + 1000 - START - used[-1][0]
        assert 0 < row.age_ms <= 3000
        assert row.anchor <= row.price < row.anchor + row.bucket_size
        assert row.imbalance is None or -1 <= row.imbalance <= 1
        assert row.spread is not None
        assert row.spread <= 0.5
        assert row.spread == 0.5 or len(row.venues) == 2
        assert all(amount is not None and amount >= 0 for amount in row.amounts)
