"""Letting a live home come to rest: the market stands still, and everything that is due is done."""

import math
import time
from collections.abc import Callable

from benchmarks.live.stage import Stage
from hindsight.exchange.landing import Landing
from hindsight.market.streams import to_ms
from hindsight.store.inference_tables import learned_until
from hindsight.store.market_tables import pivot_mark

CAUGHT_UP = 4  # closes behind: at 60 times the speed of a market the next ones come every second
REST_SECONDS = 300.0  # a part that was killed often starts again half a minute later


def come_to_rest(running: Stage, seconds: float = REST_SECONDS) -> float | None:
    """Lets the tables catch up with the venue, stops it, and returns the seconds from then on until nothing was left
    to do; None where one or the other did not come in time.
    """
    if not _waited(lambda: closes_behind(running) <= CAUGHT_UP, seconds):
        return None
    running.venue.stop()
    stopped = time.monotonic()
    return time.monotonic() - stopped if _waited(lambda: is_at_rest(running), seconds) else None


def closes_behind(running: Stage) -> float:
    """Candles that the venue has closed and the tables do not know of, of the stream that has most of them."""
    settings, now_ms = running.settings, running.venue.now_ms()
    with running.warehouse.reading() as con:
        marks = [(stream, pivot_mark(con, stream)) for stream in settings.streams]
    return max(math.inf if mark is None else (now_ms - to_ms(mark.as_of)) // stream.step_ms for stream, mark in marks)


def is_at_rest(running: Stage) -> bool:
    """Whether all candles that landed are stored, and all that are stored are learned from."""
    settings = running.settings
    if any(path.name.endswith("-candles.jsonl") for path in Landing(settings.landing_path).segments()):
        return False
    with running.warehouse.reading() as con:
        for stream in settings.streams:
            mark = pivot_mark(con, stream)
            done = [learned_until(con, model, stream) for model in settings.models]
            if mark is None or any(each is None or each[1] != mark.as_of for each in done):
                return False
    return True


def _waited(is_so: Callable[[], bool], seconds: float) -> bool:
    """Whether it came to be so within `seconds`."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True
