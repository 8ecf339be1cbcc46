"""Recorded sessions as they were on the wire: trades, depth differences, best prices, and the snapshot in between.

Read from `.gz` files of lines `<receive time in ns> <JSON>`, the REST snapshot in line, as hftbacktest records them; or
from three Parquet tables of the same (`<symbol>_l2_*`, `<symbol>_trades_*`, `<symbol>_quotes_*`), written out again.
A file is read anew by everyone who plays it, and never kept.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from hindsight.exchange.venue.market import Book, Message

DEPTH, TRADE, TICKER = "depth@100ms", "trade", "bookTicker"
TABLES = {DEPTH: "l2", TRADE: "trades", TICKER: "quotes"}
LEVEL_COLUMNS = ("ts_ms", "side", "price", "size", "snapshot", "U", "u")


class Line(NamedTuple):
    """One message and the venue's clock when it was sent: its event time, or that of the line before it."""

    at_ms: int
    message: Message | Book  # a Book is the snapshot


class SessionFiles:
    """One symbol's recorded session."""

    def __init__(self, folder: Path, symbol: str) -> None:
        self.symbol = symbol
        self.wire = sorted(path for path in folder.rglob("*.gz") if symbol.lower() in path.name.lower())
        named = {channel: f"{symbol.lower()}_{table}_*.parquet" for channel, table in TABLES.items()}
        self.tables = {channel: sorted(folder.rglob(pattern)) for channel, pattern in named.items()}

    @property
    def exists(self) -> bool:
        return bool(self.wire) or all(self.tables.values())

    def lines(self, channel: str) -> Iterator[Line]:
        """The messages of one channel in the order in which they came; the snapshot is among those of the depth."""
        if self.wire:
            return self._of_wire(channel)
        return {DEPTH: self._of_levels, TRADE: self._of_trades, TICKER: self._of_quotes}[channel]()

    def _of_wire(self, channel: str) -> Iterator[Line]:
        # Told apart by their text: nine in ten lines are of other channels, and parsing takes ten times as long.
        wanted = f'@{channel}"'
        at_ms = 0
        for path in self.wire:
            with gzip.open(path, "rt") as lines:
                for line in lines:
                    text = line.partition(" ")[2]
                    head = text[:60]
                    if channel == DEPTH and '"lastUpdateId"' in head:
                        told = json.loads(text)
                        yield Line(at_ms, Book(told["lastUpdateId"], told["bids"], told["asks"]))
                        continue
                    event = text.find('"E":', 0, 120)
                    if event > 0:
                        at_ms = max(at_ms, int(text[event + 4 : event + 17]))
                    if wanted in head:
                        yield Line(at_ms, json.loads(text)["data"])

    def _of_levels(self) -> Iterator[Line]:
        levels = pl.concat([pl.read_parquet(path, columns=list(LEVEL_COLUMNS)) for path in self.tables[DEPTH]])
        is_new = pl.struct("U", "u", "snapshot") != pl.struct("U", "u", "snapshot").shift(1)
        levels = levels.with_columns(number=is_new.fill_null(True).cum_sum())
        for part in levels.partition_by("number", maintain_order=True, include_key=False):
            at_ms, _, _, _, is_snapshot, first, last = part.row(0)
            bids, asks = (
                [(f"{price:.8f}", f"{size:.8f}") for price, size in part.filter(side=side)["price", "size"].iter_rows()]
                for side in ("bid", "ask")
            )
            if is_snapshot:
                yield Line(at_ms, Book(last, bids, asks))
                continue
            head: Message = {"e": "depthUpdate", "E": at_ms, "s": self.symbol, "U": first, "u": last}
            yield Line(at_ms, {**head, "b": bids, "a": asks})

    def _of_trades(self) -> Iterator[Line]:
        for path in self.tables[TRADE]:
            trades = pl.read_parquet(path)["ts_ms", "price", "qty", "side", "trade_id"]
            for at_ms, price, amount, side, trade_id in trades.iter_rows():
                head: Message = {"e": "trade", "E": at_ms, "s": self.symbol, "t": trade_id, "T": at_ms}
                tail = {"p": f"{price:.8f}", "q": f"{amount:.8f}", "m": side == "sell", "M": True}
                yield Line(at_ms, {**head, **tail})

    def _of_quotes(self) -> Iterator[Line]:
        for path in self.tables[TICKER]:
            quotes = pl.read_parquet(path)["ts_ms", "u", "bid", "bid_size", "ask", "ask_size"]
            for at_ms, last, *levels in quotes.iter_rows():
                bid, bid_size, ask, ask_size = (f"{number:.8f}" for number in levels)
                yield Line(at_ms, {"u": last, "s": self.symbol, "b": bid, "B": bid_size, "a": ask, "A": ask_size})
