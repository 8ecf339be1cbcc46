"""Where the time goes: functions are timed from outside, each without the timed functions that it calls.

A profiler would slow the many small Python calls around torch and so blame them; these clocks read twice per call.
"""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Watched = tuple[Any, str, str]  # owner (module or class), name of the function in it, what to call the time in it
Clock = Callable[[], float]


@contextmanager
def watching(watched: Iterable[Watched], clock: Clock = time.perf_counter) -> Iterator[dict[str, float]]:
    """Seconds spent in the watched functions, by what they are called, each without the others inside it.

    By the clock on the wall, or by another one: that of the processor leaves out what else the machine does.
    """
    spent: dict[str, float] = defaultdict(float)
    inner = [0.0]  # seconds of watched calls within the call at hand, per depth

    def clocked(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            inner.append(0.0)
            started = clock()
            try:
                return function(*args, **given)
            finally:
                took = clock() - started
                spent[label] += took - inner.pop()
                inner[-1] += took

        return call

    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in watched]
    for owner, name, label in watched:
        setattr(owner, name, clocked(getattr(owner, name), label))
    try:
        yield spent
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
