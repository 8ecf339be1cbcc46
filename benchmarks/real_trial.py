"""A trial: the models on real candles, each learning in several ways on the same closes. What is run, and kept.

What is learned stays in the trial's cache: run again, it goes on where it was stopped, and with a later end it learns
only what is new.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.homes import CANDLES, record
from hindsight.configured import device_of, hyperparameters, shape_of
from hindsight.learn import learn
from hindsight.market.streams import Window, from_ms, to_ms
from hindsight.recall import Market, recall_market, recall_memory
from hindsight.settings import Settings, load
from hindsight.store.market_tables import pivot_mark
from hindsight.store.warehouse import Warehouse
from hindsight.training.learner import Learner, new_learner
from hindsight.training.loop import train
from hindsight.training.memory import Memory
from hindsight.training.predict import AT_ONCE, forward
from hindsight.training.replay import Draw, step_seed

HINDSIGHT, WITHOUT_REPLAY, FROZEN, REFIT = "in hindsight", "without replay", "frozen", "refit"
OVERRIDES: dict[str, dict[str, object]] = {HINDSIGHT: {}, WITHOUT_REPLAY: {"max_uses": 1}}
NONE_DRAWN = Draw(rows=np.empty(0, np.int64), high=0, weight_normal=1.0, weight_high=1.0)
MOST = 10_000_000  # the largest `promote_every`


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is compared: one market, a window, and how often models predict and learn in it."""

    symbol: str
    since: datetime
    until: datetime
    frozen_at: datetime
    predict_every: int
    train_every: int
    batch_size: int
    weight_decay: float
    models: tuple[str, ...]
    refit_every: timedelta
    refit_on: timedelta
    passes: int
    cache: Path

    def settings(self, way: str) -> Settings:
        """The settings of the home in which that way is learned; `frozen` and `refit` stand in that of `in hindsight`.

        It is named after all that what is learned depends on, but for the end.
        """
        own = OVERRIDES.get(way, {})
        cadence = f"every {self.predict_every} {self.train_every} {self.batch_size} decay {self.weight_decay:g}"
        named = f"{self.symbol.replace('/', '')} {self.since:%Y%m%d} frozen {self.frozen_at:%Y%m%d} {cadence}"
        return load(
            home=self.cache / "-".join((named, *map(str, own.values()))).replace(" ", "-"),
            source=f"archive:{CANDLES}",
            symbols=(self.symbol,),
            models=self.models,
            predict_every=self.predict_every,
            train_every=self.train_every,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            promote_every=_one_look_at(self.frozen_at),
            device="cpu",
            **own,
        )

    @property
    def refits(self) -> list[Window]:
        """The stretches that a refit predicts, the last one cut at the end."""
        starts = [self.frozen_at]
        while starts[-1] + self.refit_every < self.until:
            starts.append(starts[-1] + self.refit_every)
        return [Window(start=start, end=min(start + self.refit_every, self.until)) for start in starts]


def _one_look_at(moment: datetime) -> int:
    """A `promote_every` of minutes on whose grid `moment` lies, and nothing else for years around it."""
    minutes = to_ms(moment) // 60_000
    parts = next(parts for parts in range(1, 100) if minutes % parts == 0 and minutes // parts <= MOST)
    return minutes // parts


def learn_in_loop(trial: Trial, way: str, model: str, say: Callable[[str], None]) -> None:
    """Takes one model through the loop up to the end of the trial; what it has learned already, it keeps."""
    settings = trial.settings(way)
    stream = settings.streams[0]
    record(settings.home, stream, Window(start=trial.since, end=trial.until))
    began, processor = time.perf_counter(), time.process_time()
    report = learn(settings, stream, model, trial.until)
    if report.closes:
        took = (report.closes, report.steps, time.perf_counter() - began, time.process_time() - processor)
        _note(settings, way, model, *took, say)


def refit(trial: Trial, model: str, say: Callable[[str], None]) -> None:
    """Predicts every stretch with weights fitted before it began, and keeps what they said beside the home."""
    settings = trial.settings(REFIT)
    due = [each for each in trial.refits if not is_said(trial, model, each)]
    if not due:
        return
    market, memory = recalled(settings, model, trial.until)
    for stretch in due:
        began, processor = time.perf_counter(), time.process_time()
        rows, said, steps = _refit(trial, settings, model, market, memory, stretch)
        file = refit_file(trial, model, stretch)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file.with_suffix(".unfinished.npz"), rows=rows, said=said)
        file.with_suffix(".unfinished.npz").rename(file)
        closes = (stretch.end - stretch.start) // settings.streams[0].step
        took = (closes, steps, time.perf_counter() - began, time.process_time() - processor)
        _note(settings, REFIT, model, *took, say)


