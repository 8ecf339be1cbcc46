"""Quiet or not: only ids that adjoin prove that nobody traded."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hindsight.exchange.feed.trade_ids import LONGEST_QUIET_MS, REMEMBERED, TradeIds


def test_ids_that_adjoin_prove_quiet_and_others_do_not() -> None:
    ids = TradeIds()
    ids.saw(7, 9, 1000, 1999)
    assert not ids.is_quiet(2000, 3000)  # silence
    ids.saw(12, 12, 5500, 5500)
    assert not ids.is_quiet(2000, 5000)  # 10 and 11 were somewhere
    ids.saw(10, 11, 3000, 3400)
    assert ids.is_quiet(2000, 3000)
    assert ids.is_quiet(4000, 5000)
    assert not ids.is_quiet(3000, 4000)


def test_trades_too_far_apart_mean_an_outage() -> None:
    ids = TradeIds()
    ids.saw(1, 1, 0, 0)
    ids.saw(2, 2, LONGEST_QUIET_MS + 1, LONGEST_QUIET_MS + 1)
    assert not ids.is_quiet(1000, 2000)


def test_memory_is_bounded_and_the_newest_stays() -> None:
    ids = TradeIds()
    for number in range(3 * REMEMBERED):
        ids.saw(number, number, number * 2000, number * 2000)
    assert len(ids._firsts) == len(ids._first) <= REMEMBERED
    assert ids.is_quiet((3 * REMEMBERED - 2) * 2000 + 1000, (3 * REMEMBERED - 2) * 2000 + 2000)


@given(seed=st.integers(0, 2**32), known=st.sampled_from([0.3, 0.7, 1.0]))
def test_no_second_with_a_trade_is_ever_called_quiet_and_with_all_ids_every_other_is(seed: int, known: float) -> None:
    chance = Random(seed)
    times = sorted(chance.randrange(60_000) for _ in range(40))
    ids = TradeIds()
    heard = [(number, time) for number, time in enumerate(times) if chance.random() < known]
    chance.shuffle(heard)
    for number, time in heard:
        ids.saw(number, number, time, time)
    for second in range(0, 60_000, 1000):
        has_trade = any(second <= time < second + 1000 for time in times)
        is_inside = times[0] < second and second + 1000 <= times[-1]
        assert not (has_trade and ids.is_quiet(second, second + 1000))
        if known == 1.0 and is_inside and not has_trade:
            assert ids.is_quiet(second, second + 1000)
