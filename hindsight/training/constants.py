"""Constants as tensors, once per device: to take one there with every batch would make the device wait for the host.

A list in square brackets is such a constant as well: `x[:, [0, 3]]` cannot be recorded on a GPU, and
`x.index_select(1, places((0, 3), x.device))` can.
"""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The values [N] as float32 on `device`. Not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def places(values: tuple[int, ...], device: torch.device) -> Tensor:
    """The values [N] as int64 on `device`: what `index_select` takes. Not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.int64, device=device)
