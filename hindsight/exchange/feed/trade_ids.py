"""Whether a stretch of time was quiet, proven by trade ids: the last one before it adjoins the first one after it."""

from bisect import bisect_left, insort

LONGEST_QUIET_MS = 60_000  # nobody having traded for longer is an outage, whatever the ids say
REMEMBERED = 4000  # instants with a known trade, an hour of 1s candles; older ones are forgotten


class TradeIds:
    """Ids of one market's trades, which count up by one. Told by candles that name theirs and by trades themselves."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}  # instant -> the first id known to have come at that instant or later
        self._last: dict[int, int] = {}  # instant -> the last id known to have come at that instant or before
        self._firsts: list[int] = []  # the instants, sorted
        self._lasts: list[int] = []

    def saw(self, first_id: int, last_id: int, start_ms: int, end_ms: int) -> None:
        """The trades from `first_id` to `last_id` came between these instants, both included."""
        if start_ms not in self._first:
            insort(self._firsts, start_ms)
        self._first[start_ms] = min(first_id, self._first.get(start_ms, first_id))
        if end_ms not in self._last:
            insort(self._lasts, end_ms)
        self._last[end_ms] = max(last_id, self._last.get(end_ms, last_id))
        for known, instants in ((self._first, self._firsts), (self._last, self._lasts)):
            if len(instants) > REMEMBERED:
                for instant in instants[: REMEMBERED // 4]:
                    del known[instant]
                del instants[: REMEMBERED // 4]

    def is_quiet(self, start_ms: int, end_ms: int) -> bool:
        """Whether it is certain that nobody traded in [start, end)."""
        before, after = bisect_left(self._lasts, start_ms) - 1, bisect_left(self._firsts, end_ms)
        if before < 0 or after == len(self._firsts):
            return False
        last_ms, first_ms = self._lasts[before], self._firsts[after]
        return self._last[last_ms] + 1 == self._first[first_ms] and first_ms - last_ms <= LONGEST_QUIET_MS
