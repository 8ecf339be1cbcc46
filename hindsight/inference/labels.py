"""Labels: what the market answered to a reference made at each close, and at which close that became known.

Legend: N references, one per tape row from `first_row` on; K the four pivot types of PIVOT_TARGETS.

Labels depend on the market alone, so they are computed for whole ranges at once; a label may be *used* only at a close
at or after its `*_settled` row. All rows are as first known: a later correction changes no answer.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.inference.frames import COLUMN, Frames
from hindsight.market.trend_lines import trend_codes

PIVOT_TARGETS = ("L2L", "L2H", "L3L", "L3H")
PENDING = np.iinfo(np.int64).max
VALIDATED, EXPIRED, UNUSABLE = 0, 1, 2

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendRule:
    """How a trend is told from flat, and when an unsettled one expires."""

    flat_fraction: float = 1.0
    trend_ttl: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleLabels:
    """The first candle that opens at or after made_at. Settled rows are PENDING until it has closed."""

    settled: Ints  # [N]
    usable: NDArray[np.bool_]  # [N]; not usable: the candle is missing and only its successor was delivered
    log_returns: Frames  # [N, 4] of open, high, low, close against the last close


@dataclass(frozen=True, slots=True, kw_only=True)
class PivotLabels:
    """The first pivot of each type with pivot_time >= made_at."""

    settled: Ints  # [N, K]
    usable: NDArray[np.bool_]  # [N, K]
    row: Ints  # [N, K] of the extreme candle
    log_return: Frames  # [N, K] to its price
    candles: Ints  # [N, K] to it: 1 is the target candle
    next_type: NDArray[np.int8]  # [N]: 0 the next confirmed L2 pivot is a low, 1 a high, -1 pending


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendLabels:
    """The line through the first two L2 pivots of one side, both with pivot_time >= made_at."""

    settled: Ints  # [N], never falling: those that an event settles lie in one piece
    status: NDArray[np.int8]  # [N] VALIDATED, EXPIRED or UNUSABLE
    trend: NDArray[np.int8]  # [N] 0 down, 1 sideways, 2 up; -1 where not validated
    side: NDArray[np.int8]  # [N] 0 low, 1 high
    start_row: Ints  # [N]
    end_row: Ints  # [N]
    start_price: NDArray[np.float64]  # [N]
    end_price: NDArray[np.float64]  # [N]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """All labels of the references made at the closes of rows first_row, first_row + 1, …"""

    first_row: int
    candle: CandleLabels
    pivot: PivotLabels
    trend: TrendLabels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pivots:
    """The pivots of one type in the order of confirmation, as rows of the tape."""

    row: Ints
    confirmed_row: Ints
    order: Ints  # position in the emission of all types
    price: NDArray[np.float64]


def label(first_row: int, rows: Frames, pivots: pl.DataFrame, step_ms: int, rule: TrendRule) -> Labels:
    """Labels for every row of `rows` [N, F], as first known; `pivots` are all that were confirmed by their end, and
    none that was confirmed later."""
    missing = np.isnan(rows[:, COLUMN["open"]])
    missing_before = np.concatenate([[0], np.cumsum(missing)])
    by_type = {name: _of_type(pivots, name, step_ms) for name in PIVOT_TARGETS}
    return Labels(
        first_row=first_row,
        candle=candle_labels(first_row, rows),
        pivot=_pivot_labels(first_row, rows, by_type, missing_before),
        trend=_trend_labels(first_row, rows, by_type, missing_before, rule),
    )


def _of_type(pivots: pl.DataFrame, pivot_type: str, step_ms: int) -> _Pivots:
    chosen = pivots.with_row_index("order").filter(pl.col("pivot_type") == pivot_type)
    return _Pivots(
        row=chosen["pivot_time"].dt.epoch("ms").to_numpy() // step_ms,
        confirmed_row=chosen["confirmed_at"].dt.epoch("ms").to_numpy() // step_ms - 1,
        order=chosen["order"].cast(pl.Int64).to_numpy(),
        price=chosen["price"].to_numpy(),
    )


def candle_labels(first_row: int, rows: Frames) -> CandleLabels:
    """The candle that answers each row of `rows` [N, F], as first known."""
    count, missing = len(rows), np.isnan(rows[:, COLUMN["open"]])
    present = np.flatnonzero(~missing)
    following = np.searchsorted(present, np.arange(count), side="right")  # the first candle delivered after each row
    arrived = following < len(present)
    target = np.where(arrived, present[np.minimum(following, len(present) - 1)] if len(present) else 0, 0)
    ohlc = rows[:, [COLUMN[name] for name in ("open", "high", "low", "close")]].astype(np.float64)
    log_returns = np.log(ohlc[target] / ohlc[:, 3:])
    return CandleLabels(
        settled=np.where(arrived, first_row + target, PENDING),
        usable=arrived & (target == np.arange(count) + 1) & ~missing,
        log_returns=log_returns.astype(np.float32),
    )


def _pivot_labels(first_row: int, rows: Frames, by_type: dict[str, _Pivots], missing_before: Ints) -> PivotLabels:
    count, kinds = len(rows), len(PIVOT_TARGETS)
    index = np.arange(count)
    close = rows[:, COLUMN["close"]].astype(np.float64)
    settled = np.full((count, kinds), PENDING)
    order = np.full((count, kinds), PENDING)
    row = np.zeros((count, kinds), np.int64)
    log_return = np.full((count, kinds), np.nan, np.float32)
    for kind, name in enumerate(PIVOT_TARGETS):
        of_type = by_type[name]
        nth, known = _first_from(of_type, first_row + index + 1)
        settled[known, kind] = of_type.confirmed_row[nth[known]]
        order[known, kind] = of_type.order[nth[known]]
        row[known, kind] = of_type.row[nth[known]]
        log_return[known, kind] = np.log(of_type.price[nth[known]] / close[known])
    known = settled < PENDING
    last = np.where(known, settled - first_row, 0)
    holes = missing_before[np.minimum(last + 1, count)] - missing_before[index + 1][:, None]
    low, high = order[:, 0], order[:, 1]
    next_type = np.where(np.minimum(low, high) == PENDING, -1, np.where(low < high, 0, 1))
    return PivotLabels(
        settled=settled,
        usable=known & (holes == 0),
        row=row,
        log_return=log_return,
        candles=np.where(known, row - (first_row + index[:, None]), 0),
        next_type=next_type.astype(np.int8),
    )


def _trend_labels(
    first_row: int, rows: Frames, by_type: dict[str, _Pivots], missing_before: Ints, rule: TrendRule
) -> TrendLabels:
    count = len(rows)
    index = np.arange(count)
    best = np.full(count, PENDING)  # emission order of the completing pivot
    settled = np.full(count, PENDING)
    side = np.full(count, -1, np.int8)
    start_row, end_row = np.zeros(count, np.int64), np.zeros(count, np.int64)
    start_price, end_price = np.full(count, np.nan), np.full(count, np.nan)
    for code, name in enumerate(("L2L", "L2H")):
        of_type = by_type[name]
        nth, _ = _first_from(of_type, first_row + index + 1)
        complete = nth + 1 < len(of_type.row)
        second = np.where(complete, nth + 1, 0)
        if not complete.any():
            continue
        earlier = complete & (of_type.order[second] < best)
        first = second[earlier] - 1
        best[earlier] = of_type.order[second[earlier]]
        settled[earlier] = of_type.confirmed_row[second[earlier]]
        side[earlier] = code
        start_row[earlier], end_row[earlier] = of_type.row[first], of_type.row[second[earlier]]
        start_price[earlier], end_price[earlier] = of_type.price[first], of_type.price[second[earlier]]
    deadline = first_row + index + rule.trend_ttl
    expired = settled > deadline
    settled = np.where(expired, np.where(deadline < first_row + count, deadline, PENDING), settled)
    holes = missing_before[np.minimum(settled - first_row, count - 1) + 1] - missing_before[index + 1]
    status = np.where(holes > 0, UNUSABLE, np.where(expired, EXPIRED, VALIDATED)).astype(np.int8)
    atr = rows[:, COLUMN["atr_14"]].astype(np.float64)
    trend = np.full(count, -1, np.int8)
    gradable = (status == VALIDATED) & (settled < PENDING) & np.isfinite(atr)
    trend[gradable] = trend_codes((end_price - start_price)[gradable], atr[gradable], rule.flat_fraction)
    return TrendLabels(
        settled=settled,
        status=status,
        trend=trend,
        side=side,
        start_row=start_row,
        end_row=end_row,
        start_price=start_price,
        end_price=end_price,
    )


def _first_from(of_type: _Pivots, rows: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """For each row the position of the first pivot at or after it, and whether there is one."""
    nth = np.searchsorted(of_type.row, rows, side="left")
    return nth, nth < len(of_type.row)
