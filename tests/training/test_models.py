"""Models: each says something finite of every frame, by itself, and nothing of what lies outside of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hindsight.errors import FrameRefused, SettingRefused
from hindsight.inference.blocks import Blocks, Frame, Peer
from hindsight.inference.completeness import OPTIONAL
from hindsight.inference.frames import KIND
from hindsight.inference.normalisation import norm_params
from hindsight.inference.shape import FrameShape, Read
from hindsight.market.streams import to_ms
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.learner import Learner, new_learner
from hindsight.training.models.cnn import CnnConfig
from hindsight.training.models.registry import OURS, Model, in_levels, in_order, model_of
from hindsight.training.predict import forward
from hindsight.training.step import to_tensors

COUNT = 96
PLACES = {"own": 0, "hour": 1, "btc": 2, "book": 3, "pivots": 4, "outputs": 5, "hidden": 6}


@pytest.fixture(scope="module")
def blocks(made_up: Callable) -> Blocks:
    torch.set_num_threads(1)
    return made_up()


@pytest.fixture(scope="module")
def frame(blocks: Blocks) -> Frame[np.ndarray]:
    first = to_ms(datetime(2024, 3, 1, 12, 20, tzinfo=UTC)) // 60_000
    rows = first + np.arange(COUNT)
    return blocks.gather(rows, norm_params(blocks.own.gather(rows, 60)))


@pytest.fixture
def learner(any_model: str, blocks: Blocks) -> Learner:
    return new_learner(any_model, Hyperparameters(), torch.device("cpu"), blocks.shape)


def some(frame: Frame[np.ndarray], at: object) -> Frame[np.ndarray]:
    return frame.map(lambda block: block[at])


def changed(frame: Frame[np.ndarray], name: str, change: Callable[[np.ndarray], None]) -> Frame[np.ndarray]:
    """A copy of the frame with one of its blocks changed."""
    copy = frame.map(np.copy)
    change(copy.seen[PLACES[name]])
    return copy


def everything(learner: Learner, frame: Frame[np.ndarray]) -> np.ndarray:
    """Predictions, hidden states and extras side by side."""
    said = forward(learner, frame)
    return np.column_stack([said.predictions, said.hidden.astype(np.float32), said.extras])


def test_what_a_model_says_has_the_widths_that_are_stored(learner: Learner, any_model: str, frame: Frame):
    said, kind = forward(learner, frame), model_of(any_model)
    assert said.predictions.shape == (COUNT, 17)
    assert said.hidden.shape == (COUNT, kind.config.width)
    assert said.hidden.dtype == np.float16
    assert len(said.extras) == COUNT
    assert bool(said.extras.shape[1]) == bool(kind.extras)
    assert len({row.tobytes() for row in said.predictions}) == COUNT  # and not the same of every frame


def test_a_prediction_from_many_blocks_is_the_same_whatever_is_predicted_with_it(learner: Learner, frame: Frame):
    """To the bit: a live prediction is made alone, in a backfill among many; some with parts missing."""
    chance = np.random.default_rng(1)
    holes = frame.map(np.copy)
    for block in holes.seen[PLACES["book"] :]:
        block[chance.random(COUNT) < 0.4] = np.nan
    together = everything(learner, holes)
    for size in (1, 2, 3, 4, 5, 7, 16, 31, 60):
        apart = [everything(learner, some(holes, slice(at, at + size))) for at in range(0, COUNT, size)]
        np.testing.assert_array_equal(np.concatenate(apart), together, err_msg=f"{size} at a time")
    mixed = chance.permutation(COUNT)
    np.testing.assert_array_equal(everything(learner, some(holes, mixed)), together[mixed])


@pytest.mark.parametrize("name", ["book", "pivots", "outputs", "hidden"])
def test_a_prediction_without_an_optional_block_is_finite_and_another_one(learner: Learner, frame: Frame, name: str):
    """Trap 19: masked, never refused by the model, and never read as zeros."""
    without = everything(learner, changed(frame, name, lambda block: block.fill(np.nan)))
    assert np.isfinite(without).all()
    zeros = everything(learner, changed(frame, name, lambda block: block.fill(0)))
    for other in (everything(learner, frame), zeros):
        assert (without != other).any(axis=1).all()


def test_a_prediction_without_any_optional_block_is_finite(learner: Learner, blocks: Blocks):
    """Trap 20: a backfilled frame, of a time at which nobody recorded the book or ran another model."""
    width = blocks.shape.reads[0].width
    bare = replace(blocks, book=None, pivots=None, peers=[Peer.absent(Read(model="cnn", width=width))])
    rows = to_ms(datetime(2024, 3, 1, 12, 20, tzinfo=UTC)) // 60_000 + np.arange(5)
    assert np.isfinite(everything(learner, bare.gather(rows, norm_params(bare.own.gather(rows, 60))))).all()


@pytest.mark.parametrize("name", PLACES)
def test_every_block_is_read(learner: Learner, frame: Frame, name: str):
    def shift(block: np.ndarray) -> None:
        block *= np.random.default_rng(3).uniform(0.9, 1.1, block.shape).astype(np.float32)

    other = everything(learner, changed(frame, name, shift))
    assert (other != everything(learner, frame)).any(axis=1).all()


@pytest.mark.parametrize("name", PLACES)
def test_the_newest_row_of_every_block_is_read_and_the_oldest_of_those_that_a_model_reads(
    learner: Learner, any_model: str, frame: Frame, name: str
):
    """The DQN reads the newest 8 rows of a sequence, the others all."""
    if name == "hidden":
        return
    length = frame.seen[PLACES[name]].shape[2 if name == "pivots" else 1]
    newest = getattr(model_of(any_model).config, "rows", length)
    for place in (-min(newest, length), -1):

        def double(block: np.ndarray, place: int = place) -> None:
            axis = {"pivots": 2}.get(name, 1)
            at = [slice(None)] * block.ndim
            at[axis] = place
            block[tuple(at)] *= np.float32(1.5)

        other = everything(learner, changed(frame, name, double))
        assert (other != everything(learner, frame)).any(axis=1).all(), place


@pytest.mark.parametrize("spread", [1e-30, 1e30])
def test_a_prediction_is_finite_in_the_wildest_and_the_quietest_market(learner: Learner, frame: Frame, spread: float):
    """Trap 16."""

    def wild(block: np.ndarray) -> None:
        block[:, 20, KIND["candle"]] *= np.float32(spread)
        block[:, :, KIND["volume"]] *= np.float32(spread)

    for name in ("own", "hour", "btc"):
        assert np.isfinite(everything(learner, changed(frame, name, wild if name != "hour" else _still))).all()


def _still(block: np.ndarray) -> None:
    block[:, :, KIND["candle"]] = 100


def test_weights_that_are_trained_read_every_block_by_gradient(learner: Learner, frame: Frame):
    """Each weight has a gradient: no block hangs in the air."""
    output = learner.model(to_tensors(some(frame, slice(0, 8)), torch.device("cpu")))
    extras = [] if output.extras_BE is None else [output.extras_BE.sum()]
    parts = [part.square().sum() for part in output[:-1] if part is not None]
    torch.stack([*parts, *extras]).sum().backward()
    silent = [name for name, weight in learner.model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == []


def test_a_frame_of_another_shape_is_refused_before_any_weight_sees_it(learner: Learner, frame: Frame):
    short = frame._replace(candles=(frame.candles[0][:, 1:], *frame.candles[1:]))
    with pytest.raises(FrameRefused, match=r"block ETH/USDT 1m: expected float32 \[96, 60, 43\], found"):
        forward(learner, short)


@pytest.mark.parametrize("lengths", [(2, 2, 2), (3, 7, 11), (60, 5, 61)])
def test_blocks_may_have_any_length(any_model: str, blocks: Blocks, lengths: tuple[int, ...]):
    """Also those that no patch and no kernel divides."""
    candles = tuple(replace(block, length=length) for block, length in zip(blocks.shape.candles, lengths, strict=True))
    shape = replace(blocks.shape, candles=candles, book=lengths[1], pivots=1)
    other = replace(blocks, shape=shape)
    rows = to_ms(datetime(2024, 3, 1, 12, 20, tzinfo=UTC)) // 60_000 + np.arange(6)
    learner = new_learner(any_model, Hyperparameters(), torch.device("cpu"), shape)
    norm = np.tile(np.array([100, 0.01, 1, 1], np.float32), (6, 1))
    together = everything(learner, other.gather(rows, norm))
    assert np.isfinite(together).all()
    for index in range(6):
        alone = everything(learner, other.gather(rows[index : index + 1], norm[:1]))
        np.testing.assert_array_equal(alone[0], together[index])


# Which model reads which ---------------------------------------------------------------------------------------------


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Brings models by name as another package would, each reading some others."""

    def bring(**reads: tuple[str, ...]) -> None:
        theirs = {name: Model(config=CnnConfig(), build=lambda *_: None, reads=read) for name, read in reads.items()}
        points = [
            SimpleNamespace(name=name, value=f"theirs:{name}", load=lambda model=model: model)
            for name, model in theirs.items()
        ]
        monkeypatch.setattr("hindsight.training.models.registry.entry_points", lambda group: points)
        model_of.cache_clear()

    yield bring
    model_of.cache_clear()


