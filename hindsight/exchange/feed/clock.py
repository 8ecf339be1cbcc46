"""The venue's time: what its clock shows, and how far its market has certainly come.

Two different things. `now_ms` follows what the venue says when asked, which may be off by seconds. `reached_ms` never
runs ahead of the market itself: it goes on from instants that the market proved, such as the open time of a candle
that exists. A candle is closed for certain once the market has reached its close, whatever any clock shows.
"""

from collections.abc import Callable

FUTURE_SECONDS = 10.0  # of ours, by which a message may be ahead of the venue's clock and still be believed
AHEAD_SECONDS = 2.0  # of ours, by which a market may be ahead of its clock
JUMP_SECONDS = 0.5  # of ours, by which an answer may be off what the clock shows without being doubted
FORGET_SECONDS = 1800  # drift of an ordinary quartz in that time: well below 0.1 s


class VenueClock:
    """One venue's clock, `speed` times as fast as `monotonic`, which counts seconds and also counts while asleep."""

    def __init__(self, monotonic: Callable[[], float], speed: float = 1.0) -> None:
        self.monotonic, self.speed = monotonic, speed
        self.is_synced = False
        self._zero_ms = 0.0  # what the venue's clock showed when monotonic was 0
        self._doubted_ms: float | None = None  # the same by an answer that nothing has confirmed yet
        # What the market proved, as the instant at which monotonic was 0: in this span of time, and in the one before.
        self._proven, self._proven_before, self._span = 0.0, 0.0, 0.0

    def sync(self, venue_ms: float, asked_at: float, answered_at: float) -> bool:
        """Whether the venue's answer to what time it is, asked and answered at these instants, is believed.

        The first one, and one that jumps, is believed once the next answer says the same.
        """
        zero_ms = venue_ms - (asked_at + answered_at) / 2 * self.speed * 1000  # half the way there, half back
        near_ms = (JUMP_SECONDS + (answered_at - asked_at) / 2) * self.speed * 1000
        is_near = self.is_synced and abs(zero_ms - self._zero_ms) <= near_ms
        if not is_near and (self._doubted_ms is None or abs(zero_ms - self._doubted_ms) > near_ms):
            self._doubted_ms = zero_ms
            if not self.is_synced:  # the best that is known
                self._zero_ms = zero_ms
            return False
        self._zero_ms, self._doubted_ms, self.is_synced = zero_ms, None, True
        return True

    def guess(self, venue_ms: float) -> None:
        """Takes this for the venue's time until it has been asked."""
        if not self.is_synced:
            self._zero_ms = venue_ms - self.monotonic() * self.speed * 1000

    def now_ms(self) -> int:
        """What the venue's clock shows."""
        return int(self._zero_ms + self.monotonic() * self.speed * 1000)

    def latest_ms(self) -> int:
        """The last instant that anything heard by now can speak of."""
        return self.now_ms() + int(FUTURE_SECONDS * self.speed * 1000)

    def farthest_ms(self) -> int:
        """The last instant that the market can have come to by now: no candle opens later, and no book stands then."""
        return self.now_ms() + int(AHEAD_SECONDS * self.speed * 1000)

    def saw(self, venue_ms: int) -> None:
        """The market had come to `venue_ms` when this was called, or before: a candle that opened then exists."""
        now = self.monotonic()
        age = now - self._span
        if age > FORGET_SECONDS:  # so that a slow drift between two clocks cannot add up
            self._proven_before, self._proven, self._span = self._still_proven(age), 0.0, now
        self._proven = max(self._proven, venue_ms - now * self.speed * 1000)

    def reached_ms(self) -> int:
        """The market has come at least this far; 0 where nothing is known."""
        now = self.monotonic()
        proven = self._still_proven(now - self._span)
        return int(proven + now * self.speed * 1000) if proven else 0

    def _still_proven(self, age: float) -> float:
        if age <= FORGET_SECONDS:
            return max(self._proven, self._proven_before)
        return self._proven if age <= 2 * FORGET_SECONDS else 0.0
