"""Constants as tensors, once per device: to take one there with every batch would make the device wait for the host."""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The values [N] as float32 on `device`. Not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)