def test_a_model_comes_after_those_it_reads_and_else_where_the_setting_has_it(brought: Callable):
    brought(judge=("cnn", "critic"), critic=("lstm",))
    assert in_order(["judge", "critic", "transformer", "cnn", "lstm"]) == [
        "transformer",
        "cnn",
        "lstm",
        "critic",
        "judge",
    ]
    assert in_order(["lstm", "cnn", "transformer"]) == ["lstm", "cnn", "transformer"]
    assert in_order(["judge", "transformer"]) == ["judge", "transformer"]  # those it reads are not there


@pytest.mark.parametrize(
    ("reads", "names", "circle"),
    [
        pytest.param({"a": ("a",)}, ["a"], "a reads a", id="itself"),
        pytest.param({"a": ("b",), "b": ("a",)}, ["cnn", "a", "b"], r"(a reads b reads a|b reads a reads b)", id="two"),
        pytest.param(
            {"a": ("b",), "b": ("c",), "c": ("a", "cnn")},
            ["a", "b", "c", "cnn"],
            r"setting models: \w reads \w reads \w reads \w: none of them could go first",
            id="three",
        ),
    ],
)
def test_models_that_read_each_other_in_a_circle_are_refused_with_the_circle(
    brought: Callable, reads: dict[str, tuple[str, ...]], names: list[str], circle: str
):
    """Trap 30."""
    brought(**reads)
    with pytest.raises(SettingRefused, match=circle):
        in_order(names)


