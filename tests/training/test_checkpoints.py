"""Checkpoints on disk: whole or not there, of this schema or refused by name."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hindsight.errors import CheckpointUnreadable, SchemaMismatch
from hindsight.market.streams import Stream
from hindsight.training.checkpoints import CheckpointInfo, Tensors, checkpoint_file, load, remove, save

SCHEMA, OTHER = "0123456789ab", "ba9876543210"
INFO = CheckpointInfo(
    model="transformer",
    stream="simulated ETH/USDT 1m",
    checkpoint_id=7,
    event_time="2024-03-01T00:00:00+00:00",
    schema_hash=SCHEMA,
    model_config="transformer {}",
    hyperparameters={"learning_rate": 1e-3},
    metric="log loss",
    metric_value=2.5,
    scored=100,
)


def some_tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {"model.a": torch.randn(50, 40, generator=generator), "optimizer.0.step": torch.tensor(3.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "transformer" / "simulated ETH-USDT 1m" / "000000007.safetensors"


def test_what_is_saved_is_loaded_to_the_bit(path: Path):
    save(path, some_tensors(), INFO)
    found = load(path, SCHEMA)
    assert found.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_the_json_beside_it_says_how_it_came_to_be(path: Path):
    save(path, some_tensors(), INFO)
    said = json.loads(path.with_suffix(".json").read_text())
    assert said == {field: getattr(INFO, field) for field in INFO.__slots__}


def test_saving_leaves_the_two_files_and_no_temporary_one(path: Path):
    save(path, some_tensors(), INFO)
    save(path, some_tensors(), INFO)
    assert sorted(file.name for file in path.parent.iterdir()) == ["000000007.json", "000000007.safetensors"]
    remove(path)
    remove(path)
    assert list(path.parent.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_pair(path: Path):
    save(path, some_tensors(), INFO)
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError):  # safetensors refuses tensors that share memory
        save(path, {"a": shared, "b": shared}, INFO)
    assert load(path, SCHEMA).keys() == some_tensors().keys()
    assert len(list(path.parent.iterdir())) == 2


def test_a_checkpoint_of_another_schema_is_refused_by_a_message_that_names_both(path: Path):
    """Trap 29."""
    save(path, some_tensors(), replace(INFO, schema_hash=OTHER))
    with pytest.raises(SchemaMismatch, match=f"{path.name} was trained on input schema {OTHER}.*at hand is {SCHEMA}"):
        load(path, SCHEMA)


def cut_file(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: cut_file(path, 0.99), id="truncated"),
        pytest.param(lambda path: cut_file(path, 0.01), id="almost nothing left"),
        pytest.param(lambda path: cut_file(path, 0), id="empty"),
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(b"\x80\x04pickle" * 100), id="not safetensors"),
        pytest.param(lambda path: path.with_suffix(".json").unlink(), id="JSON missing"),
        pytest.param(lambda path: path.with_suffix(".json").write_text("{"), id="JSON truncated"),
        pytest.param(lambda path: path.with_suffix(".json").write_text("{}"), id="JSON without a schema"),
        pytest.param(lambda path: path.with_suffix(".json").write_text("[1]"), id="JSON of a list"),
        pytest.param(lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe\x00"), id="JSON not text"),
    ],
)
def test_a_damaged_checkpoint_is_unreadable_and_the_message_names_the_file_and_the_cure(path: Path, damage):
    save(path, some_tensors(), INFO)
    damage(path)
    with pytest.raises(CheckpointUnreadable, match=r"000000007\.safetensors cannot be read .*Delete it"):
        load(path, SCHEMA)


def test_checkpoints_of_each_stream_and_model_lie_apart():
    streams = [
        Stream(venue=venue, symbol=symbol, timeframe=timeframe)
        for venue in ("simulated", "binance")
        for symbol in ("ETH/USDT", "BTC/USDT", "ETH/USDT:USDT")
        for timeframe in ("1s", "1m")
    ]
    files = {checkpoint_file(model, stream, 7) for model in ("a", "b") for stream in streams}
    assert len(files) == 24
    assert all(not file.is_absolute() and len(file.parts) == 3 and ":" not in str(file) for file in files)
