"""Rows of the order book as they are landed, and as columns."""

import json
from datetime import UTC, datetime

import pytest

from hindsight.market.book_rows import BOOK_SECONDS, BookSecond, book_frame

ROW = BookSecond(
    symbol="ETH/USDT",
    venue="binance",
    second_ms=1_723_161_255_000,
    price=2683.805,
    spread=0.01,
    bucket_size=1.0,
    anchor=2683.0,
    amounts=[None, *[1.5] * 38, 0.0],
    imbalance=-0.25,
    snapshots=10,
    age_ms=47,
    venues=["binance", "kraken"],
)


def test_a_row_comes_back_from_json_as_it_was() -> None:
    frame = book_frame([json.loads(json.dumps(ROW.landed()))])
    assert frame.schema == BOOK_SECONDS
    assert frame.row(0, named=True) == {
        "symbol": "ETH/USDT",
        "venue": "binance",
        "second": datetime(2024, 8, 8, 23, 54, 15, tzinfo=UTC),
        "price": 2683.805,
        "spread": pytest.approx(0.01),
        "bucket_size": 1.0,
        "anchor": 2683.0,
        "amounts": [None, *[1.5] * 38, 0.0],
        "imbalance": -0.25,
        "snapshots": 10,
        "age_ms": 47,
        "venues": ["binance", "kraken"],
    }


@pytest.mark.parametrize("spread", [pytest.param(0.0, id="touching"), pytest.param(-0.5, id="overlapping"), None])
def test_a_spread_of_several_venues_may_be_zero_or_less_and_may_be_unknown(spread: float | None) -> None:
    assert book_frame([ROW.landed() | {"spread": spread}])["spread"].to_list() == [spread]


def test_no_rows_are_an_empty_frame() -> None:
    assert book_frame([]).schema == BOOK_SECONDS


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"amounts": [1.0] * 39}, id="39 buckets"),
        pytest.param({"amounts": [-1.0, *[1.0] * 39]}, id="a negative amount"),
        pytest.param({"amounts": [float("nan"), *[1.0] * 39]}, id="an amount that is no number"),
        pytest.param({"amounts": [float("inf"), *[1.0] * 39]}, id="an infinite amount"),
        pytest.param({"amounts": None}, id="no amounts"),
        pytest.param({"amounts": "many"}, id="text for amounts"),
        pytest.param({"price": "high"}, id="text for a price"),
        pytest.param({"price": 0.0}, id="a price of 0"),
        pytest.param({"price": float("inf")}, id="an infinite price"),
        pytest.param({"price": None}, id="no price"),
        pytest.param({"spread": float("nan")}, id="a spread that is no number"),
        pytest.param({"spread": float("-inf")}, id="an infinite spread"),
        pytest.param({"spread": "wide"}, id="text for a spread"),
        pytest.param({"second_ms": 1_723_161_255_500}, id="half a second"),
        pytest.param({"second_ms": 2**70}, id="a second beyond every calendar"),
        pytest.param({"imbalance": 1.5}, id="an imbalance above 1"),
        pytest.param({"imbalance": float("nan")}, id="an imbalance that is no number"),
        pytest.param({"snapshots": -1}, id="fewer than no snapshots"),
        pytest.param({"venues": []}, id="no venue"),
        pytest.param({"venue": None}, id="no key"),
    ],
)
def test_what_is_no_row_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected rows of an order book, found"):
        book_frame([ROW.landed(), ROW.landed() | wrong])
