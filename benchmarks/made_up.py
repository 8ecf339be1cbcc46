"""A made-up market in memory: blocks of any frame, labels, and the references that a learner remembers of them.

Of the predicted stream candles, indicators, pivots and labels are those that a random walk has; of all else only the
shape is right. There is as much of it as replay reaches back, so that everything weighs what it usually does.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from hindsight.configured import shape_of
from hindsight.inference.blocks import GATHERED, OUTPUT_COLUMNS, Blocks, Peer
from hindsight.inference.book_tape import BOOK_COLUMNS, BookTape
from hindsight.inference.frames import COLUMNS, Frames, Tape
from hindsight.inference.labels import Labels, TrendRule, label
from hindsight.inference.normalisation import norm_params
from hindsight.inference.pivot_history import PivotHistory
from hindsight.inference.predictions import SERVED, TREND, WIDTH, trend_predicted
from hindsight.inference.shape import FrameShape
from hindsight.inference.tape_rows import tape_rows
from hindsight.market.candles import TIME
from hindsight.market.indicators import compute
from hindsight.market.pivots import PivotState, advance
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.settings import Settings, load
from hindsight.training.memory import Memory
from hindsight.training.models.registry import model_of
from hindsight.training.transitions import EXTRAS

STANDARD, OWN = ("standard",), ("own", "pivots")
MODELS = ("cnn", "lstm", "transformer", "dqn")
START = datetime(2023, 3, 6, tzinfo=UTC)
WARM = timedelta(days=3)  # candles before the first reference
NEW = 1440  # closes after those that are remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The market, and the rows [first, now) at whose closes references have been made; it goes on for `new` more."""

    settings: Settings
    stream: Stream
    tapes: dict[tuple[str, str], Tape]  # by symbol and timeframe
    book: BookTape
    pivots: PivotHistory
    labels: Labels
    l2_rows: np.ndarray
    first: int
    now: int
    new: int

    def blocks(self, model: str) -> Blocks:
        """The blocks that this model's frames are gathered from."""
        shape, chance = shape_of(self.settings, self.stream, model), np.random.default_rng(2)
        count = self.now + self.new - self.first
        peers = [
            Peer(
                first_row=self.first,
                outputs=chance.random((count, len(OUTPUT_COLUMNS) - 1), np.float32),
                hidden=chance.standard_normal((count, read.width), np.float32),
            )
            for read in shape.reads
        ]
        return Blocks(
            shape=shape,
            tapes=[self.tapes[block.symbol, block.timeframe] for block in shape.candles],
            book=self.book if shape.book else None,
            pivots=self.pivots,
            peers=peers,
        )

    def memory(self, model: str) -> Memory:
        """What the learner remembers: a reference at every close before `now`."""
        kind, chance, count = model_of(model), np.random.default_rng(3), self.now + self.new - self.first
        made = np.arange(count) < self.now - self.first
        predictions = chance.random((count, WIDTH), np.float32)
        predictions[:, TREND] /= predictions[:, TREND].sum(axis=1, keepdims=True)
        extras = chance.random((count, len(kind.extras)), np.float32)
        if kind.extras == EXTRAS:
            action = chance.integers(0, 3, count + 1)
            extras[:, 0], extras[:, 1] = action[:-1], action[1:]
        return Memory(
            first_row=self.first,
            predictable=np.ones(count, np.bool_),
            norm_params=self._norm_params(),
            made=made,
            trusted=np.ones(count, np.bool_),
            predictions=predictions,
            hidden=np.zeros((count, kind.config.width), np.float16),
            extras=extras,
            served=np.full((count, len(SERVED)), np.nan, np.float32),
            served_by=np.full(count, -1, np.int32),
            trend=trend_predicted(predictions),
            checkpoint=np.zeros(count, np.int32),
            uses=chance.integers(0, 13, count).astype(np.int16),
            trained_as_candle=self.now - 1,
        )

    def _norm_params(self) -> Frames:
        own = self.tapes[self.stream.symbol, self.stream.timeframe]
        rows = np.arange(self.first, self.now + self.new)
        parts = np.array_split(rows, -(-len(rows) // GATHERED))
        return np.concatenate([norm_params(own.gather(part, self.settings.lookback)) for part in parts])


def scene(frame: tuple[str, ...], new: int = NEW) -> Scene:
    """The market of frames of these entries, of which ETH/USDT 1m is predicted."""
    timeframes = ("1m", "1s", "1h", "1d") if frame == STANDARD else ("1m",)
    settings = load(frame=frame, timeframes=timeframes, predicted=("ETH/USDT 1m",), models=MODELS, device="cpu")
    (stream,) = settings.predicted_streams
    chance = np.random.default_rng(1)
    first = to_ms(START + WARM) // stream.step_ms
    now = first + settings.replay_window
    candles = _random_walk(chance, stream, now + new - to_ms(START) // stream.step_ms)
    window = Window(start=START, end=START + stream.step * len(candles))
    indicators = compute(candles, window, stream.step)
    turning = candles.join(indicators.select("open_time", "atr_14"), on="open_time", maintain_order="left")
    _, pivots = advance(PivotState.initial(), turning, stream.step, settings.max_gap)
    rows = tape_rows(candles, pivots, window, stream)
    own = Tape(step_ms=stream.step_ms, first_row=to_ms(START) // stream.step_ms, rows=rows)
    shape = shape_of(settings, stream, "cnn")
    seconds = (now + new - first) * stream.step_ms // 1000 + shape.book
    l2 = pivots.filter(pl.col("level") == 2)["confirmed_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1
    return Scene(
        settings=settings,
        stream=stream,
        tapes={(stream.symbol, stream.timeframe): own} | _others(chance, shape, first, now + new),
        book=BookTape(
            first_row=first * stream.step_ms // 1000 - shape.book,
            rows=chance.random((seconds if shape.book else 0, len(BOOK_COLUMNS)), np.float32) + np.float32(1),
        ),
        pivots=PivotHistory.of(pivots, None, stream.step_ms),
        labels=label(first, own.rows[first - own.first_row :], pivots, stream.step_ms, TrendRule()),
        l2_rows=l2,
        first=first,
        now=now,
        new=new,
    )


def _random_walk(chance: np.random.Generator, stream: Stream, count: int) -> pl.DataFrame:
    close = 1600 * np.exp(5e-4 * chance.standard_normal(count).cumsum())
    open_ = np.concatenate([close[:1], close[:-1]])
    beyond = 1 + 2e-4 * chance.random((2, count))
    times = pl.datetime_range(START, START + (count - 1) * stream.step, stream.step, eager=True).cast(TIME)
    return pl.DataFrame(
        {
            "open_time": times,
            "open": open_,
            "high": np.maximum(open_, close) * beyond[0],
            "low": np.minimum(open_, close) / beyond[1],
            "close": close,
            "volume": chance.random(count) * 100,
        }
    )


def _others(chance: np.random.Generator, shape: FrameShape, first: int, end: int) -> dict[tuple[str, str], Tape]:
    """Candles of all other blocks, as far as frames of own rows [first, end) reach; no value is 0."""
    found = {}
    for block in shape.candles[1:]:
        start = (first + 1) * shape.own.step_ms // block.step_ms - block.length
        count = end * shape.own.step_ms // block.step_ms - start
        rows = chance.random((count, len(COLUMNS)), np.float32) + np.float32(1)
        found[block.symbol, block.timeframe] = Tape(step_ms=block.step_ms, first_row=start, rows=rows)
    return found
