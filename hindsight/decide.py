"""Decide: the verb that makes one decision of what all models said at a close. Backfill and live are this verb.

At the close of row r the gate knows the answers that came at closes before r, from the market's own candles; so a
decision waits for the models' predictions and for nothing that is learned from them. How far the decisions have come
stands in the gate's state, which moves in one transaction with them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.configured import decision_rule
from hindsight.inference.decisions import Decisions
from hindsight.inference.decisions import decide as act
from hindsight.inference.frames import COLUMN, Tape
from hindsight.inference.gate_state import GateState
from hindsight.inference.labels import candle_labels
from hindsight.inference.mixture import CONTEXT, Closes, GateRule, Mixed, Numbers, Rows, mix
from hindsight.market.candles import TIME
from hindsight.market.streams import EPOCH, Stream, Window, from_ms, to_ms
from hindsight.recall_blocks import Shared, deadline, given_up
from hindsight.settings import Settings
from hindsight.store import tape as tapes
from hindsight.store.book_tables import books_known_at
from hindsight.store.decision_tables import append_decisions, first_opinion, read_gate, read_opinions
from hindsight.store.inference_tables import predicted_until
from hindsight.store.market_tables import pivot_mark
from hindsight.store.warehouse import Warehouse
from hindsight.teaching import LIVE_PATIENCE_SECONDS, taught_by_us

AT_ONCE = 20_000  # closes in one transaction
DAY_MS = 86_400_000
# A decision reads the book as it was known so long before its close. Live, the row of the last second may be stored
# after the close is decided, and a backfill, which finds it, must read no more than that. Of a row that is later still
# the decision knew nothing: it stands as it was made, and the gate learns from it by what it read then, which its state
# keeps. Only a gate that is made anew finds such a row.
BOOK_LAG_MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideReport:
    """How many closes were decided, and the last one."""

    decided: int = 0
    until: datetime | None = None

    def and_then(self, later: "DecideReport") -> "DecideReport":
        """What both did."""
        return DecideReport(decided=self.decided + later.decided, until=later.until or self.until)


def decide(
    settings: Settings,
    stream: Stream,
    until: datetime | None = None,
    clock: Callable[[], datetime] | None = None,
    shared: Shared | None = None,
) -> DecideReport:
    """Decides every close at which all models have predicted, or that a model has let pass. Again, nothing changes.

    A model that has not predicted is waited for; with the venue's `clock`, no longer than its deadline. `shared` is
    what the stream's models have in common in the call; where its tape does not reach, it is read again.
    """
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)
    decided, last, first = 0, None, 0
    with taught_by_us(settings, stream, "gate", LIVE_PATIENCE_SECONDS if clock else None):
        is_done = False
        while not is_done:
            with warehouse.writing() as con:  # to mix takes less than a second turn would
                due = _due(con, settings, stream, first, until, clock() if clock else None, shared)
                if due is None:
                    break
                before, state, rows, is_done = due
                state, mixed = mix(
                    state, _closes(con, settings, stream, state, rows, shared.tape if shared else None), GateRule()
                )
                first = int(rows[-1]) + 1
                if not len(mixed.rows):  # no candle closed at any of them
                    continue
                records = _records(settings, stream, mixed, state.models)
                append_decisions(con, stream, records, before, state.to_bytes())
            decided, last = decided + len(records), records["made_at"][-1]
    return DecideReport(decided=decided, until=last)


def _due(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    first: int,
    until: datetime | None,
    now: datetime | None,
    shared: Shared | None,
) -> tuple[bytes | None, GateState, np.ndarray, bool] | None:
    """The gate as it stands, the next rows from `first` on that it is to decide, and whether those are all; None where
    there are none."""
    mark, before = pivot_mark(con, stream), read_gate(con, stream)
    opened = first_opinion(con, stream) if before is None else EPOCH
    if mark is None or opened is None:
        return None
    names = tuple(feature.name for feature in CONTEXT)
    models = tuple(sorted(settings.models))
    state = GateState.from_bytes(before).for_models(models, names) if before else GateState.initial(models, names)
    done = from_ms((state.last_row + 1) * stream.step_ms) if before else None
    end = min(mark.as_of, until or mark.as_of)
    for model in models:
        said = predicted_until(con, model, stream)
        passed = given_up(con, settings, stream, model, deadline(settings, stream), done, now, shared)
        if said is None and passed is None:
            return None
        end = min(end, max(each for each in (said, passed) if each is not None))
    first = max(first, state.last_row + 1, to_ms(opened) // stream.step_ms - 1)
    last = to_ms(end) // stream.step_ms
    rows = np.arange(first, min(last, first + AT_ONCE))
    rows = rows[(rows + 1) % settings.predict_every == 0]
    return (before, state, rows, last <= first + AT_ONCE) if len(rows) else None


def _closes(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    stream: Stream,
    state: GateState,
    rows: np.ndarray,
    tape: Tape | None,
) -> Closes:
    """What the gate is to know of the closes of `rows`, and of those before that wait for their answers."""
    asked = np.unique(np.concatenate([state.as_arrays()[1]["row"], rows]))  # those before wait for their answers
    start, end, step_ms = int(asked[0]), int(asked[-1]) + 1, stream.step_ms
    span = Window(start=from_ms(start * step_ms), end=from_ms(end * step_ms))
    if tape is None or tape.first_row > start or tape.end_row < end:
        mark = pivot_mark(con, stream)
        assert mark is not None
        tape = tapes.load(con, settings.tape_path, stream, span, mark.since)
    known = tape.first_known(start, end)
    label = candle_labels(start, known)
    moved = label.usable & (label.log_returns[:, 3] != 0)
    asked = asked[~np.isnan(known[asked - start, COLUMN["open"]])]  # where no candle closed, nothing is decided
    at = asked - start
    buy, scale = _opinions(con, stream, state.models, span, asked)
    return Closes(
        rows=asked,
        buy=buy,
        context=context_at(con, stream, asked, scale),
        up=np.where(moved, label.log_returns[:, 3] > 0, -1).astype(np.int8)[at],
        settled=label.settled[at],
    )


def _opinions(
    con: duckdb.DuckDBPyConnection, stream: Stream, models: tuple[str, ...], span: Window, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each model said at each close [N, M], and the return scale of the frames [N]; NaN where nobody spoke."""
    buy = np.full((len(asked), len(models)), np.nan, np.float32)
    scale = np.full(len(asked), np.nan, np.float32)
    opinions = read_opinions(con, stream, models, span)
    rows = opinions["made_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1
    at = np.searchsorted(asked, rows)
    there = (at < len(asked)) & (asked[np.minimum(at, len(asked) - 1)] == rows)
    column = opinions["model"].replace_strict({name: place for place, name in enumerate(models)}).to_numpy()
    buy[at[there], column[there]] = opinions["buy"].to_numpy()[there]
    scale[at[there]] = opinions["scale"].to_numpy()[there]
    return buy, scale


def context_at(con: duckdb.DuckDBPyConnection, stream: Stream, rows: Rows, scale: Numbers) -> NDArray[np.float64]:
    """The features of CONTEXT [N, C] as known at the close of each row; NaN: unknown. `scale` [N] is of the returns.

    The book is read wherever it is recorded, whether frames hold it or not, as it was known BOOK_LAG_MS before a close.
    """
    made_ms = (rows + 1) * stream.step_ms
    angle = 2 * math.pi * (made_ms % DAY_MS) / DAY_MS
    books = books_known_at(con, stream, made_ms - BOOK_LAG_MS)
    spread, imbalance = (books[name].fill_null(np.nan).to_numpy() for name in ("relative_spread", "imbalance"))
    features = {
        "volatility": np.log(scale),
        "spread": np.log(np.where(spread > 0, spread, np.nan)),  # where venues overlap there is none to speak of
        "imbalance": imbalance,
        "day_sine": np.sin(angle),
        "day_cosine": np.cos(angle),
    }
    return np.column_stack([features[feature.name] for feature in CONTEXT]).astype(np.float64)


def _records(settings: Settings, stream: Stream, mixed: Mixed, models: tuple[str, ...]) -> pl.DataFrame:
    """The rows of `decisions`."""
    rule = decision_rule(settings)
    decided: Decisions = act(mixed.probability, rule)
    count = len(mixed.rows)
    return pl.DataFrame(
        {
            "made_at": pl.Series((mixed.rows + 1) * stream.step_ms * 1000, dtype=pl.Int64).cast(TIME),
            "action": decided.names(),
            "probability": pl.Series(mixed.probability, dtype=pl.Float32).fill_nan(None),
            "mixture": pl.Series(mixed.mixture, dtype=pl.Float32).fill_nan(None),
            "used": mixed.used_names(models),
            "models": pl.Series([list(models)] * count, dtype=pl.List(pl.String)),
            "contributions": pl.Series(mixed.weights.tolist(), dtype=pl.List(pl.Float32)),
            "buy_threshold": pl.repeat(rule.buy_threshold, count, eager=True, dtype=pl.Float32),
            "sell_threshold": pl.repeat(rule.sell_threshold, count, eager=True, dtype=pl.Float32),
            "minimum_confidence": pl.repeat(rule.minimum_confidence, count, eager=True, dtype=pl.Float32),
            "reason": pl.Series(decided.reasons(), dtype=pl.String),
        }
    )