def test_a_circle_that_is_not_set_is_none(brought: Callable):
    brought(a=("b",), b=("a",))
    assert in_order(["a", "cnn"]) == ["a", "cnn"]


def test_models_of_one_level_read_none_of_each_other(brought: Callable):
    brought(judge=("cnn", "critic"), critic=("lstm",))
    assert in_levels(["judge", "critic", "transformer", "cnn", "lstm"]) == [
        ["transformer", "cnn", "lstm"],
        ["critic"],
        ["judge"],
    ]
    assert in_levels(["lstm", "judge"]) == [["lstm", "judge"]]


def test_of_our_models_the_dqn_reads_the_cnn_and_all_can_do_without_the_book_and_each_other():
    assert {name: model_of(name).reads for name in OURS} == {
        "transformer": (),
        "cnn": (),
        "lstm": (),
        "dqn": ("cnn",),
    }
    assert {model_of(name).optional for name in OURS} == {OPTIONAL}


def test_a_shape_names_the_width_of_what_is_read():
    assert {model_of(name).config.width for name in OURS} == {64}
    shape = FrameShape.parse(
        '{"book": 0, "candles": [{"length": 60, "symbol": "ETH/USDT", "timeframe": "1m"}], "pivots": 0,'
        ' "reads": [{"model": "cnn", "width": 64}], "warmup": 30}'
    )
    assert new_learner("lstm", Hyperparameters(), torch.device("cpu"), shape).shape.reads[0].width == 64
