"""The trades of one symbol, each once: archived, and their ids prove which seconds were quiet."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from hindsight.errors import MessageRefused, VenueUnavailable
from hindsight.exchange.feed.connection import Connection
from hindsight.exchange.feed.messages import HeardTrade
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part
from hindsight.exchange.feed.trade_ids import TradeIds
from hindsight.exchange.segments import Row

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.25
HOLES = 200  # that are remembered, should their trades come late
REMEMBERED = 5000  # trades whose ids are remembered where they do not count up
Reader = Callable[[Any, int], HeardTrade]


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
        self.newest: int | None = None
        self._holes: list[tuple[int, int]] = []  # first and last id, both missing
        self._unasked = 0  # how many of the last holes REST was not asked for yet
        self._seen: dict[int | str, None] = {}
        self._is_looking_back = False

    def take(self, message: Any) -> None:
        """Takes in what the socket brought."""
        self.part.heard()
        try:
            self._keep(self.read(message, self.connection.clock.latest_ms()))
        except MessageRefused as refused:
            self.part.refuse(str(refused), message)

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
        failures = 0
        while True:
            await asyncio.sleep(POLL_SECONDS if not failures else self.part.times.backoff(failures))
            if not self._unasked and not (
                self._is_looking_back and self.part.is_heard and not self.connection.hears_raw
            ):
                continue
            asked, is_looking_back = self._unasked, self._is_looking_back
            self._is_looking_back = False
            try:
                for trade in await self.connection.last_trades(self.symbol, self.part.refuse):
                    self.part.filled += self._keep(trade, is_from_rest=True)
            except VenueUnavailable as error:
                if not failures:
                    logger.warning("%s: cannot be mended: %s", self.part.name, error)
                failures, self._is_looking_back = failures + 1, is_looking_back
                continue
            failures, self._unasked = 0, max(0, self._unasked - asked)
            self._count()

    def _keep(self, trade: HeardTrade, *, is_from_rest: bool = False) -> bool:
        """Whether the trade is a new one."""
        if not self._is_new(trade.trade_id, is_from_rest):
            return False
        self.connection.clock.saw(trade.time_ms)
        self.outbox.add("trades", [self._row(trade)])
        if isinstance(trade.trade_id, int) and self.connection.hears_raw:
            self.ids.saw(trade.trade_id, trade.trade_id, trade.time_ms, trade.time_ms)
        self.tell(trade)
        return True

    def _is_new(self, trade_id: int | str, is_from_rest: bool) -> bool:
        if not self.connection.hears_raw or isinstance(trade_id, str):
            is_new = trade_id not in self._seen
            self._seen[trade_id] = None
            while len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return is_new
        newest = self.newest
        if newest is None or trade_id > newest:
            if is_from_rest and newest is None:
                return False
            if newest is not None and trade_id > newest + 1:
                self._holes = [*self._holes, (newest + 1, trade_id - 1)][-HOLES:]
                self._unasked = min(HOLES, self._unasked + 1)
            self.newest = trade_id
            return True
        for index, (first, last) in enumerate(self._holes):
            if first <= trade_id <= last:
                self._holes[index : index + 1] = [
                    hole for hole in ((first, trade_id - 1), (trade_id + 1, last)) if hole[0] <= hole[1]
                ]
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
