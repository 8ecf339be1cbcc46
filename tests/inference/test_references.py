"""References: ids that can be turned back into their moment, and a hash of all that goes into a model."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.references import inference_ids, made_at_ms, schema_hash, target_times_ms
from hindsight.inference.shape import CandleBlock, FrameShape, Read
from hindsight.market.streams import Stream
from hindsight.training.models.registry import model_of
from hindsight.training.models.transformer import TransformerConfig

ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
OWN = CandleBlock(symbol="ETH/USDT", timeframe="1m", length=300)
SHAPE = FrameShape(candles=(OWN,))
names = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=20)


@given(moments=st.lists(st.integers(0, 2**62), min_size=1, max_size=50), model=names, venue=names)
def test_an_id_gives_back_the_moment_it_was_made_from(moments: list[int], model: str, venue: str):
    stream = Stream(venue=venue, symbol="ETH/USDT", timeframe="1m")
    ids = inference_ids(model, stream, np.array(moments))
    assert ids.dtype == np.uint64
    assert made_at_ms(model, stream, ids).tolist() == moments
    assert len(set(ids.tolist())) == len(set(moments))


@given(numbers=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_every_64_bit_number_is_the_id_of_one_moment(numbers: list[int]):
    ids = np.array(numbers, np.uint64)
    np.testing.assert_array_equal(inference_ids("m", ETH, made_at_ms("m", ETH, ids)), ids)


def test_ids_of_other_models_and_streams_differ():
    moments = np.arange(10_000) * 60_000
    others = [replace(ETH, venue="binance"), replace(ETH, symbol="BTC/USDT"), replace(ETH, timeframe="1s")]
    families = [inference_ids("a", ETH, moments), inference_ids("b", ETH, moments)]
    families += [inference_ids("a", stream, moments) for stream in others]
    assert len(np.unique(np.concatenate(families))) == 5 * len(moments)


def test_an_id_is_the_same_in_every_process_and_version():
    program = (
        "import numpy as np; from hindsight.market.streams import Stream;"
        "from hindsight.inference.references import inference_ids;"
        "s = Stream(venue='simulated', symbol='ETH/USDT', timeframe='1m');"
        "print(inference_ids('transformer', s, np.array([1709251200000]))[0])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(found) == inference_ids("transformer", ETH, np.array([1709251200000]))[0] == 2515400320915348821


def test_the_schema_hash_names_the_blocks_their_lengths_and_the_architecture():
    """Trap 29: 7,834 columns and 7,850 are not the same input."""
    config = str(model_of("transformer").config)
    known = schema_hash(config, SHAPE)
    assert schema_hash(config, replace(SHAPE)) == schema_hash(config, FrameShape.parse(str(SHAPE))) == known
    assert len(known) == 12
    hour = CandleBlock(symbol="ETH/USDT", timeframe="1h", length=300)
    shapes = [
        FrameShape(candles=(replace(OWN, length=299),), warmup=301),
        replace(SHAPE, warmup=301),
        replace(SHAPE, candles=(replace(OWN, symbol="BTC/USDT"),)),
        replace(SHAPE, candles=(replace(OWN, timeframe="1s"),)),
        replace(SHAPE, candles=(OWN, hour)),
        replace(SHAPE, candles=(hour, OWN)),
        replace(SHAPE, candles=(OWN, replace(hour, length=200))),
        replace(SHAPE, book=300),
        replace(SHAPE, pivots=5),
        replace(SHAPE, reads=(Read(model="cnn", width=64),)),
        replace(SHAPE, reads=(Read(model="lstm", width=64),)),
        replace(SHAPE, reads=(Read(model="cnn", width=32),)),
        replace(SHAPE, reads=(Read(model="cnn", width=64, deadline_ms=1000),)),
    ]
    architectures = [TransformerConfig(width=66), TransformerConfig(patch=15), TransformerConfig(heads=4)]
    changed = {schema_hash(config, shape) for shape in shapes} | {schema_hash(str(c), SHAPE) for c in architectures}
    assert len(changed) == len(shapes) + len(architectures)
    assert known not in changed


@pytest.mark.parametrize("of", ["frames.COLUMNS", "book_tape.BOOK_COLUMNS", "pivot_history.PIVOT_COLUMNS"])
@pytest.mark.parametrize(
    "columns",
    [
        pytest.param("{} + ('new',)", id="one more"),
        pytest.param("{}[:-1]", id="one fewer"),
        pytest.param("{}[1:] + {}[:1]", id="another order"),
    ],
)
def test_another_list_of_columns_has_another_schema_hash(columns: str, of: str):
    """Trap 29, from a process in which the columns are others."""
    changed = columns.replace("{}", of)
    program = (
        "from hindsight.inference import book_tape, frames, pivot_history;"
        f"{of} = {changed};"
        "from hindsight.inference.references import schema_hash; from hindsight.inference.shape import FrameShape;"
        f"print(schema_hash('m', FrameShape.parse({str(SHAPE)!r})))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() != schema_hash("m", SHAPE)


@pytest.mark.parametrize(
    ("made", "target"),
    [
        pytest.param(120_000, 120_000, id="at the boundary"),
        pytest.param(120_001, 180_000, id="one millisecond into a candle"),
        pytest.param(179_999, 180_000, id="one millisecond before the boundary"),
    ],
)
def test_the_target_is_the_first_candle_that_opens_at_or_after_the_prediction(made: int, target: int):
    """Trap 13."""
    assert target_times_ms(np.array([made]), 60_000).tolist() == [target]
