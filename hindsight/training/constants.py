"""Constants as tensors, once per device: to take one there with every batch would make the device wait for the host.

A list in square brackets is such a constant as well: `x[:, [0, 3]]` cannot be recorded on a GPU, and
`x.index_select(1, constant((0, 3), x.device, torch.int64))` can.
"""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values [N] on `device`; as int64, what `index_select` takes. Not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
