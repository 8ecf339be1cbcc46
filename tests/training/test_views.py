"""Views: what a model reads of every block, on scales of the frame itself, masked where something is missing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor

from hindsight.inference.blocks import OUTPUT_AGE, OUTPUT_COLUMNS, Blocks, Frame, Peer
from hindsight.inference.book_tape import BOOK_COLUMN, BOOK_COLUMNS
from hindsight.inference.frames import COLUMN, KIND, PIVOT_TYPES
from hindsight.inference.normalisation import norm_params
from hindsight.inference.predictions import USUAL_AGE
from hindsight.inference.shape import CandleBlock, FrameShape, Read
from hindsight.market.streams import to_ms
from hindsight.training.channels import CHANNELS, LIMIT
from hindsight.training.step import to_tensors
from hindsight.training.views import BOOK_CHANNELS, PIVOT_CHANNELS, Views, sizes_of, views

OWN, HOUR, BTC, BOOK = range(4)  # the sequences, in their order
TIMES = ("12:00", "12:34", "13:00", "14:00")


def gathered(blocks: Blocks, *times: str) -> Frame[np.ndarray]:
    close = [datetime.fromisoformat(f"2024-03-01T{time}").replace(tzinfo=UTC) for time in times or TIMES]
    rows = np.array([to_ms(each) for each in close]) // blocks.own.step_ms - 1
    return blocks.gather(rows, norm_params(blocks.own.gather(rows, blocks.shape.own.length)))


def seen(frame: Frame[np.ndarray], shape: FrameShape) -> Views:
    return views(to_tensors(frame, torch.device("cpu")), shape)


def parts(context_BX: Tensor, shape: FrameShape) -> dict[str, np.ndarray]:
    """The context by what it holds."""
    widths = {"pivots": 10 * shape.pivots * PIVOT_CHANNELS, "share": 1}
    widths |= {f"outputs of {read.model}": len(OUTPUT_COLUMNS) + 1 for read in shape.reads}
    widths |= {f"state of {read.model}": read.width + 1 for read in shape.reads}
    found = context_BX.split([*widths.values()], dim=1)
    return dict(zip(widths, (each.numpy() for each in found), strict=True))


@pytest.fixture
def blocks(made_up: Callable) -> Blocks:
    return made_up()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda shape: shape, id="all blocks"),
        pytest.param(lambda shape: replace(shape, book=0), id="no book"),
        pytest.param(lambda shape: replace(shape, pivots=0), id="no pivots"),
        pytest.param(lambda shape: replace(shape, reads=()), id="no peers"),
        pytest.param(
            lambda shape: replace(shape, candles=shape.candles[:1], book=0, pivots=0, reads=()), id="own alone"
        ),
    ],
)
def test_views_have_the_sizes_that_a_model_is_told_before(blocks: Blocks, change: Callable):
    shape = change(blocks.shape)
    some = replace(
        blocks, shape=shape, tapes=blocks.tapes[: len(shape.candles)], peers=blocks.peers[: len(shape.reads)]
    )
    some = replace(some, book=some.book if shape.book else None, pivots=some.pivots if shape.pivots else None)
    found, sizes = seen(gathered(some), shape), sizes_of(shape)
    assert [tuple(sequence.shape) for sequence in found.sequences] == [(len(TIMES), *size) for size in sizes.sequences]
    assert found.context.shape == (len(TIMES), sizes.context)
    assert all(torch.isfinite(each).all() for each in (*found.sequences, found.context))


def test_the_sizes_of_the_standard_frame():
    candles = tuple(
        CandleBlock(symbol=symbol, timeframe=timeframe, length=300)
        for symbol, timeframe in (("ETH/USDT", "1s"), ("ETH/USDT", "1m"), ("BTC/USDT", "1s"))
    )
    sizes = sizes_of(FrameShape(candles=candles, book=300, pivots=4, reads=(Read(model="cnn", width=64),)))
    assert sizes.sequences == ((300, CHANNELS),) * 3 + ((300, BOOK_CHANNELS),)
    assert sizes.context == 10 * 4 * 7 + 1 + 7 + 65


def test_one_symbol_has_one_price_scale_that_grows_with_the_root_of_a_candles_length(blocks: Blocks):
    """A level lies where it lies, in minutes and in hours."""
    frame = gathered(blocks)
    found = seen(frame, blocks.shape)
    last, scale = frame.norm[:, 0], frame.norm[:, 1] * np.sqrt(60)
    back = np.arange(8, 0, -1)
    opens = frame.candles[HOUR][:, :, COLUMN["open"]].astype(np.float64)
    expected = np.log(opens / last[:, None]) / (scale[:, None] * np.sqrt(back))
    np.testing.assert_allclose(found.sequences[HOUR][..., COLUMN["open"]], expected.clip(-LIMIT, LIMIT), rtol=1e-4)


def test_another_symbol_has_its_own_scale_and_every_block_its_own_volume(blocks: Blocks):
    frame = gathered(blocks)
    found = seen(frame, blocks.shape)
    close = frame.candles[BTC][:, :, COLUMN["close"]].astype(np.float64)
    scale, back = np.log(close[:, 1:] / close[:, :-1]).std(axis=1), np.arange(40, 0, -1)
    expected = np.log(close / close[:, -1:]) / (scale[:, None] * np.sqrt(back))
    np.testing.assert_allclose(found.sequences[BTC][..., COLUMN["close"]], expected.clip(-LIMIT, LIMIT), atol=1e-3)
    for place in (HOUR, BTC):
        volume = np.log1p(frame.candles[place][:, :, COLUMN["volume"]].astype(np.float64))
        usual = (volume - volume.mean(axis=1, keepdims=True)) / volume.std(axis=1, keepdims=True)
        np.testing.assert_allclose(found.sequences[place][..., COLUMN["volume"]], usual, atol=1e-3)


def test_a_market_at_sixteen_times_the_price_looks_the_same(blocks: Blocks):
    """Prices of one symbol, in its candles, pivots and book; the other symbol stays as it is."""
    frame = gathered(blocks)
    prices = [*range(KIND["candle"].start, KIND["pivot_price"].stop)]
    prices += [*range(KIND["difference"].start, KIND["range"].stop)]
    dear = frame.map(np.copy)
    for place in (OWN, HOUR):
        dear.candles[place][..., prices] *= 16  # a power of two rounds nothing
    dear.book[..., BOOK_COLUMN["price"]] *= 16
    dear.pivots[..., 1] *= 16
    dear.norm[:, 0] *= 16
    for one, other in zip(seen(frame, blocks.shape).sequences, seen(dear, blocks.shape).sequences, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-2)
    np.testing.assert_allclose(seen(frame, blocks.shape).context, seen(dear, blocks.shape).context, atol=2e-2)


def test_the_book_is_that_of_ten_plain_lines(blocks: Blocks):
    blocks.book.rows[:, BOOK_COLUMN["price"]] += 99
    frame = gathered(blocks)
    frame.book[1, 3, BOOK_COLUMN["amount_00"]] = np.nan  # a bucket that the book does not reach
    frame.book[2, 5] = np.nan  # a second that was not recorded
    found = seen(frame, blocks.shape).sequences[BOOK].numpy()
    for which, second in ((0, 0), (1, 3), (2, 5), (3, 29)):
        row = dict(zip(BOOK_COLUMNS, frame.book[which, second].astype(np.float64), strict=True))
        usual = np.nanmean(frame.book[which, :, :40].astype(np.float64))
        expected = [np.log1p(row[name] / usual) - 0.6931 for name in BOOK_COLUMNS[:40]]
        expected += [row[name] for name in BOOK_COLUMNS[40:44]]
        spread = frame.norm[which, 1] * np.sqrt((30 - second) / 60)
        expected += [np.log(row["price"] / frame.norm[which, 0]) / spread, float(which != 2)]
        expected = np.clip(np.nan_to_num(expected), -LIMIT, LIMIT)
        np.testing.assert_allclose(found[which, second], expected, rtol=1e-3, atol=1e-4)


def test_pivots_are_those_of_ten_plain_lines(blocks: Blocks):
    frame = gathered(blocks)
    frame.pivots[1, 3, 1] = np.nan  # no second pivot of that type
    frame.pivots[2, 9, 0, 3:] = np.nan  # none with a book beside it
    found = parts(seen(frame, blocks.shape).context, blocks.shape)["pivots"].reshape(len(TIMES), 10, 2, PIVOT_CHANNELS)
    for which, kind, place in ((0, 0, 0), (1, 3, 1), (2, 9, 0), (3, 5, 1)):
        age, price, strength, at_pivot, at_confirmation = frame.pivots[which, kind, place].astype(np.float64)
        last, scale = frame.norm[which, :2].astype(np.float64)
        usual = USUAL_AGE[int(PIVOT_TYPES[kind][1])]
        expected = [age / (age + usual), np.log(price / last) / (scale * np.sqrt(usual)), strength / (strength + 1)]
        expected += [at_pivot, at_confirmation, float(which != 1), float(which not in (1, 2))]
        expected = np.clip(np.nan_to_num(expected), -LIMIT, LIMIT)
        np.testing.assert_allclose(found[which, kind, place], expected, rtol=1e-3, atol=1e-4)


def test_what_another_model_said_is_read_as_it_is_with_its_age_and_a_mask(blocks: Blocks):
    frame = gathered(blocks)
    frame.outputs[0, 0] = [0.5, 0.25, 0.5, 0.25, 1, OUTPUT_AGE]
    frame.outputs[1], frame.hidden[0][2] = np.nan, np.nan
    found = parts(seen(frame, blocks.shape).context, blocks.shape)
    assert found["outputs of cnn"][0].tolist() == [0.5, 0.25, 0.5, 0.25, 1, 1, 1]
    assert found["outputs of cnn"][1].tolist() == [0] * 7
    np.testing.assert_array_equal(found["state of cnn"][1], [*frame.hidden[0][1], 1])
    assert found["state of cnn"][2].tolist() == [0] * 9


@pytest.mark.parametrize("newest", [1, 5, 8, 1000])
def test_the_newest_rows_alone_are_the_newest_rows_of_the_whole(blocks: Blocks, newest: int):
    """Their scales are those of all rows."""
    frame = to_tensors(gathered(blocks), torch.device("cpu"))
    whole, few = views(frame, blocks.shape), views(frame, blocks.shape, newest)
    for one, other in zip(few.sequences, whole.sequences, strict=True):
        np.testing.assert_array_equal(one, other[:, -newest:])
    np.testing.assert_array_equal(few.context, whole.context)


# What is missing -----------------------------------------------------------------------------------------------------


def test_the_share_of_the_book_that_is_there_stands_in_the_context(blocks: Blocks):
    frame = gathered(blocks)
    frame.book[1, :12] = np.nan
    frame.book[2] = np.nan
    found = parts(seen(frame, blocks.shape).context, blocks.shape)["share"]
    np.testing.assert_allclose(found[:, 0], [1, 18 / 30, 0, 1], rtol=1e-6)
    without = replace(blocks.shape, book=0)
    none = seen(frame._replace(book=frame.book[:, :0]), without)
    assert parts(none.context, without)["share"].tolist() == [[0]] * 4


def test_a_part_that_is_missing_is_zero_with_a_mask_of_zero_and_a_zero_that_is_there_has_a_mask_of_one(blocks: Blocks):
    """Trap 19."""
    width = blocks.shape.reads[0].width
    absent = replace(blocks, book=None, pivots=None, peers=[Peer.absent(Read(model="cnn", width=width))])
    nothing = seen(gathered(absent), blocks.shape)
    zeros = gathered(blocks)
    for block in (zeros.book[..., :-1], zeros.pivots, zeros.outputs, *zeros.hidden):
        block[:] = 0
    there = seen(zeros, blocks.shape)
    assert (nothing.sequences[BOOK] == 0).all()
    assert (nothing.context == 0).all()
    assert (there.sequences[BOOK][..., -1] == 1).all()
    found = parts(there.context, blocks.shape)
    assert (found["pivots"].reshape(-1, PIVOT_CHANNELS)[:, -2:] == 1).all()
    assert (found["outputs of cnn"][:, -1] == 1).all()
    assert (found["state of cnn"] == [0] * width + [1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 0])
@pytest.mark.parametrize("block", ["book", "pivots", "outputs", "hidden"])
def test_views_are_finite_and_bounded_whatever_an_optional_block_holds(blocks: Blocks, block: str, value: float):
    """Trap 16, anywhere in it."""
    frame, chance = gathered(blocks), np.random.default_rng(0)
    values = frame.hidden[0] if block == "hidden" else getattr(frame, block)
    values[chance.random(values.shape) < 0.3] = value
    values[1] = value
    found = seen(frame, blocks.shape)
    for each in (*found.sequences, found.context):
        assert torch.isfinite(each).all()
        assert each.abs().max() <= LIMIT


@pytest.mark.parametrize("place", [HOUR, BTC])
def test_views_are_finite_and_bounded_for_a_market_that_stands_still(blocks: Blocks, place: int):
    """Trap 16: the predicted stream's frame is refused without a scale; another one's is not."""
    frame = gathered(blocks)
    frame.candles[place][..., KIND["candle"]] = 100
    frame.candles[place][..., KIND["volume"]] = 0
    for each in seen(frame, blocks.shape).sequences:
        assert torch.isfinite(each).all()
        assert each.abs().max() <= LIMIT


def test_a_view_is_the_same_whatever_is_viewed_with_it(blocks: Blocks):
    frame = gathered(blocks)
    frame.book[1, 4] = np.nan
    together = seen(frame, blocks.shape)
    for index in range(len(TIMES)):
        alone = seen(frame.map(lambda block: block[index : index + 1]), blocks.shape)  # noqa: B023
        for one, other in zip((*alone.sequences, alone.context), (*together.sequences, together.context), strict=True):
            np.testing.assert_array_equal(one[0], other[index])
