"""Buckets: widths, edges, and that what is added up is what rests there."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import SettingRefused
from hindsight.market.buckets import (
    amounts_around,
    bucket_of,
    bucket_size,
    bucket_sizes,
    imbalance_around,
    quote_of,
    usd_per,
)
from hindsight.market.depth import Depth, read_depth

Levels = list[tuple[float, float]]


def depth(bids: Levels, asks: Levels, reach: tuple[float, float] = (0.0, math.inf)) -> Depth:
    found = read_depth(1, bids, asks, kept=1000.0, quote_to_usd=1.0, reach=reach)
    assert isinstance(found, Depth)
    return found


def rounded(amounts: list[float | None]) -> dict[int, float]:
    return {bucket: amount for bucket, amount in enumerate(amounts) if amount}


def test_3020_dollars_with_buckets_of_one_dollar_run_from_3000_to_3040() -> None:
    """Trap 22: the price on an edge; bids lie below it, asks above."""
    bids = [(3019.99, 1.0), (3019.0, 1.0), (3018.99, 1.0), (3000.0, 1.0), (2999.99, 1.0)]
    asks = [(3020.01, 1.0), (3020.99, 1.0), (3021.0, 1.0), (3039.99, 1.0), (3040.0, 1.0)]
    amounts = amounts_around([depth(bids, asks)], 3020.0, 1.0)
    assert len(amounts) == 40
    assert rounded(amounts) == {0: 3000.0, 18: 3018.99, 19: 6038.99, 20: 6041.0, 21: 3021.0, 39: 3039.99}


def test_the_grid_stays_where_it_is_while_the_price_moves_inside_its_bucket() -> None:
    """Trap 22."""
    book = depth([(3020.5, 1.0), (3019.5, 1.0)], [(3020.98, 1.0), (3039.0, 1.0)])
    amounts = amounts_around([book], 3020.74, 1.0)
    # The bid between the anchor and the price counts in the nearest bucket of bids.
    assert rounded(amounts) == {19: 6040.0, 20: 3020.98, 39: 3039.0}


def test_books_of_two_venues_that_overlap_keep_their_sides() -> None:
    books = [depth([(3021.5, 1.0)], [(3021.6, 1.0)]), depth([(3019.4, 1.0)], [(3019.5, 1.0)])]
    amounts = amounts_around(books, 3020.5, 1.0)
    assert rounded(amounts) == {19: 6040.9, 20: 3019.5, 21: 3021.6}


def test_what_a_book_does_not_reach_is_unknown_and_not_zero() -> None:
    bids, asks = [(3019.5, 1.0), (3015.2, 1.0)], [(3020.5, 1.0), (3024.0, 1.0)]
    amounts = amounts_around([depth(bids, asks, reach=(3015.2, 3024.0))], 3020.0, 1.0)
    assert [bucket for bucket, amount in enumerate(amounts) if amount is None] == [*range(16), *range(24, 40)]
    assert amounts[16:24] == [0.0, 0.0, 0.0, 3019.5, 3020.5, 0.0, 0.0, 0.0]
    other = depth(bids, asks)
    assert amounts_around([other, depth(bids, asks, reach=(3015.2, 3024.0))], 3020.0, 1.0).count(None) == 32
    assert amounts_around([other], 3020.0, 1.0).count(None) == 0


@pytest.mark.parametrize(
    ("bids", "asks", "expected"),
    [
        pytest.param([(99.5, 3.0)], [(100.5, 1.0)], (298.5 - 100.5) / 399, id="by value"),
        pytest.param([(99.5, 1.0)], [(105.0, 1.0)], 1.0, id="an ask five widths off is outside"),
        pytest.param([(95.0, 1.0)], [(104.9, 1.0)], (95 - 104.9) / 199.9, id="a bid five widths off is inside"),
        pytest.param([(94.9, 1.0)], [(100.5, 1.0)], -1.0, id="asks alone"),
        pytest.param([(94.0, 9.0)], [(106.0, 9.0)], None, id="nothing near: null"),
        pytest.param([(99.5, 0.0)], [(100.5, 0.0)], None, id="both sides 0: null"),
    ],
)
def test_imbalance_by_hand(bids: Levels, asks: Levels, expected: float | None) -> None:
    """Trap 23: of both sides in USD, null where there is nothing."""
    assert imbalance_around([depth(bids, asks)], 100.0, 1.0) == pytest.approx(expected, abs=1e-6)


def test_imbalance_is_unknown_where_a_book_does_not_reach_five_widths() -> None:
    bids, asks = [(99.5, 1.0)], [(100.5, 1.0)]
    assert imbalance_around([depth(bids, asks, reach=(95.0, 105.0))], 100.0, 1.0) is not None
    assert imbalance_around([depth(bids, asks, reach=(95.1, 105.0))], 100.0, 1.0) is None
    assert imbalance_around([depth(bids, asks), depth(bids, asks, reach=(90.0, 104.9))], 100.0, 1.0) is None


def test_imbalance_does_not_follow_the_place_of_the_price_in_its_bucket() -> None:
    even = [(offset / 10, 1.0) for offset in range(1, 200)]
    for price in (3020.05, 3020.5, 3020.95):
        book = depth([(price - off, 1.0) for off, _ in even], [(price + off, 1.0) for off, _ in even])
        found = imbalance_around([book], price, 1.0)
        assert found is not None
        assert abs(found) < 0.025


@pytest.mark.parametrize(
    ("price", "size", "bucket"),
    [
        pytest.param(0.3, 0.1, 3, id="0.3 / 0.1 is 2.9999999999999996"),
        pytest.param(4.35, 0.05, 87, id="4.35 / 0.05 is 86.99999999999999"),
        pytest.param(3020.0, 1.0, 3020, id="whole"),
        pytest.param(3020.999, 1.0, 3020, id="below an edge"),
        pytest.param(61837.635, 10.0, 6183, id="tens"),
    ],
)
def test_a_price_belongs_to_the_bucket_that_it_opens(price: float, size: float, bucket: int) -> None:
    """Trap 22: also where a quotient of floats falls short of the edge."""
    assert bucket_of(price, size) == bucket


@pytest.mark.parametrize(
    ("symbol", "price", "expected"),
    [
        pytest.param("ETH/USDT", 2.0, 1.0, id="as set, whatever the price"),
        pytest.param("BTC/USDC", 61_837.0, 10.0, id="as set, by base"),
        pytest.param("SOL/USDT", 150.0, 0.05, id="0.045: nearest is 0.05"),
        pytest.param("DOGE/USDT", 0.11, 5e-05, id="3.3e-05: nearer to 5e-05 than to 2e-05, by ratio"),
        pytest.param("PEPE/USDT", 0.0000095, 2e-09, id="fractions of a cent"),
        pytest.param("XAUT/USDT", 3_000.0, 1.0, id="0.9: the next power of ten"),
    ],
)
def test_a_bucket_is_as_wide_as_set_or_a_round_part_of_the_price(symbol: str, price: float, expected: float) -> None:
    assert bucket_size(symbol, price, bucket_sizes(("ETH=1", "BTC=10"))) == expected


def test_a_currency_without_a_rate_is_refused_with_the_cure() -> None:
    assert [usd_per(quote_of(symbol)) for symbol in ("ETH/USDT", "ETH/USDC:USDC", "ETH/USD")] == [1.0, 1.0, 1.0]
    with pytest.raises(SettingRefused, match=r"found EUR.*books = false"):
        usd_per(quote_of("ETH/EUR"))


@given(
    st.integers(1_000, 9_000),
    st.sampled_from([0.25, 1.0, 2.0, 7.0]),
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 50)), min_size=1, max_size=60, unique_by=lambda level: level[0]
    ),
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 50)), min_size=1, max_size=60, unique_by=lambda level: level[0]
    ),
)
def test_the_sum_is_everything_in_range_and_agrees_with_ten_plain_lines(ticks, size, below, above) -> None:
    """Trap 22: nothing in range is lost, and nothing is counted twice."""
    middle = ticks / 4
    bids = [(middle - off / 4, float(size_)) for off, size_ in sorted(below) if middle - off / 4 > 0]
    asks = [(middle + off / 4, float(size_)) for off, size_ in sorted(above)]
    if not bids:
        return
    price = (bids[0][0] + asks[0][0]) / 2
    amounts = amounts_around([depth(bids, asks)], price, size)
    anchor = math.floor(price / size) * size
    plain = np.zeros(40)
    for at, amount in bids:
        if at >= anchor - 20 * size:
            plain[min(19, math.floor((at - anchor) / size) + 20)] += at * amount
    for at, amount in asks:
        if at < anchor + 20 * size:
            plain[math.floor((at - anchor) / size) + 20] += at * amount
    assert np.allclose(np.array(amounts, dtype=float), plain, atol=0.01)
