"""The venue's clock: synced over a round trip, faster than ours, and a bound that never runs ahead of the market."""

import pytest

from hindsight.exchange.feed.clock import FORGET_SECONDS, VenueClock

NOW = 1_717_200_000_000


class Ticks:
    """A monotonic clock that is told what it shows."""

    def __init__(self) -> None:
        self.seconds = 5000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("speed", [1.0, 60.0])
def test_the_clock_goes_on_from_the_middle_of_the_round_trip(speed: float) -> None:
    ticks = Ticks()
    clock = VenueClock(ticks, speed)
    clock.sync(NOW, 4999.9, 5000.1)
    assert clock.now_ms() == NOW
    ticks.seconds += 2.5
    assert clock.now_ms() == NOW + 2500 * speed


def test_one_wrong_answer_is_not_believed_and_a_lasting_jump_is() -> None:
    ticks = Ticks()
    clock = VenueClock(ticks)
    for _ in range(2):
        clock.sync(NOW, 5000.0, 5000.0)
    assert not clock.sync(NOW + 3_600_000, 5000.0, 5000.0)
    assert clock.sync(NOW + 20, 5000.0, 5000.0)
    assert clock.now_ms() == NOW + 20
    assert not clock.sync(NOW - 9000, 5000.0, 5000.0)
    assert not clock.sync(NOW + 9000, 5000.0, 5000.0)  # no two that agree
    assert clock.now_ms() == NOW + 20
    ticks.seconds += 1
    assert clock.sync(NOW + 10_010, 5001.0, 5001.0)
    assert clock.now_ms() == NOW + 10_010


def test_the_first_answer_counts_once_the_next_one_says_the_same() -> None:
    clock = VenueClock(Ticks())
    for told_ms in (NOW + 3_600_000, NOW):
        assert not clock.sync(told_ms, 5000.0, 5000.0)
        assert not clock.is_synced
    assert clock.sync(NOW + 20, 5000.0, 5000.0)
    assert clock.is_synced
    assert clock.now_ms() == NOW + 20


def test_what_the_market_proved_bounds_it_from_below_whatever_the_clock_says() -> None:
    ticks = Ticks()
    clock = VenueClock(ticks)
    clock.sync(NOW + 3000, 5000.0, 5000.0)  # three seconds ahead
    assert clock.reached_ms() == 0
    clock.saw(NOW)
    clock.saw(NOW - 60_000)  # an old candle proves nothing more
    ticks.seconds += 10
    assert clock.reached_ms() == NOW + 10_000
    clock.saw(NOW + 10_500)
    assert clock.reached_ms() == NOW + 10_500


def test_proof_that_is_old_is_forgotten_before_two_clocks_can_drift_apart() -> None:
    ticks = Ticks()
    clock = VenueClock(ticks)
    clock.saw(NOW)
    ticks.seconds += FORGET_SECONDS * 0.9
    assert clock.reached_ms() > NOW
    # The market's clock is 1 s slower every half an hour than ours makes it.
    for span in range(1, 20):
        ticks.seconds = 5000 + span * FORGET_SECONDS * 1.01
        true_ms = NOW + int(span * FORGET_SECONDS * 1.01 * 1000) - 1000 * span
        clock.saw(true_ms)
        assert true_ms <= clock.reached_ms() <= true_ms + 2000
    ticks.seconds += 3 * FORGET_SECONDS
    assert clock.reached_ms() == 0
