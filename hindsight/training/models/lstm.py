"""The LSTM: each block in the order of time, a few rows at once, so that 60 steps lead to the newest and not 300.

Legend: B references, L rows of a block, C channels, N patches, D width. Source: Hochreiter & Schmidhuber 1997,
doi:10.1162/neco.1997.9.8.1735
"""

from dataclasses import asdict, dataclass

from torch import Tensor, nn

from hindsight.inference.blocks import Frame
from hindsight.inference.shape import FrameShape
from hindsight.training.models.fusion import Fusion, windows
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model
from hindsight.training.views import sizes_of, views


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmConfig:
    """About 51,000 weights per block of candles, and 23,000 around them."""

    patch: int = 5
    width: int = 64

    def __str__(self) -> str:
        return f"lstm {asdict(self)}"


class Recurrence(nn.Module):
    """The rows of one block into the state [B, D] after the newest."""

    def __init__(self, channels: int, config: LstmConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.embed = nn.Linear(config.patch * channels, config.width)
        self.recurrent = nn.LSTM(config.width, config.width, batch_first=True)

    def forward(self, x_BLC: Tensor) -> Tensor:
        _, (state_1BD, _) = self.recurrent(self.embed(windows(x_BLC, self.patch, self.patch)))
        return state_1BD[0]


class Lstm(nn.Module):
    """Frames of one shape in, a ModelOutput out."""

    def __init__(self, config: LstmConfig, shape: FrameShape) -> None:
        super().__init__()
        self.shape, sizes = shape, sizes_of(shape)
        self.recurrences = nn.ModuleList(Recurrence(channels, config) for _, channels in sizes.sequences)
        self.fusion = Fusion(sizes, config.width)
        self.heads = Opinion(config.width)

    def forward(self, frame: Frame[Tensor]) -> ModelOutput:
        seen = views(frame, self.shape)
        states = [recurrence(x_BLC) for recurrence, x_BLC in zip(self.recurrences, seen.sequences, strict=True)]
        return self.heads(self.fusion(states, seen.context))


MODEL = Model(config=LstmConfig(), build=Lstm)
