"""Candles that a venue has none of, made from its trades: 1s almost everywhere but at Binance.

Only where trade ids count up by one, and only candles that the ids prove whole; the others are missing.
"""

import asyncio
import logging

from hindsight.errors import MessageRefused
from hindsight.exchange.feed.clock import VenueClock
from hindsight.exchange.feed.messages import HeardTrade
from hindsight.exchange.feed.outbox import Outbox
from hindsight.exchange.feed.part import Part
from hindsight.exchange.feed.reasons import Reason
from hindsight.exchange.segments import Row
from hindsight.market.streams import Stream, Window, from_ms, to_ms
from hindsight.market.trades import trade_frame, whole_candles

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.1
LONGEST_STEP_MS = 60_000  # of candles that are made: a day of trades does not fit
KEPT_MS = 60_000  # back from the last candle, in which the trade before the next one is looked for
MOST_TRADES = 100_000


class BuiltCandles:
    """Makes one stream's candles from the trades that `take` is told."""

    def __init__(self, stream: Stream, clock: VenueClock, outbox: Outbox, part: Part, patience_ms: int) -> None:
        """`patience_ms` after its close a candle that is not proven whole is given up."""
        self.stream, self.clock, self.outbox, self.part, self.patience_ms = stream, clock, outbox, part, patience_ms
        self.position_ms: int | None = None
        self._newest_id, self._proven_ms = -1, 0  # no trade that is stamped before the latter is still on its way
        self._trades: dict[int, Row] = {}

    def take(self, trade: HeardTrade) -> None:
        """Takes in a trade, in whatever order they come."""
        if not isinstance(trade.trade_id, int):
            self.part.refuse(MessageRefused("trade ids do not count", Reason.NO_NUMBER), trade.trade_id)
            return
        if not self.part.is_heard:
            self.part.heard()
        if self.position_ms is None:  # the candle of the first trade is not whole
            self.position_ms = trade.time_ms - trade.time_ms % self.stream.step_ms
        if trade.trade_id > self._newest_id:
            now_ms = self.clock.now_ms()
            # One that is stamped ahead of the clock says nothing of those that were made just before it.
            proven_ms = trade.time_ms if trade.time_ms <= now_ms else now_ms - self.patience_ms // 2
            self._newest_id, self._proven_ms = trade.trade_id, proven_ms
        values = {"price": trade.price, "amount": trade.amount, "side": trade.side}
        self._trades[trade.trade_id] = {"trade_id": trade.trade_id, "time_ms": trade.time_ms, **values}

    async def build(self) -> None:
        """Lands each candle once it is over and whole, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self.position_ms is not None and self._over_ms() >= self.position_ms + 2 * self.stream.step_ms:
                self.build_once()

    def build_once(self) -> None:
        """Lands the candles that are over and whole by now, in order."""
        if self.position_ms is None:
            return
        step_ms, over_ms, landed, missing = self.stream.step_ms, self._over_ms(), list[Row](), list[int]()
        made = whole_candles(trade_frame(self._trades.values()), self.stream)
        whole = {to_ms(row["open_time"]): row for row in made.iter_rows(named=True)}
        while self.position_ms + 2 * step_ms <= over_ms:
            opened = self.position_ms + step_ms
            row = whole.get(opened) if opened + step_ms <= self._proven_ms else None
            if row is None and over_ms < opened + step_ms + self.patience_ms:
                break
            if row is None:
                missing.append(opened)
            else:
                values = {name: row[name] for name in ("open", "high", "low", "close", "volume")}
                told = {"stream": str(self.stream), "open_time_ms": opened, "known_ms": None, "closed_by": "trades"}
                landed.append({**told, **values})
            self.position_ms = opened
        if missing:  # all in one line: after an outage there is one for each of its candles
            self.part.missing += len(missing)
            window = Window(start=from_ms(missing[0]), end=from_ms(missing[-1] + step_ms))
            why = "their trades do not prove them whole"
            logger.warning("%s %s: %d candles are missing: %s", self.part.name, window, len(missing), why)
        self.outbox.add("candles", landed)
        self._forget()

    def _over_ms(self) -> int:
        """The instant up to which everything is over; a single trade may be stamped ahead of the venue's clock."""
        return min(self.clock.now_ms(), self.clock.reached_ms())

    def _forget(self) -> None:
        """Trades that prove nothing any more; the last one before the next candle stays."""
        assert self.position_ms is not None
        since_ms = self.position_ms - KEPT_MS
        newest = max(self._trades, default=0)
        self._trades = {
            trade_id: row
            for trade_id, row in self._trades.items()
            if row["time_ms"] >= since_ms and trade_id > newest - MOST_TRADES
        }
