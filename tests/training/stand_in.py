"""A stand-in for a GPU: a device of its own to torch, whose numbers lie in the host's memory and are computed there.

It refuses what a GPU refuses: numbers of the host's and of the device's in one operation, and while work is recorded,
whatever brings something there or waits for it. What is recorded is not done, and played it does the same again, at the
same places and with the same numbers of Python's. It says nothing of kernels, of what happens at the same time, or of
speed. Where a GPU is, torch would take it for that: nobody stands in there.

Source: torch.utils.backend_registration, https://docs.pytorch.org/docs/stable/notes/extending.html (tensor subclasses)
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ops = torch.ops.aten
# The host has to know their result before it can go on.
WAIT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# With a mask in place of places, it has to know that of an index.
INDEX = (ops.index.Tensor, ops.index_put.default, ops.index_put_.default, ops._index_put_impl_.default)


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


IS_NEEDED = not torch.cuda.is_available()
if IS_NEEDED:
    # With its first gradient torch starts a thread for every device that it knows: by then it has to know this one.
    backend_registration._setup_privateuseone_for_python_backend("standin", backend_module=_Module())
STAND_IN = torch.device("standin:0" if IS_NEEDED else "meta")
_entered: list["Device"] = []


def entered() -> "Device":
    """The one that is entered in this process, by all of its threads."""
    assert _entered, "the stand-in is used where no Device is entered"
    return _entered[-1]


class There(Tensor):
    """A tensor on the device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        found = Tensor._make_wrapper_subclass(cls, held.shape, **layout, device=STAND_IN)
        found.held = held
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} is asked for while no Device is entered")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> "There":
        found = There(self.held.detach().clone()).requires_grad_(self.requires_grad)
        found._is_param = getattr(self, "_is_param", False)  # by which torch knows a parameter of another class
        return memo.setdefault(id(self), found)


class Device(TorchDispatchMode):
    """While it is entered, the stand-in is there. Counts how often the host waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.stream = Stream()
        self.is_spoilt = False  # what is being recorded
        self.recorded: list[Callable[[], None]] | None = None  # while work is recorded: what is to be done

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        there = [tensor for tensor in tensors if isinstance(tensor, There)]
        goes_there = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == STAND_IN.type
        if not there and not goes_there:
            return func(*args, **kwargs)
        if func in (ops._to_copy.default, ops.copy_.default):
            return self._copy(func, args, kwargs, goes_there)
        # One number of the host's is a number like one of Python's.
        is_mixed = any(tensor.ndim for tensor in tensors if not isinstance(tensor, There))
        assert not is_mixed, f"{func} is asked for with tensors of the host's and of the device's"
        masks = [places for places in _tensors(args[1:2]) if places.dtype == torch.bool]
        if masks if func in INDEX else WAIT & set(func.tags):
            self.cross(is_waited_for=True)
        return self._do(func, args, kwargs)

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any], goes_there: bool) -> Any:
        """From one device to another, or on one."""
        if func is ops.copy_.default:
            comes_from_there, goes_there = (isinstance(tensor, There) for tensor in (args[1], args[0]))
        else:
            comes_from_there = isinstance(args[0], There)
            goes_there = goes_there or (comes_from_there and kwargs.get("device") is None)
        if comes_from_there and goes_there:
            return self._do(func, args, kwargs)
        is_nobody_waiting = kwargs.get("non_blocking", len(args) > 2 and args[2])
        self.cross(is_waited_for=comes_from_there or not is_nobody_waiting)
        found = func(*tree_map(_held, args), **_here(kwargs))
        if func is ops.copy_.default:
            return args[0]
        return There(found) if goes_there else found

    def _do(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Does it, on the device alone; what is recorded is not done, but for views, which do nothing."""
        given, held_kwargs = tree_map(self._as_it_is, args), _here(kwargs)
        do = OF_GPUS.get(func, func)
        written = [place for place in _tensors((args, kwargs)) if isinstance(place, There)]
        if self.recorded is None:
            return _there(do(*given, **held_kwargs), written)
        if func._schema.is_mutable:
            self.recorded.append(lambda: do(*given, **held_kwargs))
            returned = [each.alias_info is not None for each in func._schema.returns]
            return args[0] if any(returned) else None
        found = do(*given, **held_kwargs)
        if not any(each.alias_info for each in func._schema.returns):
            places = _tensors(found)
            self.recorded.append(lambda: _fill(places, do(*given, **held_kwargs)))
        return _there(found, written)

    def _as_it_is(self, value: Any) -> Any:
        """Where its numbers are; one of the host's is recorded as it is now."""
        if self.recorded is not None and isinstance(value, Tensor) and not isinstance(value, There):
            return value.clone()
        return _held(value)

    def cross(self, *, is_waited_for: bool) -> None:
        """From one device to the other: nothing that can be recorded."""
        if self.recorded is not None:
            self.is_spoilt = True
            raise RuntimeError("operation not permitted when stream is capturing")
        self.waits += is_waited_for


