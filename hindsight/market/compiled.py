"""Rules in the part of Python that numba compiles: the same function runs plain for a little, compiled for a lot."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np


@cache
def compiled(rule: Callable[..., Any]) -> Any:
    """`rule` compiled, once per process, and once per machine where its folder can be written."""
    from numba import njit  # 0.4 s to import: only where it pays

    return njit(cache=True)(rule)


def read_only(numbers: np.ndarray) -> np.ndarray:
    """The same numbers, contiguous. numba compiles anew for each mixture of writable and read-only arrays, and polars
    hands out both."""
    view = np.ascontiguousarray(numbers).view()
    view.flags.writeable = False
    return view
