"""References: ids that can be turned back into their moment, and a hash of all that goes into a model."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.references import InputShape, inference_ids, made_at_ms, schema_hash, target_times_ms
from hindsight.market.streams import Stream
from hindsight.training.models.registry import model_of
from hindsight.training.models.transformer import TransformerConfig

ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
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


def test_the_schema_hash_names_the_lengths_and_the_architecture():
    """Trap 29: 7,834 columns and 7,850 are not the same input."""
    config, shape = str(model_of("transformer").config), InputShape()
    known = schema_hash(config, shape)
    assert schema_hash(config, shape) == known
    assert len(known) == 12
    changed = {
        schema_hash(config, InputShape(lookback=299, warmup=301)),
        schema_hash(config, InputShape(warmup=301)),
        schema_hash(str(TransformerConfig(width=66)), shape),
        schema_hash(str(TransformerConfig(patch=15)), shape),
        schema_hash(str(TransformerConfig(heads=4)), shape),
    }
    assert len(changed) == 5
    assert known not in changed


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param("frames.COLUMNS + ('new',)", id="one more"),
        pytest.param("frames.COLUMNS[:-1]", id="one fewer"),
        pytest.param("frames.COLUMNS[1:] + frames.COLUMNS[:1]", id="another order"),
    ],
)
def test_another_list_of_columns_has_another_schema_hash(columns: str):
    """Trap 29, from a process in which the columns are others."""
    program = (
        "from hindsight.inference import frames;"
        f"frames.COLUMNS = {columns};"
        "from hindsight.inference.references import InputShape, schema_hash; print(schema_hash('m', InputShape()))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() != schema_hash("m", InputShape())


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
