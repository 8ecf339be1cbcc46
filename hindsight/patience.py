"""Patience: work that may hang, done in a thread that nobody waits for beyond its time."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from hindsight.errors import ModelTimedOut

Beat = Callable[[], None]  # tells that the work goes on
T = TypeVar("T")


class _Abandoned(BaseException):
    """Ends the work at its next beat, when nobody waits for it any more."""


def in_time(work: Callable[[Beat], T], seconds: float, who: str) -> T:
    """What comes of the work, which has to call its argument at least that often.

    Raises ModelTimedOut where it does not. Nothing ends a thread from outside: the work ends with its next beat, or
    with the process, and nothing that it still does is looked at. Work that never lets go of the interpreter is waited
    for all the same.
    """
    is_over, is_abandoned, future = queue.SimpleQueue[bool](), threading.Event(), Future[T]()

    def beat() -> None:
        if is_abandoned.is_set():
            raise _Abandoned
        is_over.put(False)

    def do(future: Future[T]) -> None:
        try:
            future.set_result(work(beat))
        except BaseException as error:  # raised again where it is waited for
            future.set_exception(error)
            del future  # what was raised holds this frame, which would hold it, and with it a learner on a full device
        is_over.put(True)

    threading.Thread(target=do, args=(future,), name=who, daemon=True).start()
    try:
        while not is_over.get(timeout=seconds):
            pass
    except queue.Empty:
        raise ModelTimedOut(
            f"{who}: expected a prediction or a training step at least every {seconds:g} s, found none for so long."
            " Raise model_timeout_seconds, or take the model out of `models`"
        ) from None
    else:
        return future.result()
    finally:
        is_abandoned.set()
        del future  # as above
