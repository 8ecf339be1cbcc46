"""What a recording asks of the work that is recorded, held to on a processor; and whether a GPU has recorded it."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hindsight.training.graphs import FIRST_DONE, Graphs, tensors_in, with_tensors

NUMBERS = (int, float, bool, torch.dtype)
ops = torch.ops.aten
# Whose result the host has to know before it can go on; with a mask in place of places, an index is one of them.
WAIT = (ops._local_scalar_dense.default, ops.nonzero.default, ops.masked_select.default)
INDEX = (ops.index.Tensor, ops.index_put.default, ops.index_put_.default, ops._index_put_impl_.default)


class Launches(TorchDispatchMode):
    """Every launch while it is entered, with the numbers that it is given. Nothing may wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs))
        chosen = [leaf for leaf in tree_leaves(args[1:2]) if isinstance(leaf, Tensor)] if func in INDEX else []
        assert func not in WAIT, "waits for the device"
        assert all(each.dtype != torch.bool for each in chosen), "waits for the device"
        # A number, or a list of places, that Python makes a tensor of: to take it to the device is to wait for it.
        assert func is not ops.lift_fresh.default, "brings a number from the host"
        self.seen.append((func, [leaf for leaf in leaves if isinstance(leaf, NUMBERS)]))
        return func(*args, **(kwargs or {}))


class PlayedAgain:
    """Stands where `Graphs` stands on a GPU. What was asked once is done for all that are asked later, on tensors that
    keep their places and are given the values of now; each time it is held to launch the same with the same numbers.
    """

    def __init__(self) -> None:
        self.done: dict[Hashable, int] = {}
        self.kept: dict[Hashable, tuple[Callable[[Any], Tensor], Any, list[object] | None]] = {}
        self.played = 0

    def run(self, name: Hashable, work: Callable[[Any], Tensor], given: Any) -> Tensor:
        key = (name, tuple((each.shape, each.dtype) for each in tensors_in(given)))
        self.done[key] = self.done.get(key, 0) + 1
        if self.done[key] <= FIRST_DONE:  # which readies the moments of an optimizer
            return work(given)
        first, kept, expected = self.kept.get(key) or (work, with_tensors(given, Tensor.clone), None)
        for place, tensor in zip(tensors_in(kept), tensors_in(given), strict=True):
            place.copy_(tensor)
        with Launches() as launches:
            found = first(kept)
        assert expected is None or launches.seen == expected
        self.kept[key] = first, kept, launches.seen
        self.played += 1
        return found.clone()


def is_recorded(graphs: Graphs, *names: str) -> bool:
    """Whether work of these names was recorded, and none was tried in vain."""
    found = {name[0] for (name, _), recorded in graphs.recorded.items() if recorded}
    return found >= set(names) and None not in graphs.recorded.values()
