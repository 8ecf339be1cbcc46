"""The order book: Binance's sequence rules, and a book that is right or says that it is not."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import BookBroken
from hindsight.market.order_book import OrderBook

SNAPSHOT = ([["100.0", "1"], ["99.5", "2"]], [["100.5", "3"], ["101", "4"]])


def started(last_id: int = 10) -> OrderBook:
    book = OrderBook()
    book.start(last_id, *SNAPSHOT)
    return book


def test_a_snapshot_is_a_book() -> None:
    book = started()
    assert book.is_whole
    assert book.bids() == [(100.0, 1.0), (99.5, 2.0)]
    assert book.asks() == [(100.5, 3.0), (101.0, 4.0)]
    assert (book.best_bid, book.best_ask, book.event_ms) == (100.0, 100.5, None)


def test_an_update_changes_adds_and_removes_levels() -> None:
    book = started()
    book.apply(11, 12, [["100.0", "0"], ["99.0", "5"], ["1.0", "0.00000000"]], [["100.4", "1.5"], ["101", "9"]], 777)
    assert book.bids() == [(99.5, 2.0), (99.0, 5.0)]
    assert book.asks() == [(100.4, 1.5), (100.5, 3.0), (101.0, 9.0)]
    assert book.event_ms == 777


def test_part_of_a_book_is_asked_for_by_price() -> None:
    book = started()
    assert book.bids(down_to=99.5) == [(100.0, 1.0), (99.5, 2.0)]
    assert book.bids(down_to=99.6) == [(100.0, 1.0)]
    assert book.asks(up_to=101.0) == [(100.5, 3.0)]


@pytest.mark.parametrize(
    ("updates", "dropped", "reason"),
    [
        pytest.param([(1, 9)], 1, "", id="ends before the snapshot: dropped"),
        pytest.param([(1, 10)], 1, "", id="ends with the snapshot: dropped"),
        pytest.param([(5, 11)], 0, "", id="the first may begin before the snapshot"),
        pytest.param([(11, 15), (16, 16)], 0, "", id="each begins where the one before it ended"),
        pytest.param([(11, 15), (11, 15), (16, 17)], 1, "", id="the same update again is dropped"),
        pytest.param([(12, 15)], 0, "snapshot too old", id="the first begins after the snapshot ended"),
        pytest.param([(11, 15), (17, 18)], 0, "gap in sequence", id="one is missing"),
        pytest.param([(11, 15), (15, 18)], 0, "gap in sequence", id="only the first may overlap"),
        pytest.param([(12, 11)], 0, "malformed", id="ends before it begins"),
    ],
)
@pytest.mark.parametrize("comes_first", [True, False], ids=["snapshot first", "updates first"])
def test_the_sequence_rules(updates: list[tuple[int, int]], dropped: int, reason: str, comes_first: bool) -> None:
    """Trap 21: a gap in the sequence empties the book."""
    book = OrderBook()

    def play() -> None:
        steps: list[Callable[[], None]] = [
            lambda first=first, final=final: book.apply(first, final, [["99", final]], [], final)
            for first, final in updates
        ]
        steps.insert(0 if comes_first else len(steps), lambda: book.start(10, *SNAPSHOT))
        for step in steps:
            step()

    if reason:
        with pytest.raises(BookBroken, match="take a new snapshot") as broken:
            play()
        assert broken.value.reason == reason
        assert not book.is_whole
        assert book.bids() == book.asks() == []
    else:
        play()
        assert book.old == dropped


def test_a_broken_book_goes_on_from_the_next_snapshot_with_what_waited_for_it() -> None:
    book = started()
    with pytest.raises(BookBroken):
        book.apply(12, 13, [["99.9", "7"]], [], 1)
    book.apply(14, 15, [["99.8", "8"]], [], 2)
    book.start(12, *SNAPSHOT)
    assert book.bids() == [(100.0, 1.0), (99.9, 7.0), (99.8, 8.0), (99.5, 2.0)]
    assert book.event_ms == 2


def test_a_snapshot_that_is_too_old_leaves_the_updates_for_the_next_one() -> None:
    book = OrderBook()
    book.apply(20, 21, [["99.9", "7"]], [], 1)
    with pytest.raises(BookBroken) as broken:
        book.start(10, *SNAPSHOT)
    assert broken.value.reason == "snapshot too old"
    book.start(20, *SNAPSHOT)
    assert book.bids(down_to=99.9) == [(100.0, 1.0), (99.9, 7.0)]


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        pytest.param(["nan", "1"], "malformed", id="price is NaN"),
        pytest.param(["-1", "1"], "malformed", id="negative price"),
        pytest.param(["0", "1"], "malformed", id="no price"),
        pytest.param(["inf", "1"], "malformed", id="infinite price"),
        pytest.param(["99", "-1"], "malformed", id="negative size"),
        pytest.param(["99", "NaN"], "malformed", id="size is NaN"),
        pytest.param(["99"], "malformed", id="no size"),
        pytest.param(["abc", "1"], "malformed", id="text where a number belongs"),
        pytest.param(None, "malformed", id="nothing"),
        pytest.param(["100.5", "1"], "crossed", id="bid at the best ask"),
        pytest.param(["102", "1"], "crossed", id="bid above the best ask"),
    ],
)
def test_a_bad_level_empties_the_book_until_a_snapshot(level, reason: str) -> None:
    book = started()
    with pytest.raises(BookBroken) as broken:
        book.apply(11, 11, [level], [], 1)
    assert broken.value.reason == reason
    assert not book.is_whole
    with pytest.raises(BookBroken) as broken:
        book.start(10, [level], SNAPSHOT[1])
    assert broken.value.reason == reason
    assert not book.is_whole
    book.start(11, *SNAPSHOT)
    assert book.is_whole


def test_the_snapshot_says_how_far_the_book_is_known() -> None:
    book = started()
    assert book.reach == (99.5, 101.0)
    book.apply(11, 11, [["90", "1"]], [["120", "1"]], 1)
    assert book.reach == (99.5, 101.0)
    book.start(11, *SNAPSHOT, levels_asked=3)
    assert book.reach == (0.0, float("inf"))
    book.start(11, *SNAPSHOT, levels_asked=2)
    assert book.reach == (99.5, 101.0)


prices = st.integers(1, 40)
amounts = st.integers(0, 3)
bid_changes = st.lists(st.tuples(prices, amounts), max_size=6)
ask_changes = st.lists(st.tuples(prices.map(lambda price: price + 40), amounts), max_size=6)


@given(
    st.lists(st.tuples(st.integers(1, 3), bid_changes, ask_changes), min_size=1, max_size=30),
    st.data(),
)
def test_a_book_from_any_snapshot_is_the_book_that_heard_everything(updates, data) -> None:
    heard: list[tuple[int, dict[int, int], dict[int, int]]] = [(0, {}, {})]
    messages = []
    for ids, bids, asks in updates:
        last, *sides = heard[-1]
        sides = [{**side, **dict(changes)} for side, changes in zip(sides, (bids, asks), strict=True)]
        heard.append((last + ids, *({price: size for price, size in side.items() if size} for side in sides)))
        messages.append((last + 1, last + ids, bids, asks, last))
    asked_at = data.draw(st.integers(1, len(messages)), label="snapshot is of this update")
    comes_at = data.draw(st.integers(0, len(messages)), label="snapshot comes after this one")
    book = OrderBook()
    for number, message in enumerate(messages, 1):
        book.apply(*message)
        if number == max(comes_at, asked_at):
            last, bids, asks = heard[asked_at]
            book.start(last, list(bids.items()), list(asks.items()))
    assert dict(book.bids()) == heard[-1][1]
    assert dict(book.asks()) == heard[-1][2]
    assert [price for price, _ in book.bids()] == sorted(heard[-1][1], reverse=True)
    assert [price for price, _ in book.asks()] == sorted(heard[-1][2])
