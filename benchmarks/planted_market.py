"""A market with a planted signal: recorded, learned by every model, decided, and judged on its last third."""

import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.homes import new_folder, record_from
from hindsight.decide import decide
from hindsight.exchange.simulated import OPENING, SimulatedVenue
from hindsight.exchange.sources import open_source
from hindsight.inference.losses import log_loss, of_what_came
from hindsight.market.streams import Stream, Window
from hindsight.settings import Settings, load
from hindsight.store.book_tables import write_order_book
from hindsight.store.rows import OF_STREAM, select, stream_key
from hindsight.store.warehouse import Warehouse

MODELS = ("cnn", "lstm", "transformer", "dqn")
DECISION = "decision"
JUDGED = 1 / 3  # of the market, the last part
# Fast enough for some hours of seconds, and no reference is used more than three or four times; nothing is promoted, so
# that the weights that learn are those that predict.
LEARNING: dict[str, object] = {
    "learning_rate": 5e-4,
    "weight_decay": 0.6,
    "average_decay": 0.9998,
    "batch_size": 16,
    "train_every": 15,
    "predict_every": 1,
    "warmup": 0,
    "retrain_steps": 0,
    "promote_every": 10_000_000,
    "device": "cpu",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A signal, and the frame that is to show it, or not to."""

    signal: str
    timeframe: str
    hours: float
    frame: tuple[str, ...]
    lookback: int = 60
    seed: int = 7

    @property
    def optimum(self) -> float:
        """The best share of signs that can be told from the whole market."""
        settings = load(simulated_signal=self.signal)
        return SimulatedVenue(self.seed, settings.simulated_phi, settings.simulated_signal).optimal_accuracy

    def settings(self, home: Path) -> Settings:
        """Those of a home in which every model learns this market."""
        others = {entry.split()[0] for entry in self.frame if " " in entry}
        return load(
            home=home,
            simulated_signal=self.signal,
            simulated_seed=self.seed,
            symbols=("ETH/USDT", *others),
            timeframes=(self.timeframe,),
            predicted=(f"ETH/USDT {self.timeframe}",),
            models=MODELS,
            frame=self.frame,
            lookback=self.lookback,
            **LEARNING,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a predictor said of candles that moved, beside the share of rises up to then: the prior."""

    answers: int
    right: int
    gained: float  # sum of what the log loss lay below that of the prior, in nats
    gained_squares: float

    def __add__(self, other: "Judged") -> "Judged":
        return Judged(**{name: value + asdict(other)[name] for name, value in asdict(self).items()})

    @property
    def accuracy(self) -> float:
        return self.right / self.answers

    @property
    def accuracy_error(self) -> float:
        """The standard error of a share of about a half."""
        return math.sqrt(0.25 / self.answers)

    @property
    def gain(self) -> float:
        """Nats a close."""
        return self.gained / self.answers

    @property
    def gain_error(self) -> float:
        """Its standard error: the next candles do not overlap."""
        return math.sqrt((self.gained_squares / self.answers - self.gain**2) / self.answers)


def learn_and_judge(**planted: object) -> dict[str, object]:
    """Records one market into a new home, learns and decides it: Judged by predictor, closes and steps."""
    from hindsight.learn import learn

    planted["frame"] = tuple(planted["frame"])  # pyright: ignore[reportArgumentType]  # JSON has no tuples
    market = Planted(**planted)  # pyright: ignore[reportArgumentType]
    settings = market.settings(new_folder("planted"))
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=60)
    window = Window(start=OPENING, end=OPENING + timedelta(hours=market.hours))
    (stream,) = settings.predicted_streams
    _record(settings, warehouse, stream, window)
    reports = {model: learn(settings, stream, model, window.end) for model in MODELS}
    decide(settings, stream, window.end)
    return {
        "judged": {name: asdict(judged) for name, judged in _judge(warehouse, stream, window).items()},
        "closes": reports[MODELS[0]].closes,
        "steps": {model: report.steps for model, report in reports.items()},
    }


def _record(settings: Settings, warehouse: Warehouse, stream: Stream, window: Window) -> None:
    source = open_source(settings)
    assert isinstance(source, SimulatedVenue)
    for each in settings.streams:
        record_from(source, settings, warehouse, each, window)
    if "book" in settings.frame:
        for rows in source.order_book(stream, window):
            with warehouse.writing() as con:
                write_order_book(con, rows)


def _judge(warehouse: Warehouse, stream: Stream, window: Window) -> dict[str, Judged]:
    with warehouse.reading() as con:
        outcomes = select(
            con,
            f"""
            select made_at, model, log_return > 0 as up, log_loss::double as loss, is_correct
            from outcomes
            where {OF_STREAM} and kind = 'candle' and status = 'settled' and log_return != 0
            order by made_at""",
            **stream_key(stream),
        )
        decisions = select(con, f"select made_at, probability from decisions where {OF_STREAM}", **stream_key(stream))
    answers = outcomes.filter(pl.col("model") == MODELS[0])
    before = np.arange(len(answers))
    prior = ((answers["up"].cum_sum() - answers["up"]).to_numpy() + 1) / (before + 2)
    answers = answers.select("made_at", "up", prior=log_loss(of_what_came(prior, answers["up"].to_numpy())))
    decided = answers.join(decisions.drop_nulls(), on="made_at", maintain_order="left")
    up, probability = decided["up"].to_numpy(), decided["probability"].cast(pl.Float64).to_numpy()
    decided = decided.select(
        "made_at",
        model=pl.lit(DECISION),
        loss=log_loss(of_what_came(probability, up)),
        is_correct=(probability > 0.5) == up,
    )
    said = pl.concat([outcomes.select(decided.columns), decided]).join(answers, on="made_at")
    said = said.filter(pl.col("made_at") > window.end - JUDGED * (window.end - window.start))
    gain = pl.col("prior") - pl.col("loss")
    sums = said.group_by("model").agg(
        answers=pl.len(), right=pl.sum("is_correct"), gained=gain.sum(), gained_squares=gain.pow(2).sum()
    )
    return {row.pop("model"): Judged(**row) for row in sums.to_dicts()}
