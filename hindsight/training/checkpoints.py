"""Checkpoints on disk: safetensors with weights, their running mean and the optimizer, and a JSON beside them.

Written to a temporary name, fsynced, renamed: a file that has its name is whole. A checkpoint's id is the number of
training steps behind it; 0 is the initial weights, which follow from the seed and need no file.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hindsight.errors import CheckpointUnreadable, HomeUnwritable, SchemaMismatch
from hindsight.market.streams import Stream

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """How a checkpoint came to be; the JSON beside its weights."""

    model: str
    stream: str
    checkpoint_id: int
    event_time: str
    schema_hash: str
    model_config: str
    hyperparameters: dict[str, float | str]
    metric: str
    metric_value: float | None
    scored: int


def checkpoint_file(model: str, stream: Stream, checkpoint_id: int) -> Path:
    """Where a checkpoint lies, below the checkpoints folder."""
    folder = f"{stream.venue} {stream.symbol_in_paths} {stream.timeframe}"
    return Path(model) / folder / f"{checkpoint_id:09d}.safetensors"


def save(path: Path, tensors: Tensors, info: CheckpointInfo) -> None:
    """Writes the JSON, then the weights, each whole or not at all; a checkpoint is there once its weights are.

    Raises HomeUnwritable, of a full disk say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {field: getattr(info, field) for field in info.__slots__}
    _replace(path.with_suffix(".json"), lambda temporary: temporary.write_text(json.dumps(named, indent=2) + "\n"))
    _replace(path, lambda temporary: save_file(tensors, temporary, metadata={"schema_hash": info.schema_hash}))


def load(path: Path, schema_hash: str) -> Tensors:
    """The tensors of a checkpoint made for the input named by `schema_hash`.

    Raises CheckpointUnreadable for a missing or damaged file, SchemaMismatch for another input, naming both hashes.
    """
    try:
        found = json.loads(path.with_suffix(".json").read_text())["schema_hash"]
        if found != schema_hash:
            raise SchemaMismatch(
                f"checkpoint {path.name} was trained on input schema {found}, but the schema at hand is {schema_hash}."
                " Restore the settings it was trained with, or let a new lineage start"
            )
        return load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointUnreadable(
            f"checkpoint {path} cannot be read ({error}). Delete it: the weights are brought back from an earlier"
            " snapshot and the training steps since"
        ) from error


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of those in which some number is none."""
    return [name for name, values in tensors.items() if not bool(values.isfinite().all())]


def remove(path: Path) -> None:
    """Takes an evicted checkpoint off the disk; one that is gone already is no error."""
    path.with_suffix(".json").unlink(missing_ok=True)  # what is left of it by a kill, the next eviction finds
    path.unlink(missing_ok=True)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, SafetensorError) as error:
        raise HomeUnwritable(
            f"checkpoint {path} cannot be written: {error}. Make room and run the same command again; nothing is lost"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
