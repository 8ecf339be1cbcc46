"""The trades of one symbol, each once: archived, and their ids prove which seconds were quiet."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hindsight.errors import AnswerUnreadable, MessageRefused, VenueUnavailable
from hindsight.exchange.feed.connection import Connection
from hindsight.exchange.feed.messages import HeardTrade
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.segments import Row

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.25
PAGES, HOUR_MS = 100, 3_600_000  # how much is gone through for one hole
MALFORMED = 8  # answers with rows that could not be read, until a hole that they left open counts as missing
HOLES = 200  # that are remembered, should their trades come late
REMEMBERED = 5000  # trades whose ids are remembered where they do not count up
Reader = Callable[[Any, int], HeardTrade]


@dataclass(frozen=True, slots=True)
class Hole:
    """Ids that are missing, from the first to the last, and the time of the trade before them."""

    first_id: int
    last_id: int
    since_ms: int


class SymbolTrades:
    """Brings one symbol's trades from `connection` to `outbox`. Where ids count up by one, holes in them are filled."""

    def __init__(
        self,
        symbol: str,
        connection: Connection,
        outbox: Outbox,
        part: Part,
        ids: TradeIds,
        read: Reader,
        tell: Callable[[HeardTrade], None],
    ) -> None:
        """`tell` is told every trade once, after its id counts as known."""
        self.symbol, self.connection, self.outbox, self.part = symbol, connection, outbox, part
        self.ids, self.read, self.tell = ids, read, tell
        self.newest: tuple[int, int] | None = None  # id and time
        self._holes: list[tuple[int, int]] = []  # first and last id, both missing
        self._unasked: list[Hole] = []  # that REST was not asked for yet
        self._seen: dict[int | str, None] = {}
        self._is_looking_back = False
        self._is_malformed = False  # some of what REST answered last

    def take(self, message: Any) -> None:
        """Takes in what the socket brought."""
        self.part.heard()
        try:
            self._keep(self.read(message, self.connection.clock.latest_ms()))
        except MessageRefused as refused:
            self.part.refuse(refused, message)

    async def watch(self) -> None:
        """Hears the socket until it brings something, or is lost."""
        rows = await self.connection.exchange.watch_trades(self.symbol)
        for row in rows:  # only where messages do not come to `take` by themselves
            self.take(row)

    def lose(self) -> None:
        """The socket is gone."""
        self._is_looking_back = True

    async def mend(self) -> None:
        """Asks REST for the trades that the socket did not bring, for ever."""
        failures = malformed = 0
        while True:
            in_vain = failures or malformed
            await asyncio.sleep(POLL_SECONDS if not in_vain else self.part.times.backoff(in_vain))
            is_due = self._is_looking_back and self.part.is_heard and not self.connection.hears_raw
            if not self._unasked and not is_due:
                continue
            asked, self._is_malformed = list(self._unasked), False
            try:
                await self._ask(asked)
            except VenueUnavailable as error:
                if not failures:
                    logger.warning("%s: cannot be mended: %s", self.part.name, error)
                failures += 1
                continue
            failures = 0
            if self._is_malformed and malformed < MALFORMED and (is_due or any(map(self._is_open, asked))):
                malformed += 1
                continue
            malformed, self._is_looking_back = 0, False
            self._unasked = [hole for hole in self._unasked if hole not in asked]
            self._count()

    async def _ask(self, holes: Iterable[Hole]) -> None:
        """Asks for the newest trades, and for those of holes. What cannot be read at all is refused, as a row is."""
        with suppress(AnswerUnreadable):
            for trade in await self.connection.last_trades(self.symbol, self._refuse):
                self.part.filled += self._keep(trade, is_from_rest=True)
        for hole in holes:
            with suppress(AnswerUnreadable):
                await self._fill(hole)

    async def _fill(self, hole: Hole) -> None:
        """Goes through the trades since a hole began, where the newest ones did not reach back to it."""
        since_ms = hole.since_ms
        for _ in range(PAGES):
            if not self._is_open(hole):
                return
            page = await self.connection.trades_since(self.symbol, since_ms, self._refuse)
            for first_id, trade in page.rows:
                self.part.filled += self._keep(trade, is_from_rest=True, first_id=first_id)
            # ccxt asks Binance for an hour at a time.
            since_ms = since_ms + HOUR_MS if page.more_ms is None else max(page.more_ms, since_ms + 1)
            if since_ms > self.connection.clock.now_ms():
                return

    def _is_open(self, hole: Hole) -> bool:
        return any(hole.first_id <= first <= hole.last_id for first, _ in self._holes)

    def _refuse(self, refused: MessageRefused, row: object) -> None:
        """Counts what REST answered and cannot be used: what it should have been may be there all the same."""
        self._is_malformed = True
        self.part.refuse(refused, row)

    def _keep(self, trade: HeardTrade, *, is_from_rest: bool = False, first_id: int | None = None) -> bool:
        """Whether the trade is a new one. From `first_id` to its own, it stands for several."""
        trade_id = trade.trade_id
        if not self.connection.hears_raw or isinstance(trade_id, str):
            if not self._is_unseen(trade_id):
                return False
        elif not self._is_new(trade_id if first_id is None else first_id, trade, is_from_rest):
            return False
        self.connection.clock.saw(trade.time_ms)
        self.outbox.add("trades", [self._row(trade)])
        if isinstance(trade_id, int) and self.connection.hears_raw:
            self.ids.saw(trade_id if first_id is None else first_id, trade_id, trade.time_ms, trade.time_ms)
        self.tell(trade)
        return True

    def _is_unseen(self, trade_id: int | str) -> bool:
        is_unseen = trade_id not in self._seen
        self._seen[trade_id] = None
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return is_unseen

    def _is_new(self, first_id: int, trade: HeardTrade, is_from_rest: bool) -> bool:
        """Whether ids that count up say so; notes the hole before the trade, or closes the one that it was in."""
        last_id, newest = int(trade.trade_id), self.newest
        if newest is None or first_id > newest[0]:
            if is_from_rest:
                return False  # the socket will bring it
            if newest is not None and first_id > newest[0] + 1:
                hole = Hole(newest[0] + 1, first_id - 1, newest[1])
                self._holes = [*self._holes, (hole.first_id, hole.last_id)][-HOLES:]
                self._unasked = [*self._unasked, hole][-HOLES:]
            self.newest = (last_id, trade.time_ms)
            return True
        for index, (first, last) in enumerate(self._holes):
            if first <= first_id <= last_id <= last:
                left = ((first, first_id - 1), (last_id + 1, last))
                self._holes[index : index + 1] = [hole for hole in left if hole[0] <= hole[1]]
                self._count()
                return True
        return False

    def _count(self) -> None:
        missing = sum(last - first + 1 for first, last in self._holes) if not self._unasked else self.part.missing
        if missing > self.part.missing:
            logger.warning("%s: %d trades are missing", self.part.name, missing - self.part.missing)
        self.part.missing = missing

    def _row(self, trade: HeardTrade) -> Row:
        return {
            "symbol": self.symbol,
            "venue": self.connection.name,
            "trade_id": trade.trade_id,
            "time_ms": trade.time_ms,
            "price": trade.price,
            "amount": trade.amount,
            "side": trade.side,
        }