def _fill(places: list[Tensor], found: Any) -> None:
    for place, new in zip(places, _tensors(found), strict=True):
        place.copy_(new)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _held(value: Any) -> Any:
    return value.held if isinstance(value, There) else value


def _here(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same, asked of the host."""
    found = {name: tree_map(_held, value) for name, value in kwargs.items()}
    return found | {"device": torch.device("cpu")} if found.get("device") is not None else found


def _there(found: Any, written: Sequence[There]) -> Any:
    """What was found, on the device; what was written to in place is what it was."""
    known = {id(tensor.held): tensor for tensor in written}

    def take(each: Any) -> Any:
        return known[id(each)] if id(each) in known else There(each)

    return tree_map(lambda each: take(each) if isinstance(each, Tensor) else each, found)


# What torch asks of the device by itself, as where Python makes a tensor there.
def _copy_from(source: Tensor, place: Tensor, non_blocking: bool = False) -> Tensor:
    entered().cross(is_waited_for=not non_blocking or isinstance(source, There))
    _held(place).copy_(_held(source))
    return place


_BELOW = {
    "empty.memory_format": lambda size, dtype=None, **_: There(torch.empty(size, dtype=dtype)),
    "empty_strided": lambda size, stride, dtype=None, **_: There(torch.empty_strided(size, stride, dtype=dtype)),
    "_copy_from": _copy_from,
}
_LIBRARY = torch.library.Library("aten", "IMPL")
for _name, _do in _BELOW.items() if IS_NEEDED else ():
    _LIBRARY.impl(_name, _do, "PrivateUse1")


# The cell of an LSTM, which torch has for GPUs alone. The workspace are its gates.
def _cell(inputs: Tensor, hidden: Tensor, cell: Tensor, *biases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gates = (inputs + hidden + sum(biases)).chunk(4, dim=1)
    take, keep, new, show = gates[0].sigmoid(), gates[1].sigmoid(), gates[2].tanh(), gates[3].sigmoid()
    found = keep * cell + take * new
    return show * found.tanh(), found, torch.cat([take, keep, new, show], dim=1)


def _cell_backward(
    grad_state: Tensor | None, grad_cell: Tensor | None, before: Tensor, cell: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    take, keep, new, show = gates.chunk(4, dim=1)
    state, grown = torch.zeros_like(cell) if grad_state is None else grad_state, cell.tanh()
    through = state * show * (1 - grown**2) + (0 if grad_cell is None else grad_cell)
    grads = torch.cat(
        [
            through * new * take * (1 - take),
            through * before * keep * (1 - keep),
            through * take * (1 - new**2),
            state * grown * show * (1 - show),
        ],
        dim=1,
    )
    return grads, through * keep, grads.sum(0) if has_bias else None


OF_GPUS = {ops._thnn_fused_lstm_cell.default: _cell, ops._thnn_fused_lstm_cell_backward_impl.default: _cell_backward}


class Recording:
    """Stands where `torch.cuda.CUDAGraph` does."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        for do in self.work:
            do()


class Stream:
    """Stands where `torch.cuda.Stream` does: all that is asked for is done at once, in its order."""

    def __init__(self, priority: int = 0) -> None:
        pass

    def wait_stream(self, other: "Stream") -> None:
        pass


@contextmanager
def stood_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """While it lasts, the device is there, and work on it can be recorded."""
    if not IS_NEEDED:
        pytest.skip("a GPU is there: nobody stands in for it")
    device = Device()

    @contextmanager
    def graph(recording: Recording, *, stream: Stream, **_: Any) -> Iterator[None]:
        before, device.stream = device.stream, stream
        device.recorded, device.is_spoilt = recording.work, False
        try:
            yield
        finally:
            device.recorded = None
            if device.is_spoilt:  # as in torch, which then stays on that stream
                raise RuntimeError("operation failed due to a previous error during capture")
            device.stream = before

    @contextmanager
    def on_stream(stream: Stream) -> Iterator[None]:
        before, device.stream = device.stream, stream
        try:
            yield
        finally:
            device.stream = before

    usual = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        with device:
            usual(thread)

    stand_ins = {
        "CUDAGraph": Recording,
        "graph": graph,
        "graph_pool_handle": object,
        "Stream": Stream,
        "current_stream": lambda: device.stream,
        "stream": on_stream,
    }
    with monkeypatch.context() as patch:
        for name, stand_in in stand_ins.items():
            patch.setattr(torch.cuda, name, stand_in)
        patch.setattr(threading.Thread, "run", run)
        # Tensors of other classes know no inference mode.
        patch.setattr(torch._C, "_InferenceMode", lambda is_on: torch.set_grad_enabled(not is_on))
        _entered.append(device)
        try:
            with device:
                yield device
        finally:
            _entered.clear()
