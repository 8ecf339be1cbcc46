"""What the settings say about a learner, in the classes of the domain."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from hindsight.errors import DeviceFailed, SettingRefused
from hindsight.inference.decisions import DecisionRule
from hindsight.inference.drift import DriftRule
from hindsight.inference.references import schema_hash
from hindsight.inference.shape import FrameShape, Read, frame_shape
from hindsight.market.streams import Stream
from hindsight.recall_blocks import deadline
from hindsight.settings import Settings
from hindsight.training.hyperparameters import Hyperparameters
from hindsight.training.loop import Cadence
from hindsight.training.models.registry import model_of
from hindsight.training.replay import ReplayRule

logger = logging.getLogger(__name__)


def shape_of(settings: Settings, stream: Stream, model: str) -> FrameShape:
    """The blocks of a frame that this model reads to predict `stream`. It reads those models that are there."""
    reads = [
        Read(
            model=name,
            width=model_of(name).config.width,
            deadline_ms=deadline(settings, stream) // timedelta(milliseconds=1),
        )
        for name in model_of(model).reads
        if name in settings.models
    ]
    return frame_shape(settings.frame, stream, lookback=settings.lookback, warmup=settings.warmup, reads=reads)


def schema_of(settings: Settings, stream: Stream, model: str) -> str:
    """The hash of what goes in and through this model."""
    return schema_hash(model_of(model).text, shape_of(settings, stream, model))


def hyperparameters(settings: Settings) -> Hyperparameters:
    """The settings that a training step depends on."""
    return Hyperparameters(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        average_decay=settings.average_decay,
        flat_fraction=settings.flat_fraction,
        trend_ttl=settings.trend_ttl,
        predict_every=settings.predict_every,
        fee=settings.fee,
        half_spread=settings.half_spread,
        precision=settings.precision,
        seed=settings.seed,
    )


def cadence_of(settings: Settings) -> Cadence:
    """When to predict, train and keep."""
    return Cadence(
        predict_every=settings.predict_every,
        train_every=settings.train_every,
        retrain_steps=settings.retrain_steps,
        drift=drift_rule(settings),
        batch_size=settings.batch_size,
        snapshot_every=settings.snapshot_every,
        score_window=settings.score_window,
    )


def drift_rule(settings: Settings) -> DriftRule:
    """When a rise of the loss is a drift."""
    return DriftRule(cool_down=settings.drift_cool_down)


def replay_of(settings: Settings) -> ReplayRule:
    """What replay draws from."""
    return ReplayRule(
        replay_window=settings.replay_window,
        replay_minimum=settings.replay_minimum,
        corrective_weight=settings.corrective_weight,
        max_uses=settings.max_uses,
    )


def decision_rule(settings: Settings) -> DecisionRule:
    """From which probability on to buy and to sell."""
    return DecisionRule(
        buy_threshold=settings.buy_threshold,
        sell_threshold=settings.sell_threshold,
        minimum_confidence=settings.minimum_confidence,
    )


def device_of(settings: Settings) -> torch.device:
    """Where the models run: `auto` is the GPU where there is one. Raises SettingRefused for a GPU that is not there."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingRefused(
            "setting device = 'cuda': expected a GPU that torch can use, found none. Set device = 'auto'"
        )
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def without_gpu(settings: Settings, who: str, error: RuntimeError) -> Settings:
    """The settings with which it goes on once the GPU is full: on the processor, where the device is `auto`.

    Raises DeviceFailed where a GPU is asked for by name, and where it is lost: this process has no use for torch then.
    Any other error is raised as it is.
    """
    if settings.device != "auto" or not isinstance(error, torch.OutOfMemoryError):
        with gpu_failures_told(who):
            raise error
    logger.warning("%s: the GPU failed, and it goes on on the processor: %s", who, _said(error))
    return settings.model_copy(update={"device": "cpu"})


@contextmanager
def gpu_failures_told(who: str) -> Iterator[None]:
    """A GPU that is out of memory, or gone, ends as DeviceFailed with the cure."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceFailed(
            f"{who}: the GPU failed: {_said(error)}. Nothing that is written is lost. Have it do less at once, or set"
            " device = 'auto', which goes on on the processor by itself, or 'cpu'"
        ) from error
    except torch.AcceleratorError as error:
        raise DeviceFailed(
            f"{who}: the GPU failed: {_said(error)}. Nothing that is written is lost. Start again, with device = 'cpu'"
            " while it stays away"
        ) from error


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0]
