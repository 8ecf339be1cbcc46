"""The candles of one stream: heard over a socket, mended over REST, landed in order once they have closed."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from hindsight.errors import AnswerUnreadable, MessageRefused, VenueUnavailable
from hindsight.exchange.feed.connection import Connection
from hindsight.exchange.feed.messages import HeardCandle, HeardTrade, Page, moment
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part
from hindsight.exchange.feed.sequence import FRUITLESS, REMEMBERED, CandleSequence, Want
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.segments import Row
from hindsight.market.streams import Stream, Window, from_ms

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.1
LONGEST_WAIT = 5.0  # seconds between two questions of which the first brought nothing
LOOK_BACK_MS, LOOK_BACK_CANDLES = 600_000, 5  # how far corrections are looked for before a lost connection
LOOK_AGAIN_SECONDS = 30.0  # where the venue does not say what is final, its REST is believed afterwards
PROOF_PAGES = 50
Reader = Callable[[Any, int, int], HeardCandle]


class StreamCandles:
    """Brings one stream's candles from `connection` to `outbox`. `read` makes a candle of what the socket brings."""

    def __init__(
        self,
        stream: Stream,
        connection: Connection,
        outbox: Outbox,
        part: Part,
        ids: TradeIds,
        read: Reader,
        grace_ms: int,
    ) -> None:
        self.stream, self.connection, self.outbox, self.part = stream, connection, outbox, part
        self.ids, self.read = ids, read
        self.sequence = CandleSequence(stream, grace_ms=grace_ms, is_quiet=ids.is_quiet)
        self._is_asked = False  # REST, at least once since the start
        self._back_ms: int | None = None  # from here on corrections are looked for, once the socket is there
        self._asked_again: set[int] = set()  # open times of lost candles, which that is to bring
        self._malformed = 0  # answers in a row to that, of which some could not be read
        self._look_again_at: float | None = None
        self._unproven = 0  # proofs in a row that did not come as far as the hole
        self._heard: HeardCandle | None = None  # over the socket, last
        part.window = self._window

    def begin(self, position_ms: int | None, known: list[Row], first_candles: int) -> None:
        """Goes on after `position_ms`; a stream met for the first time begins `first_candles` before now."""
        step_ms = self.stream.step_ms
        if position_ms is None:
            now_ms = self.connection.clock.now_ms()
            position_ms = now_ms - now_ms % step_ms - (first_candles + 1) * step_ms
        self._land(self.sequence.begin(position_ms, known))
        self._look_back()

    def take(self, message: Any) -> None:
        """Takes in what the socket brought."""
        clock, step_ms = self.connection.clock, self.stream.step_ms
        self.part.heard()
        try:
            heard = self.read(message, step_ms, clock.latest_ms())
            opened = moment(heard.open_time_ms, "open time", clock.farthest_ms())
        except MessageRefused as refused:
            self.part.refuse(refused, message)
            return
        self._heard = heard
        clock.saw(opened)
        if heard.trade_ids is not None and opened <= clock.now_ms():
            self.ids.saw(*heard.trade_ids, opened, opened + step_ms - 1)
        self._land(self.sequence.hear(heard, clock.now_ms()))

    def look_again(self, _: HeardTrade) -> None:
        """Lands what has become certain by the id of a trade."""
        self._land(self.sequence.again())

    async def watch(self) -> None:
        """Hears the socket until it brings something, or is lost."""
        rows = await self.connection.exchange.watch_ohlcv(self.stream.symbol, self.stream.timeframe)
        for row in rows:  # only where messages do not come to `take` by themselves
            self.take(row)

    async def is_behind(self) -> bool:
        """Whether the venue has candles that the socket did not tell of; True too where it cannot be asked."""
        heard = self._heard
        if heard is None:
            return True
        try:
            page = await self.connection.candles(self.stream, heard.open_time_ms, self.part.refuse)
        except VenueUnavailable:
            return True
        has_more = any(each.open_time_ms > heard.open_time_ms or each.values != heard.values for each in page.rows)
        return has_more or not page.is_whole

    def ask_again(self, opens: Iterable[int]) -> list[int]:
        """Has candles fetched once more: the segment that they were landed in is lost. Those that it is done for."""
        if lost := self.sequence.miss(opens):
            self._land([])
            self._asked_again.update(lost)
            self._back_ms = min(*lost, self.sequence.next_ms if self._back_ms is None else self._back_ms)
        return lost

    def is_asking_again(self, opens: Iterable[int]) -> bool:
        """Whether REST has not yet said what it knows of all these candles."""
        return not self._asked_again.isdisjoint(opens)

    def lose(self) -> None:
        """The socket is gone."""
        self._heard = None
        self.sequence.disconnect()
        self._look_back()

    async def mend(self) -> None:
        """Asks REST for what the socket did not bring, for ever."""
        failures, in_vain = 0, 0
        want = self._want()
        while True:
            if want is None:
                await asyncio.sleep(POLL_SECONDS)
                want = self._want()
                if want == "hole":
                    # Messages that come in another order than they were sent come soon after each other.
                    await asyncio.sleep(POLL_SECONDS)
                    want = self._want()
                in_vain = 0 if want is None else in_vain
                continue
            before = self.sequence.position_ms, self._back_ms
            try:
                is_more = await self._ask(want)
            except VenueUnavailable as error:
                level = logging.WARNING if failures == 0 else logging.DEBUG
                logger.log(level, "%s: cannot be mended: %s", self.part.where, error)
                await asyncio.sleep(self.part.times.backoff(failures))
                failures += 1
                want = self._want()
                continue
            failures = 0
            in_vain = 0 if (self.sequence.position_ms, self._back_ms) != before else in_vain + 1
            if in_vain:
                await asyncio.sleep(min(LONGEST_WAIT, POLL_SECONDS * 2**in_vain))
            want = "hole" if is_more else self._want()
            if want is None and self.part.state == "filling":
                self.part.enter("connected" if self.part.is_heard else "down")

    async def _ask(self, want: Want) -> bool:
        """Puts one question to REST; whether there is more where the answer came from."""
        if want != "clock":
            self.part.enter("filling")
        if want == "proof":
            await self._prove(*self.sequence.hole)
            return False
        clock, next_ms = self.connection.clock, self.sequence.next_ms
        since_ms = next_ms if want != "back" or self._back_ms is None else min(self._back_ms, next_ms)
        asked_ms, reached_ms, before, back_ms = clock.now_ms(), clock.reached_ms(), self.sequence.filled, self._back_ms
        page = await self.connection.candles(self.stream, since_ms, self.part.refuse)
        candles, self._is_asked = page.rows, True
        if want == "back" and self._back_ms == back_ms:  # what is corrected from now on will be heard
            self._look_on(page, since_ms)
        if candles:
            clock.saw(candles[-1].open_time_ms)
        window = self._window()
        rows = self.sequence.answer(
            candles,
            since_ms,
            asked_ms=asked_ms,
            reached_ms=reached_ms,
            now_ms=clock.now_ms(),
            want=want,
            is_whole=page.is_whole,
        )
        if self.sequence.filled > before:
            logger.info("%s %s: %d candles filled in", self.part.name, window, self.sequence.filled - before)
        self._land(rows)
        return page.more_ms is not None and (want != "back" or self._back_ms is None)

    def _look_on(self, page: Page[HeardCandle], since_ms: int) -> None:
        """Goes on looking back after a page, unless some of it could not be read: then it is asked for again, at most
        FRUITLESS times."""
        self._malformed = 0 if page.is_whole else self._malformed + 1
        if self._malformed not in (0, FRUITLESS):
            return
        self._malformed, more_ms = 0, page.more_ms
        self._back_ms = more_ms if more_ms is not None and since_ms < more_ms <= self.sequence.next_ms else None
        self._asked_again = {each for each in self._asked_again if self._back_ms is not None and each >= self._back_ms}

    async def _prove(self, start_ms: int, end_ms: int) -> None:
        """Looks through the trades of a hole: seconds without one were quiet, the others are missing."""
        since_ms, newest_ms = start_ms - self.stream.step_ms, 0
        for _ in range(PROOF_PAGES):
            try:
                page = await self.connection.trades_since(self.stream.symbol, since_ms, self.part.refuse)
            except AnswerUnreadable:  # counted as refused
                break
            for first_id, trade in page.rows:
                newest_ms = trade.time_ms
                self.ids.saw(first_id, int(trade.trade_id), newest_ms, newest_ms)
            if page.more_ms is None or newest_ms >= end_ms:
                break
            since_ms = max(page.more_ms, since_ms + 1)
        # Trades that have not come as far as the candles prove nothing yet; but they are not waited for without end.
        self._unproven = self._unproven + 1 if newest_ms < end_ms else 0
        if self._unproven in (0, FRUITLESS):
            self._unproven = 0
            self._land(self.sequence.proven(end_ms))

    def _want(self) -> Want | None:
        clock, now = self.connection.clock, self.part.times.monotonic()
        if self._look_again_at is not None and now > self._look_again_at:
            self._look_again_at = None
            self._look_back()
        if not self._is_asked:
            return "hole"
        if self._back_ms is not None and self.part.is_heard:
            return "back"
        return self.sequence.wants(clock.now_ms(), clock.reached_ms())

    def _look_back(self) -> None:
        """Has corrections looked for that nobody told, from some time before the candles that come now."""
        step_ms, next_ms = self.stream.step_ms, self.sequence.next_ms
        if self._back_ms is None:
            self._back_ms = next_ms - max(LOOK_BACK_CANDLES * step_ms, LOOK_BACK_MS)
        self._back_ms = min(max(self._back_ms, next_ms - REMEMBERED * step_ms), *self._asked_again, next_ms)

    def _land(self, rows: list[Row]) -> None:
        part, sequence = self.part, self.sequence
        if sequence.missing > part.missing:
            count = sequence.missing - part.missing
            window = _window(*sequence.last_missing(count))
            logger.warning("%s %s: %d candles are missing: %s", part.name, window, count, sequence.why_missing)
        if sequence.corrections > part.corrections:
            for row in rows:
                self._tell_correction(row)
        part.filled, part.corrections, part.missing = sequence.filled, sequence.corrections, sequence.missing
        if rows:
            self.outbox.add("candles", rows)
            if self._look_again_at is None and any(row["closed_by"] == "next" for row in rows):
                self._look_again_at = part.times.monotonic() + LOOK_AGAIN_SECONDS

    def _tell_correction(self, row: Row) -> None:
        if row["known_ms"] is not None:
            window = _window(row["open_time_ms"], row["open_time_ms"] + self.stream.step_ms)
            values = ", ".join(str(row[name]) for name in ("open", "high", "low", "close", "volume"))
            logger.info("%s %s: told anew after its close: %s", self.part.name, window, values)

    def _window(self) -> Window:
        return _window(*self.sequence.hole)


def _window(start_ms: int, end_ms: int) -> Window:
    return Window(start=from_ms(start_ms), end=from_ms(end_ms))
