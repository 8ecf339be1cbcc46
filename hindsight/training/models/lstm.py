"""The LSTM: candles in the order of time, a few at once, so that it takes 60 steps to the newest instead of 300.

Legend: B references, L candles, C channels, N patches, D width. Source: Hochreiter & Schmidhuber 1997,
doi:10.1162/neco.1997.9.8.1735
"""

from dataclasses import asdict, dataclass

from torch import Tensor, nn

from hindsight.training.channels import CHANNELS, channels
from hindsight.training.models.opinion import ModelOutput, Opinion
from hindsight.training.models.registry import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmConfig:
    """The default has about 48,000 weights."""

    lookback: int = 300
    patch: int = 5
    width: int = 64

    def __post_init__(self) -> None:
        if self.lookback % self.patch:
            raise ValueError(f"lookback {self.lookback} cannot be cut into patches of {self.patch} candles")

    def __str__(self) -> str:
        return f"lstm {asdict(self)}"


class Lstm(nn.Module):
    """Frames and their norm_params in, a ModelOutput out."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.embed = nn.Linear(config.patch * CHANNELS, config.width)
        self.recurrent = nn.LSTM(config.width, config.width, batch_first=True)
        self.norm = nn.LayerNorm(config.width)
        self.heads = Opinion(config.width)
        self.heads.hold_none()

    def forward(self, frames_BLF: Tensor, norm_B4: Tensor) -> ModelOutput:
        x_BLC = channels(frames_BLF, norm_B4)
        x_BND = self.embed(x_BLC.unflatten(1, (-1, self.patch)).flatten(2))
        _, (state_1BD, _) = self.recurrent(x_BND)
        return self.heads(self.norm(state_1BD[0]))


MODEL = Model(config=LstmConfig(), build=Lstm)
