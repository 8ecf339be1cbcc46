"""A stretch of the simulated venue as the loop sees it: tape, labels, and a memory to fill."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from hindsight.inference.shape import CandleBlock, FrameShape
from hindsight.market.streams import to_ms
from hindsight.recall import Market, recall_market, recall_memory
from hindsight.settings import Settings
from hindsight.store.market_tables import pivot_mark
from hindsight.store.warehouse import Warehouse
from hindsight.training.engine import alone
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, new_learner
from hindsight.training.loop import Cadence, Learned, lesson
from hindsight.training.memory import Memory
from hindsight.training.models.registry import OURS
from hindsight.training.replay import ReplayRule
from hindsight.training.step import Examples, make_optimizer
from tests.training.stand_in import Device, stood_in

MODEL = "transformer"
SHAPE = FrameShape(candles=(CandleBlock(symbol="ETH/USDT", timeframe="1m", length=300),))
CADENCE = Cadence(predict_every=1, train_every=30, batch_size=8, snapshot_every=10, score_window=240)
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there, or torch knows none")
# Named here, so that tuning a default moves no golden number.
HYPER = Hyperparameters(learning_rate=1e-3, weight_decay=0.01, clip_norm=1.0, average_decay=0.99)


@dataclass(frozen=True)
class Stretch:
    """Some hours of the simulated venue. References can be made from `first` on: 2024-03-01 00:00."""

    market: Market
    first: int
    new_memory: Callable[..., Memory]

    def run(self, learner: Learner, memory: Memory, first: int, end: int) -> Learned:
        """Closes [first, end), counted from the stretch's first."""
        whole = lesson(
            learner,
            self.market.blocks,
            self.market.labels,
            memory,
            self.first + first,
            self.first + end,
            self.market.l2_rows,
            cadence=CADENCE,
            replay=ReplayRule(replay_window=1000),
            snapshot=lambda learner: {},
        )
        return alone(learner, whole)


@pytest.fixture(scope="session")
def stretch(venue_home: Settings) -> Stretch:
    torch.set_num_threads(1)
    stream = venue_home.streams[0]
    with Warehouse(path=venue_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
        mark = pivot_mark(con, stream)
        assert mark is not None
        origin = to_ms(mark.since) // stream.step_ms
        end = origin + 600 + 420
        market = recall_market(con, venue_home, MODEL, stream, SHAPE, origin, end)

    def new_memory(model: str = MODEL) -> Memory:
        with Warehouse(path=venue_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
            return recall_memory(con, model, stream, market, origin)[0]

    return Stretch(market=market, first=origin + 600, new_memory=new_memory)


def examples_of(
    rows: np.ndarray,
    norm_params: np.ndarray,
    event_row: int,
    weights: np.ndarray | None = None,
    graded: int | None = None,
) -> Examples:
    """Of one event; each counts as much, and all are asked for their trend, where nothing else is said."""
    return Examples(
        rows=rows,
        norm_params=norm_params,
        weights=np.ones(len(rows), np.float32) if weights is None else weights,
        event_rows=np.full(len(rows), event_row),
        is_graded=np.arange(len(rows)) < (len(rows) if graded is None else graded),
    )


@pytest.fixture
def fresh_learner() -> Callable[..., Learner]:
    """Makes a learner with initial weights on the CPU."""
    return learner_of(MODEL)


@pytest.fixture(params=OURS)
def any_model(request: pytest.FixtureRequest) -> str:
    """Each of our models in turn."""
    return request.param


@pytest.fixture
def any_learner(any_model: str) -> Callable[..., Learner]:
    """Makes a learner of that model."""
    return learner_of(any_model)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A device beside the host's, as long as the test lasts."""
    with stood_in(monkeypatch) as device:
        yield device


def with_idle_weights(learner: Learner) -> Learner:
    """The same, with some weights that are held and some that nothing asks for."""
    for module in (learner.model, learner.average):
        next(module.parameters()).requires_grad_(False)
        module.register_parameter("unused", torch.nn.Parameter(torch.ones(2, 2), requires_grad=module is learner.model))
    learner.optimizer = make_optimizer(learner.model, learner.hyper)
    return learner


def learner_of(model: str) -> Callable[..., Learner]:
    def make(seed: int = 0, device: str | torch.device = "cpu") -> Learner:
        return new_learner(model, replace(HYPER, seed=seed), torch.device(device), SHAPE)

    return make
