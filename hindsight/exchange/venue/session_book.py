"""The order book of a recorded session at any moment, as REST shows it."""

from collections.abc import Iterator

from hindsight.exchange.venue.market import Book
from hindsight.exchange.venue.session_files import DEPTH, Line, SessionFiles


class SessionBook:
    """The book that REST shows: the snapshot, and the differences up to the moment of asking."""

    def __init__(self, files: SessionFiles) -> None:
        self.files = files
        self._rewind()

    def at(self, now_ms: int, limit: int) -> Book:
        if now_ms < self._reached_ms:
            self._rewind()
        while self._next is not None and (self._next.at_ms <= now_ms or not self._last_id):
            self._take(self._next)
            self._next = next(self._lines, None)
        self._reached_ms = now_ms
        bids = sorted(self._bids.items(), key=lambda level: -float(level[0]))[:limit]
        asks = sorted(self._asks.items(), key=lambda level: float(level[0]))[:limit]
        return Book(self._last_id, bids, asks)

    def _rewind(self) -> None:
        self._lines: Iterator[Line] = self.files.lines(DEPTH)
        self._next = next(self._lines, None)
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}
        self._early: list[Line] = []
        self._last_id, self._reached_ms = 0, 0

    def _take(self, line: Line) -> None:
        told = line.message
        if isinstance(told, Book):
            self._bids = {price: amount for price, amount in told.bids}
            self._asks = {price: amount for price, amount in told.asks}
            self._last_id = told.last_update_id
            early, self._early = self._early, []
            for each in early:
                self._take(each)
        elif not self._last_id:
            self._early.append(line)  # received before the snapshot, and perhaps newer than it
        elif int(str(told["u"])) > self._last_id:
            for side, changes in ((self._bids, told["b"]), (self._asks, told["a"])):
                assert isinstance(changes, list)
                for price, amount in changes:
                    if float(amount):
                        side[price] = amount
                    else:
                        side.pop(price, None)
            self._last_id = int(str(told["u"]))