def _refit(
    trial: Trial, settings: Settings, model: str, market: Market, memory: Memory, stretch: Window
) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows [N] of the stretch, what new weights say at them [N, 17], and the steps that these took."""
    step_ms, blocks, labels = settings.streams[0].step_ms, market.blocks, market.labels
    first, end = (to_ms(moment) // step_ms for moment in (stretch.start, stretch.end))
    oldest = first - trial.refit_on // timedelta(milliseconds=step_ms)
    learner = new_learner(model, hyperparameters(settings), device_of(settings), blocks.shape)
    made = np.flatnonzero(memory.made) + memory.first_row
    known = made[(made >= oldest) & (labels.candle.settled[made - memory.first_row] < first)]
    fit(learner, market, memory, known, first - 1, batch_size=trial.batch_size, passes=trial.passes)
    asked = made[(made >= first) & (made < end)]
    said = [
        forward(learner, blocks.gather(part, memory.norm_params[part - memory.first_row])).predictions
        for part in np.array_split(asked, max(1, -(-len(asked) // AT_ONCE)))
    ]
    return asked, np.concatenate(said), learner.number


def fit(
    learner: Learner, market: Market, memory: Memory, rows: np.ndarray, event_row: int, *, batch_size: int, passes: int
) -> None:
    """Takes the loop's training step on every whole batch of the references at `rows`, in shuffled passes, with every
    answer that was known at the close of `event_row`."""
    chance = np.random.Generator(np.random.PCG64(step_seed(learner.hyper.seed, event_row + 1, "candle")))
    for _ in range(passes):
        shuffled = chance.permutation(rows)
        for at in range(0, len(rows) - batch_size + 1, batch_size):
            chosen = np.sort(shuffled[at : at + batch_size])
            train(learner, market.blocks, market.labels, memory, chosen, NONE_DRAWN, event_row, "pivot")


def recalled(settings: Settings, model: str, until: datetime) -> tuple[Market, Memory]:
    """The market from its first candle to `until`, and the references that the loop has made in it."""
    stream = settings.streams[0]
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=60)
    with warehouse.reading() as con:
        mark = pivot_mark(con, stream)
        if mark is None:
            raise RuntimeError(f"{settings.home} holds no pivots of {stream}")
        first, end = to_ms(mark.since) // stream.step_ms, to_ms(until) // stream.step_ms
        market = recall_market(con, settings, model, stream, shape_of(settings, stream, model), first, end)
        memory, _, _ = recall_memory(con, model, stream, market, end)
    return market, memory


def refit_file(trial: Trial, model: str, stretch: Window) -> Path:
    """Where the predictions of a stretch are kept."""
    fitted = f"{trial.refit_every.days}-{trial.refit_on.days}-{trial.passes}"
    return trial.settings(REFIT).home / f"refits-{fitted}" / model / f"{stretch.start:%Y%m%d}.npz"


def is_said(trial: Trial, model: str, stretch: Window) -> bool:
    """Whether the predictions of a stretch are kept, up to its end."""
    file = refit_file(trial, model, stretch)
    if not file.exists():
        return False
    last = from_ms((int(np.load(file)["rows"][-1]) + 1) * 60_000)
    return last + 2 * timedelta(minutes=trial.predict_every) > stretch.end


def _note(
    settings: Settings, way: str, model: str, closes: int, steps: int, wall: float, processor: float, say: Callable
) -> None:
    """Adds what a run took to the others of its way and model."""
    file = settings.home / "took.json"
    took = json.loads(file.read_text()) if file.exists() else {}
    before = took.get(f"{way} {model}", [0, 0, 0.0, 0.0])
    took[f"{way} {model}"] = [old + new for old, new in zip(before, (closes, steps, wall, processor), strict=True)]
    file.write_text(json.dumps(took, indent=2) + "\n")
    say(f"{way}, {model}: {closes:,} closes, {steps:,} steps, {wall:.0f} s, processor {processor:.0f} s")
