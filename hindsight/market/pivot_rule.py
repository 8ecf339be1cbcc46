"""The pivot rule itself, in the part of Python that numba compiles: arrays, numbers and loops (DESIGN §5).

The same function runs plain for a candle and compiled for a year; all it remembers is in the arrays it is given.

Legend: level 0..4 is level 1..5; side 0 is low, 1 is high; of the two places kept per level and side, 0 is the earlier
neighbour and 1 the candidate.
Source: L. Williams, Long-Term Secrets to Short-Term Trading, ch. 1 (market structure), with ties and inside bars fixed
as in DESIGN §5.
"""

import numpy as np


def walk(
    open_ms: np.ndarray,
    open_: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    atr: np.ndarray,
    step_ms: int,
    max_gap: int,
    clock: np.ndarray,
    edge: np.ndarray,
    held: np.ndarray,
    after_gap: np.ndarray,
    value: np.ndarray,
    time: np.ndarray,
    row: np.ndarray,
    places: np.ndarray,
    figures: np.ndarray,
) -> int:
    """How many pivots the candles confirmed; their places and figures are written into the last two arrays.

    Carried and changed in place: `clock` (candles seen, open_ms of the last), `edge` (its low and high), `held` [5, 2]
    (neighbours known, at most 2), `after_gap` [5, 2], and `value`, `time`, `row` [5, 2, 2] of those neighbours.
    Written: `places` [n, 8] = level, side, pivot_ms, open_ms of the confirming candle, candles left, candles right,
    warmup, after_gap; `figures` [n, 2] = price, strength.
    """
    found = 0
    for i in range(len(open_ms)):
        is_first = clock[0] == 0
        if not is_first and (open_ms[i] - clock[1]) // step_ms - 1 > max_gap:
            # Nobody knows what turned in there: level 1 starts over, and this candle has no predecessor.
            held[0, :] = 0
            after_gap[:, :] = 1
            is_first = True
        is_inside = not is_first and high[i] <= edge[1] and low[i] >= edge[0]
        clock[0] += 1
        clock[1] = open_ms[i]
        edge[0] = low[i]
        edge[1] = high[i]
        if is_inside:
            continue
        # A candle that closed up is taken to have made its low first.
        first = 0 if close[i] > open_[i] else 1
        for side in (first, 1 - first):
            c_value = high[i] if side == 1 else low[i]
            c_time = open_ms[i]
            c_row = clock[0]
            for level in range(5):
                known = held[level, side]
                b_value = value[level, side, 1]
                if known > 0 and c_value == b_value:
                    break  # a run of equals is its earliest member
                a_value = value[level, side, 0]
                b_time = time[level, side, 1]
                b_row = row[level, side, 1]
                if side == 1:
                    is_pivot = known == 2 and b_value > a_value and b_value > c_value
                else:
                    is_pivot = known == 2 and b_value < a_value and b_value < c_value
                if is_pivot:
                    is_warm = atr[i] > 0  # false for NaN too
                    places[found, 0] = level + 1
                    places[found, 1] = side
                    places[found, 2] = b_time
                    places[found, 3] = open_ms[i]
                    places[found, 4] = b_row - row[level, side, 0]
                    places[found, 5] = c_row - b_row
                    places[found, 6] = 0 if is_warm else 1
                    places[found, 7] = after_gap[level, side]
                    figures[found, 0] = b_value
                    figures[found, 1] = min(abs(b_value - a_value), abs(b_value - c_value)) / atr[i] if is_warm else 0.0
                    after_gap[level, side] = 0
                    found += 1
                value[level, side, 0] = b_value
                value[level, side, 1] = c_value
                time[level, side, 0] = b_time
                time[level, side, 1] = c_time
                row[level, side, 0] = b_row
                row[level, side, 1] = c_row
                held[level, side] = min(known + 1, 2)
                if not is_pivot:
                    break
                # The pivot is the next member of the stream one level up.
                c_value = b_value
                c_time = b_time
                c_row = b_row
    return found
