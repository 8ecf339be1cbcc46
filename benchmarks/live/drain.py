"""Letting a live home come to rest: the market stands still, and everything that is due is done."""

import time

from benchmarks.live.stage import Stage
from hindsight.exchange.landing import Landing
from hindsight.store.inference_tables import learned_until
from hindsight.store.market_tables import pivot_mark

REST_SECONDS = 300.0  # a part that was killed often starts again half a minute later


def come_to_rest(running: Stage, seconds: float = REST_SECONDS) -> float | None:
    """Stops the venue, and returns the seconds until nothing was left to do; None where that did not come in time."""
    running.venue.stop()
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if is_at_rest(running):
            return time.monotonic() - started
        time.sleep(1.0)
    return None


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
