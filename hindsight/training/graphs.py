"""Work of fixed shapes on a GPU, recorded once as a CUDA graph and then played: hundreds of small launches become one.

The first times that work of some shape is asked for it is simply done, which readies what it needs (moments of the
optimizer, handles of libraries); then it is recorded, which does not do it, and played. What cannot be recorded is done
as before. Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

FIRST_DONE = 3
# Models learn side by side in threads, and a process can record one thing at a time.
_RECORDING = Lock()
Given = TypeVar("Given")


@dataclass(slots=True)
class Recorded:
    """A graph, the tensors that it reads and the one that it leaves."""

    graph: torch.cuda.CUDAGraph
    reads: list[Tensor]
    found: Tensor


@dataclass(slots=True)
class Graphs:
    """What has been recorded of one learner, or of one stack, and how often the rest was done."""

    recorded: dict[Hashable, Recorded | None] = field(default_factory=dict)  # None: it cannot be
    done: dict[Hashable, int] = field(default_factory=dict)
    pool: Any = None  # of memory, shared: one graph plays at a time
    aside: torch.cuda.Stream | None = None  # where what is recorded later is done at first

    def run(self, name: tuple[Any, ...], work: Callable[[Given], Tensor], given: Given) -> Tensor:
        """`work(given)`: a tensor. All else that it reads must stay at its place, and it must not wait for the device.

        `name` is a word, and whatever besides the tensors of `given` would make it other work.
        """
        tensors = tensors_in(given)
        key = (name, tuple((each.shape, each.dtype) for each in tensors))
        # Who finds another recording does not wait for it, which may hang, and is recorded some other time.
        if key not in self.recorded and self.done.get(key, 0) >= FIRST_DONE and _RECORDING.acquire(blocking=False):
            try:
                self.recorded[key] = self._record(name, work, given)
            finally:
                _RECORDING.release()
        recorded = self.recorded.get(key)
        if recorded is None:
            self.done[key] = self.done.get(key, 0) + 1
            return self._aside(work, given)
        for place, tensor in zip(recorded.reads, tensors, strict=True):
            place.copy_(tensor)
        recorded.graph.replay()
        return recorded.found.clone()

    def _record(self, name: tuple[Any, ...], work: Callable[[Given], Tensor], given: Given) -> Recorded | None:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        kept = with_tensors(given, Tensor.clone)
        graph = torch.cuda.CUDAGraph()
        try:
            # The others go on meanwhile: in the usual mode, what they ask of the device would fail, and this with it.
            recording = torch.cuda.graph(
                graph, pool=self.pool, stream=_recording_stream(), capture_error_mode="thread_local"
            )
            with torch.cuda.stream(torch.cuda.current_stream()), recording:  # one that fails stays on its own stream
                found = work(kept)
        except RuntimeError as error:
            self.pool = None  # later recordings share nothing with one that failed
            if isinstance(error, torch.OutOfMemoryError):
                raise
            logger.warning("'%s' is not recorded as a CUDA graph, and done launch by launch: %s", name[0], error)
            return None
        return Recorded(graph, tensors_in(kept), found)

    def _aside(self, work: Callable[[Given], Tensor], given: Given) -> Tensor:
        """On a stream beside the usual one, as what is recorded later asks for."""
        self.aside, usual = self.aside or torch.cuda.Stream(), torch.cuda.current_stream()
        self.aside.wait_stream(usual)
        with torch.cuda.stream(self.aside):
            found = work(given)
        usual.wait_stream(self.aside)
        return found


@cache
def _recording_stream() -> torch.cuda.Stream:
    """The stream on which is recorded: none of those that learners work on, which come from another pool."""
    return torch.cuda.Stream(priority=-1)


def graphs_for(device: torch.device) -> Graphs | None:
    """Where what is recorded on the device is kept: of a processor there is nothing to record."""
    return None if device.type == "cpu" else Graphs()


def played(graphs: Graphs | None, name: tuple[Any, ...], work: Callable[[Given], Tensor], given: Given) -> Tensor:
    """`work(given)`; where there are graphs, as one that is recorded once: see `Graphs.run`."""
    return work(given) if graphs is None else graphs.run(name, work, given)


def with_tensors(value: Given, change: Callable[[Tensor], Tensor]) -> Given:
    """The value with every tensor in it changed, through dataclasses, tuples and named tuples."""
    found: Any = value
    if isinstance(value, Tensor):
        found = change(value)
    elif isinstance(value, tuple):
        parts = [with_tensors(part, change) for part in value]
        found = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{each.name: with_tensors(getattr(value, each.name), change) for each in fields(value)})
    return found


def tensors_in(value: object) -> list[Tensor]:
    """The tensors in it, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    with_tensors(value, note)
    return found
