"""Means of the imbalance: over seconds with data, enough of them, and only where the record reaches back so far."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.market.book_means import MEANS, REACH, with_means
from hindsight.market.candles import TIME

START = datetime(2024, 8, 9, tzinfo=UTC)
FRAME = pl.Schema({"venue": pl.String, "symbol": pl.String, "second": TIME, "imbalance": pl.Float32})


def frame(imbalances: dict[int, float | None], symbol: str = "ETH/USDT") -> pl.DataFrame:
    rows = [("one", symbol, START + timedelta(seconds=at), value) for at, value in sorted(imbalances.items())]
    return pl.DataFrame(rows, schema=FRAME, orient="row")


def means(imbalances: dict[int, float | None], name: str) -> dict[int, float | None]:
    found = with_means(frame(imbalances))
    return dict(zip(sorted(imbalances), found[name], strict=True))


def test_a_mean_of_60_seconds_needs_60_seconds() -> None:
    """Trap 23: a shorter record has no mean."""
    found = means({at: at / 100 for at in range(70)}, "imbalance_60")
    assert [found[at] for at in range(59)] == [None] * 59
    assert found[59] == pytest.approx(sum(range(60)) / 6000)
    assert found[69] == pytest.approx(sum(range(10, 70)) / 6000)


def test_seconds_without_data_are_left_out_while_four_in_five_are_there() -> None:
    """Trap 23: the mean is over seconds with data, and of too few there is none."""
    every = {at: at / 100 for at in range(20)}
    assert means({at: value for at, value in every.items() if at != 12}, "imbalance_5")[14] == pytest.approx(
        (10 + 11 + 13 + 14) / 400
    )
    assert means({at: value for at, value in every.items() if at not in (11, 12)}, "imbalance_5")[14] is None
    assert means(every | {12: None}, "imbalance_5")[12] == pytest.approx((8 + 9 + 10 + 11) / 400)
    assert means(every | {11: None, 12: None}, "imbalance_5")[14] is None


def test_the_first_second_of_a_span_may_be_missing_where_the_record_reaches_past_it() -> None:
    found = means({at: 0.5 for at in range(20) if at != 10}, "imbalance_5")
    assert found[14] == 0.5
    assert means({at: 0.5 for at in range(11, 20)}, "imbalance_5")[14] is None


def test_after_a_pause_a_mean_returns_when_its_span_is_recorded() -> None:
    found = means({at: 0.5 for at in range(400) if not 100 <= at < 200}, "imbalance_60")
    assert found[99] == 0.5
    assert [at for at in range(200, 400) if found[at] is None] == list(range(200, 259))


def test_markets_do_not_mix() -> None:
    one, two = frame({at: 0.5 for at in range(6)}), frame({at: -0.5 for at in range(6)}, "BTC/USDT")
    both = with_means(pl.concat([one, two]).sort("second"))
    assert both.filter(symbol="ETH/USDT")["imbalance_5"].to_list() == [None] * 4 + [0.5] * 2
    assert both.filter(symbol="BTC/USDT")["imbalance_5"].to_list() == [None] * 4 + [-0.5] * 2


recorded = st.dictionaries(
    st.integers(0, 200), st.none() | st.integers(-1_000_000, 1_000_000).map(lambda value: value / 1_000_000), min_size=1
)
dense = st.tuples(recorded, st.integers(0, 100)).map(
    lambda both: {at: (at * 7919 % 2001 - 1000) / 1000 for at in range(both[1], both[1] + 90)} | both[0]
)


@given(recorded | dense)
def test_two_roads_to_a_mean(imbalances: dict[int, float | None]) -> None:
    for name, span in MEANS.items():
        for at, mean in means(imbalances, name).items():
            values = [imbalances.get(at - back) for back in range(2 * span - 1)]
            inside = [value for value in values[:span] if value is not None]
            reaches_back = any(value is not None for value in values[span - 1 :])
            if reaches_back and len(inside) >= 0.8 * span:
                assert mean == pytest.approx(sum(inside) / len(inside), abs=1e-6)
            else:
                assert mean is None


@given(recorded | dense, st.integers(0, 200), st.integers(0, 200))
def test_a_mean_is_the_same_to_the_bit_wherever_the_frame_begins_and_ends(
    imbalances: dict[int, float | None], start: int, end: int
) -> None:
    whole = with_means(frame(imbalances))
    window = pl.col("second").is_between(START + timedelta(seconds=start), START + timedelta(seconds=end))
    around = {at: value for at, value in imbalances.items() if start - REACH <= at <= end}
    assert with_means(frame(around)).filter(window).equals(whole.filter(window))
