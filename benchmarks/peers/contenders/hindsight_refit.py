"""Hindsight: new weights of the default model, fitted in one shuffled pass over days of candles, and saved."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

from benchmarks.homes import ETH, MODEL, settings_in, warehouse_in
from benchmarks.real_trial import fit
from hindsight.configured import device_of, hyperparameters, schema_of, shape_of
from hindsight.exchange.sources import open_source
from hindsight.market.streams import Window, from_ms
from hindsight.recall import recall_market, recall_memory
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.retain import save_snapshots
from hindsight.training.learner import new_learner, tensors_of
from hindsight.training.loop import Snapshot
from hindsight.training.metrics import Measured

WARM_UP = timedelta(days=1)  # candles before those that are fitted: frames and indicators reach back


def prepare(end_ms: int, days: int, batch_size: int, lookback: int, threads: int):
    """The work: indicators, pivots, labels, frames, a step on every batch, and a checkpoint. Candles are in the tables.

    Every candle of the `days` before `end_ms` whose answer is known by then is trained on once.
    """
    home, end = Path.cwd() / "home", from_ms(end_ms)
    settings = settings_in(
        home, symbols=(ETH.symbol,), models=(MODEL,), device="cpu", batch_size=batch_size, lookback=lookback,
        threads=threads,
    )  # fmt: skip
    warehouse, window = warehouse_in(home), Window(start=end - timedelta(days=days) - WARM_UP, end=end)
    record_candles(warehouse, open_source(settings), ETH, window, end)
    settings.checkpoints_path.mkdir(parents=True)

    def work() -> dict[str, object]:
        torch.set_num_threads(settings.threads)
        record_indicators(warehouse, ETH, window)
        record_pivots(warehouse, ETH, end, max_gap=settings.max_gap)
        first, last = (int(moment.timestamp()) // 60 for moment in (window.start, end))
        shape = shape_of(settings, ETH, MODEL)
        with warehouse.reading() as con:
            market = recall_market(con, settings, MODEL, ETH, shape, first, last)
            memory, _, _ = recall_memory(con, MODEL, ETH, market, first)
        memory.made |= memory.predictable
        learner = new_learner(MODEL, hyperparameters(settings), device_of(settings), shape)
        rows = np.flatnonzero(memory.made & market.labels.candle.usable) + memory.first_row
        answered = market.labels.candle.settled[rows - memory.first_row] < last
        rows = rows[answered & (rows >= last - days * 1440)]
        fit(learner, market, memory, rows, last - 1, batch_size=batch_size, passes=1)
        taken = Snapshot(
            number=learner.number, event_row=last - 1, tensors=tensors_of(learner), measured=Measured(np.nan, 0)
        )
        save_snapshots(settings, ETH, MODEL, learner, [taken], schema_of(settings, ETH, MODEL))
        return {
            "rows": len(rows),
            "steps": learner.number,
            "weights": sum(each.numel() for each in learner.model.parameters()),
            "inside": learner.seconds_inside,
        }

    return work
