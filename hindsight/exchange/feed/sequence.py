"""The candles of one stream in order: which have closed, which are still to come, which are quiet, missing, corrected.

Candles are handed out one after the other by open time and never before their close. A hole is filled before anything
after it is handed out. Nothing here waits or asks: what a socket or REST said comes in, rows to land go out, and
`wants` says what REST should be asked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from hindsight.exchange.feed.messages import HeardCandle, Values
from hindsight.exchange.segments import Row
from hindsight.market.streams import Stream

REMEMBERED = 1200  # candles whose values are known, for telling a correction from a repeat
HELD_BACK = 5000  # candles that wait for a hole to be filled; what is dropped, REST gives back
FRUITLESS = 8  # answers without the candle looked for, nor a later one, until it counts as missing

ClosedBy = Literal["flag", "next", "clock", "rest", "trades"]
Want = Literal["hole", "proof", "clock", "back"]


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed candle's values, as they stood at the instant `as_of_ms`."""

    values: Values
    as_of_ms: int
    closed_by: ClosedBy


@dataclass(slots=True)
class Known:
    """A candle that was handed out: its values now, since when, and the ones it had before."""

    values: Values
    as_of_ms: int
    earlier: list[Values] = field(default_factory=list)


class CandleSequence:
    """Where one stream stands. `position_ms` is the open time of the last candle handed out or given up."""

    def __init__(self, stream: Stream, *, grace_ms: int, is_quiet: Callable[[int, int], bool]) -> None:
        """`is_quiet(start, end)` says whether it is certain that nobody traded in [start, end)."""
        self.stream, self.step_ms, self.grace_ms = stream, stream.step_ms, grace_ms
        self.position_ms: int | None = None
        self.filled = self.corrections = self.missing = 0
        self.why_missing = ""  # of the last one that was given up
        self._name = str(stream)
        self._is_quiet = is_quiet
        self._pending: dict[int, list[Closed]] = {}
        self._known: dict[int, Known] = {}
        self._forming: HeardCandle | None = None  # only where the venue does not say what is final
        self._newest_ms = 0  # open time of the newest candle heard of
        self._absent_ms = 0  # what opens before this and did not come is not there at the venue
        self._why_absent = ""
        self._is_malformed = False  # some of what REST answered about the hole
        self._unproven_ms = 0  # what opens before this and is not proven quiet by now will not be
        self._fruitless = 0
        self._given_up: dict[int, None] = {}  # open times of missing candles, should they come late

    def begin(self, position_ms: int, known: Iterable[Row] = ()) -> list[Row]:
        """Goes on after `position_ms`; `known` are rows landed before, oldest first. What was heard already follows."""
        self.position_ms = position_ms
        for row in known:
            values = (row["open"], row["high"], row["low"], row["close"], row["volume"])
            self._remember(row["open_time_ms"], values, row["known_ms"] or row["open_time_ms"] + self.step_ms)
        self._pending = {opened: held for opened, held in self._pending.items() if opened > position_ms}
        return self._advance()

    @property
    def next_ms(self) -> int:
        """Open time of the candle to be handed out next."""
        assert self.position_ms is not None
        return self.position_ms + self.step_ms

    def hear(self, heard: HeardCandle, now_ms: int) -> list[Row]:
        """What can be landed after a message; `now_ms` is the venue's clock at its receipt.

        A candle that opens after that closes none before it: it may have been stamped ahead.
        """
        opened, is_final = heard.open_time_ms, heard.is_final
        as_of = now_ms if heard.event_ms is None else heard.event_ms
        rows: list[Row] = []
        if is_final and self.position_ms is not None and opened <= self.position_ms:
            rows = self._changed(opened, Closed(heard.values, as_of, "flag"), as_of)
        elif is_final:
            self._hold(opened, Closed(heard.values, as_of, "flag"))
        elif is_final is None and opened <= now_ms:
            forming = self._forming
            if forming is None or opened >= forming.open_time_ms:
                self._forming = heard
                if forming is not None and opened > forming.open_time_ms:
                    self._hold(forming.open_time_ms, Closed(forming.values, as_of, "next"))
        if opened <= now_ms:
            self._newest_ms = max(self._newest_ms, opened)
        return rows + self._advance()

    def answer(
        self,
        candles: list[HeardCandle],
        since_ms: int,
        *,
        asked_ms: int,
        reached_ms: int,
        now_ms: int,
        want: Want,
        is_whole: bool = True,
    ) -> list[Row]:
        """What can be landed after REST has answered with `candles`, by open time, of those that open from `since_ms`.

        The venue's clock stood at `asked_ms` and its market had reached `reached_ms` before asking; `now_ms` is the
        clock at the answer, and what opens after that is left out: it may have been stamped ahead. The last candle is
        the forming one, unless the market had passed its close by then. Where the answer `is_whole` not, some of it
        could not be read: what is not in `candles` may be there all the same.
        """
        candles = [each for each in candles if each.open_time_ms <= now_ms]
        rows: list[Row] = []
        filled: list[Row] = []
        before, next_ms = self.position_ms, self.next_ms
        for index, candle in enumerate(candles):
            opened, closes = candle.open_time_ms, candle.open_time_ms + self.step_ms
            is_last = index == len(candles) - 1
            if is_last and min(reached_ms, asked_ms) < closes + self.grace_ms:
                break
            closed = Closed(candle.values, asked_ms, "clock" if want == "clock" and opened >= next_ms else "rest")
            if asked_ms < closes + self.grace_ms and (opened in self._known or opened in self._pending):
                continue  # REST may lag behind the socket for a moment
            if opened >= next_ms:
                self._hold(opened, closed)
                filled += self._advance() if opened == self.next_ms else []
            elif opened in self._known or opened in self._given_up:
                rows += self._changed(opened, closed, now_ms)
            elif len(self._known) < REMEMBERED:
                self._remember(opened, candle.values, asked_ms)
        if candles:
            self._newest_ms = max(self._newest_ms, candles[-1].open_time_ms)
            if since_ms <= next_ms and is_whole:
                self._give_up_before(candles[-1].open_time_ms, "the venue has none there")
        # A venue leaves quiet seconds out.
        for opened in sorted(self._given_up) if want == "back" and self.step_ms == 1000 else ():
            if (close := self._quiet_close(opened)) is not None:
                rows += self._changed(opened, self._quiet(close, now_ms), now_ms)
        filled += self._advance()
        self.filled += len(filled) if want != "clock" else 0
        is_fruitless = self.position_ms == before and want == "hole"
        self._fruitless = self._fruitless + 1 if is_fruitless else 0
        self._is_malformed = not is_whole or (self._is_malformed and is_fruitless)
        if self._fruitless >= FRUITLESS:
            what = "some of it malformed" if self._is_malformed else "and REST does not come as far"
            why = f"asked for {self._fruitless} times, {what}"
            self._give_up_before(self._heard_after(self.next_ms) or 0, why)
            self._fruitless = 0
            filled += self._advance()
        return rows + filled

    def miss(self, opens: Iterable[int]) -> list[int]:
        """Counts candles as missing that were handed out, but got lost since; those that it did not count already.

        Like all that are missing, they are handed out again once REST brings them.
        """
        lost = [opened for opened in opens if opened < self.next_ms and opened not in self._given_up][-REMEMBERED:]
        for opened in lost:
            self._known.pop(opened, None)
            self._note_missing(opened, "they were landed in a segment that cannot be read")
        return lost

    def last_missing(self, count: int) -> tuple[int, int]:
        """The open times [start, end) between which the last `count` candles lie that were given up."""
        opens = list(self._given_up)[-count:]
        return min(opens), max(opens) + self.step_ms

    def proven(self, until_ms: int) -> list[Row]:
        """What can be landed after the venue's trades of the hole have been looked through, up to `until_ms`."""
        self._unproven_ms = max(self._unproven_ms, until_ms)
        return self._advance()

    def disconnect(self) -> None:
        """The socket is gone: what it said last of the forming candle is not how that candle will close."""
        self._forming = None

    def again(self) -> list[Row]:
        """What can be landed after more trade ids became known."""
        return self._advance() if self.position_ms is not None and self.step_ms == 1000 else []

    def wants(self, now_ms: int, reached_ms: int) -> Want | None:
        """What REST should be asked: candles of a hole, trades of one, or a candle that ought to have closed by now."""
        next_ms = self.next_ms
        if self.step_ms == 1000 and self._unproven_ms <= next_ms < self._absent_ms:
            return "proof"
        if self._heard_after(next_ms) is not None:
            return "hole"
        is_due = next_ms + self.step_ms + self.grace_ms <= min(now_ms, reached_ms)
        return "clock" if is_due else None

    @property
    def hole(self) -> tuple[int, int]:
        """The open times [start, end) that are looked for; those that REST does not have, where there are any."""
        next_ms = self.next_ms
        end_ms = self._absent_ms if next_ms < self._absent_ms else self._heard_after(next_ms)
        return next_ms, end_ms or next_ms + self.step_ms

    def _hold(self, opened: int, closed: Closed) -> None:
        held = self._pending.get(opened)
        if held is None:
            self._pending[opened] = [closed]
            if len(self._pending) > HELD_BACK:
                del self._pending[max(self._pending)]
        elif closed.values not in (each.values for each in held) and closed.as_of_ms > held[-1].as_of_ms:
            held.append(closed)

    def _heard_after(self, open_time_ms: int) -> int | None:
        """The earliest open time after this one that anything is known of."""
        later = [opened for opened in self._pending if opened > open_time_ms]
        if self._newest_ms > open_time_ms:
            later.append(self._newest_ms)
        return min(later, default=None)

    def _advance(self) -> list[Row]:
        """Everything that follows without a hole, or with one that is quiet or missing for certain."""
        rows: list[Row] = []
        while self.position_ms is not None:
            next_ms = self.next_ms
            if next_ms in self._pending:
                first, *later = self._pending.pop(next_ms)
                rows.append(self._row(next_ms, first, None))
                self._remember(next_ms, first.values, first.as_of_ms)
                for closed in later:
                    rows += self._changed(next_ms, closed, closed.as_of_ms)
            elif self.step_ms == 1000 and (close := self._quiet_close(next_ms)) is not None:
                quiet = self._quiet(close, next_ms + self.step_ms)
                rows.append(self._row(next_ms, quiet, None))
                self._remember(next_ms, quiet.values, quiet.as_of_ms)
            elif next_ms < (min(self._unproven_ms, self._absent_ms) if self.step_ms == 1000 else self._absent_ms):
                self._note_missing(next_ms, self._why_absent)
            else:
                break
            self.position_ms = next_ms
        return rows

    def _give_up_before(self, open_time_ms: int, why: str) -> None:
        """Whatever opens before and has not come by now is not there at the venue."""
        if open_time_ms > self._absent_ms:
            self._absent_ms, self._why_absent = open_time_ms, why

    def _note_missing(self, opened: int, why: str) -> None:
        self.missing += 1
        self.why_missing = why
        self._given_up[opened] = None
        while len(self._given_up) > REMEMBERED:
            del self._given_up[next(iter(self._given_up))]

    def _quiet_close(self, opened: int) -> float | None:
        """The close that a quiet candle repeats; None where it may not have been quiet."""
        before = self._known.get(opened - self.step_ms)
        is_over = self._heard_after(opened) is not None
        if before is None or not is_over or not self._is_quiet(opened, opened + self.step_ms):
            return None
        return before.values[3]

    def _quiet(self, close: float, as_of_ms: int) -> Closed:
        return Closed((close, close, close, close, 0.0), as_of_ms, "trades")

    def _changed(self, opened: int, closed: Closed, known_ms: int) -> list[Row]:
        """The row of a correction, or of a candle that came after it was given up; nothing where nothing changed."""
        known = self._known.get(opened)
        if known is not None:
            if closed.values == known.values:
                known.as_of_ms = max(known.as_of_ms, closed.as_of_ms)
                return []
            # REST may lag behind the socket: what it says is no news where the candle has looked like that before.
            if closed.as_of_ms <= known.as_of_ms or (closed.closed_by != "flag" and closed.values in known.earlier):
                return []
            known.earlier.append(known.values)
            known.values, known.as_of_ms = closed.values, closed.as_of_ms
        elif opened in self._given_up:
            del self._given_up[opened]
            self.missing -= 1
            self._remember(opened, closed.values, closed.as_of_ms)
        else:
            return []  # longer ago than anything is remembered
        self.corrections += 1
        # A venue's clock that is behind must not make a correction known before the close.
        return [self._row(opened, closed, max(known_ms, opened + self.step_ms + 1))]

    def _remember(self, opened: int, values: Values, as_of_ms: int) -> None:
        self._known[opened] = Known(values, as_of_ms)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def _row(self, opened: int, closed: Closed, known_ms: int | None) -> Row:
        names = ("open", "high", "low", "close", "volume")
        return {
            "stream": self._name,
            "open_time_ms": opened,
            **dict(zip(names, closed.values, strict=True)),
            "known_ms": known_ms,
            "closed_by": closed.closed_by,
        }
