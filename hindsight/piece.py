"""A piece of history while it is learned: its closes, what the tables know of them, and what is to be written.

Pieces are cut on the time grid, so that no result depends on where a run began.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import duckdb
import numpy as np

from hindsight.configured import shape_of
from hindsight.inference.completeness import Completeness
from hindsight.market.streams import Stream
from hindsight.promote import Champion
from hindsight.recall import Market, Proof, recall_market, recall_memory
from hindsight.recall_blocks import Shared
from hindsight.settings import Settings
from hindsight.store.warehouse import Warehouse
from hindsight.training.loop import Learned
from hindsight.training.memory import Memory

CHUNK = 2880  # candles
Clock = Callable[[], datetime]


@dataclass(slots=True, kw_only=True)
class Subject:
    """Who learns what, and which checkpoint serves meanwhile."""

    settings: Settings
    stream: Stream
    model: str
    clock: Clock | None
    warehouse: Warehouse
    shared: Shared | None = None  # with the other models of the stream, where they are taught in one call
    champion: Champion | None = None
    proven: set[int] = field(default_factory=set)  # rows whose reference was held against its digest in this call
    refused: set[int] = field(default_factory=set)  # and those that no longer match

    @property
    def now(self) -> datetime | None:
        """The venue's time, for a live call."""
        return self.clock() if self.clock else None


@dataclass(slots=True, kw_only=True)
class Piece:
    """The closes of rows [first, end) while they are learned: what the tables know, and what is to be written."""

    first: int
    end: int
    market: Market
    memory: Memory
    proof: Proof
    there: Completeness
    stored: np.ndarray  # [N] the reference stands in the table
    learned: Learned = field(default_factory=Learned)


def end_of_piece(settings: Settings, first: int, last: int) -> int:
    """A piece ends on the grid, and where the challenger is held against the champion."""
    return min(*((first // grid + 1) * grid for grid in (CHUNK, settings.promote_every)), last)


def pieces(subject: Subject, piece: Piece | None, last: int) -> Iterator[Piece]:
    """The pieces from `piece` on, each brought back when the one before it is written."""
    while piece is not None:
        yield piece
        first, piece = piece.end, None  # the arrays go before the next ones come
        if first < last:
            with subject.warehouse.reading() as con:
                piece = recall_piece(con, subject, first, end_of_piece(subject.settings, first, last))


def recall_piece(con: duckdb.DuckDBPyConnection, subject: Subject, first: int, end: int) -> Piece:
    """The rows [first, end) as the tables stand."""
    settings, stream, model = subject.settings, subject.stream, subject.model
    shape = shape_of(settings, stream, model)
    market = recall_market(con, settings, model, stream, shape, first, end, shared=subject.shared)
    memory, proof, there = recall_memory(con, model, stream, market, first)
    proof.carry(memory, subject.proven, subject.refused)
    return Piece(
        first=first, end=end, market=market, memory=memory, proof=proof, there=there, stored=memory.made.copy()
    )
