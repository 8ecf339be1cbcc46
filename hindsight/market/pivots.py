"""Pivots: turning points of level 1..5 on each side, found candle by candle and never taken back (DESIGN §5).

| column | type | invariant |
|---|---|---|
| level, side | int, high or low | 1..5 |
| pivot_type | string | L2H = level 2, high |
| pivot_time | timestamp UTC | when true: open time of the extreme candle, the earliest of equals |
| price | float | the high or the low of that candle |
| strength | float | min(distance to the neighbour before, to the one after) / ATR14 at confirmation; 0 while `warmup` |
| confirmed_at | timestamp UTC | when known: close time of the candle that showed the turn; later than `pivot_time` |
| candles_left | int | candles from the neighbour before to the pivot, 1 when adjacent; missing candles do not count |
| candles_right | int | candles from the pivot to the neighbour after; above level 1 that lies before `confirmed_at` |
| warmup | bool | ATR14 was not warm at confirmation |
| after_gap | bool | first of its level and side since a gap longer than `max_gap` |
| rule_version | int | raised whenever the rule would find other pivots |

Neighbours are members of the same collapsed stream: candles at level 1, pivots of the level below above that.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, Self

import numpy as np
import polars as pl

from hindsight.market.candles import TIME
from hindsight.market.pivot_rule import walk

RULE_VERSION = 1
PIVOTS = pl.Schema(
    {
        "level": pl.Int8,
        "side": pl.String,
        "pivot_type": pl.String,
        "pivot_time": TIME,
        "price": pl.Float64,
        "strength": pl.Float64,
        "confirmed_at": TIME,
        "candles_left": pl.Int32,
        "candles_right": pl.Int32,
        "warmup": pl.Boolean,
        "after_gap": pl.Boolean,
        "rule_version": pl.Int8,
    }
)
# Below this many candles the rule runs as plain Python, because importing numba costs more than it saves.
COMPILED_FROM = 10_000

_STATE = np.dtype(
    [
        ("rule_version", "<i8"),
        ("clock", "<i8", (2,)),
        ("edge", "<f8", (2,)),
        ("held", "<i8", (5, 2)),
        ("after_gap", "<i8", (5, 2)),
        ("value", "<f8", (5, 2, 2)),
        ("time", "<i8", (5, 2, 2)),
        ("row", "<i8", (5, 2, 2)),
    ]
)


@dataclass(frozen=True, slots=True)
class PivotState:
    """Everything the rule carries from one candle to the next: the same bytes whatever the history was cut into."""

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != _STATE.itemsize:
            raise ValueError(f"a pivot state has {_STATE.itemsize} bytes, found {len(self.data)}")
        version = int(self.as_record()["rule_version"])
        if version != RULE_VERSION:
            raise ValueError(f"pivot state of rule version {version}, expected {RULE_VERSION}; rebuild the pivots")

    @classmethod
    def initial(cls) -> Self:
        """The state before the first candle."""
        record = np.zeros((), _STATE)
        record["rule_version"] = RULE_VERSION
        return cls(record.tobytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The state that `to_bytes` wrote. Raises ValueError for bytes of another size or rule version."""
        return cls(bytes(data))

    def to_bytes(self) -> bytes:
        """The state as bytes, the same on every machine."""
        return self.data

    def as_record(self) -> np.ndarray:
        """A writable copy of the state, as a numpy record."""
        return np.frombuffer(self.data, _STATE).copy()[0]


def advance(state: PivotState, candles: pl.DataFrame, step: timedelta, max_gap: int) -> tuple[PivotState, pl.DataFrame]:
    """The state after `candles`, and the pivots they confirmed, in the order of confirmation, in the columns of PIVOTS.

    `candles` has open_time, open, high, low, close and atr_14 (null while not warm): closed, sorted, later than any
    candle the state has seen. Raises ValueError where they are not. `state` itself is left as it was.
    """
    step_ms = step // timedelta(milliseconds=1)
    open_ms = candles["open_time"].cast(TIME).to_physical().to_numpy() // 1000
    record = state.as_record()
    _check_order(open_ms, record)
    columns = [_read_only(candles[name]) for name in ("open", "high", "low", "close", "atr_14")]
    # Of n candles at most n/2 become pivots of one side at level 1, n/4 at level 2, …; and one more per level and side
    # from what the state already holds.
    room = 2 * len(open_ms) + 16
    places, figures = np.empty((room, 8), np.int64), np.empty((room, 2), np.float64)
    rule: Any = _compiled() if len(open_ms) >= COMPILED_FROM else walk
    carried = [record[name] for name in ("clock", "edge", "held", "after_gap", "value", "time", "row")]
    found = rule(open_ms, *columns, step_ms, max_gap, *carried, places, figures)
    return PivotState(record.tobytes()), _as_frame(places[:found], figures[:found], step_ms)


@cache
def _compiled() -> Any:
    from numba import njit  # 0.4 s to import: only where it pays

    return njit(cache=True)(walk)


def _read_only(column: pl.Series) -> np.ndarray:
    # numba compiles anew for each mixture of writable and read-only arrays, and polars hands out both.
    numbers = np.ascontiguousarray(column.cast(pl.Float64).fill_null(np.nan).to_numpy()).view()
    numbers.flags.writeable = False
    return numbers


def _check_order(open_ms: np.ndarray, record: np.ndarray) -> None:
    if len(open_ms) == 0:
        return
    seen, last_ms = record["clock"]
    if seen and open_ms[0] <= last_ms:
        raise ValueError(f"candles start at {open_ms[0]} ms, but the state has already seen {last_ms} ms")
    if (np.diff(open_ms) <= 0).any():
        raise ValueError("candles must be sorted by open_time, each once")


def _as_frame(places: np.ndarray, figures: np.ndarray, step_ms: int) -> pl.DataFrame:
    level, is_high, pivot_ms, open_ms, left, right, warmup, after_gap = (np.ascontiguousarray(c) for c in places.T)
    side = pl.when(pl.col("is_high") == 1)
    return pl.DataFrame(
        {
            "level": level,
            "is_high": is_high,
            "pivot_time": pivot_ms * 1000,
            "price": np.ascontiguousarray(figures[:, 0]),
            "strength": np.ascontiguousarray(figures[:, 1]),
            "confirmed_at": (open_ms + step_ms) * 1000,
            "candles_left": left,
            "candles_right": right,
            "warmup": warmup == 1,
            "after_gap": after_gap == 1,
        }
    ).select(
        pl.col("level").cast(pl.Int8),
        side.then(pl.lit("high")).otherwise(pl.lit("low")).alias("side"),
        pl.format("L{}{}", "level", side.then(pl.lit("H")).otherwise(pl.lit("L"))).alias("pivot_type"),
        pl.col("pivot_time").cast(TIME),
        "price",
        "strength",
        pl.col("confirmed_at").cast(TIME),
        pl.col("candles_left", "candles_right").cast(pl.Int32),
        "warmup",
        "after_gap",
        pl.lit(RULE_VERSION, pl.Int8).alias("rule_version"),
    )
