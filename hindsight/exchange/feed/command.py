"""`hindsight feed`: the feed in a process of its own, until it is told to stop."""

import asyncio
import logging
import signal
import time
from random import Random

from hindsight.exchange.feed.feed import run_feed
from hindsight.exchange.feed.part import Times
from hindsight.settings import Settings


def run_feed_command(settings: Settings) -> None:
    """Feeds until SIGINT or SIGTERM. Raises SettingRefused and HomeUnwritable."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("asyncio").addFilter(_is_news)
    asyncio.run(_run(settings))


def machine_times() -> Times:
    """This machine's clocks and chance; its monotonic clock also counts while the machine is asleep, if it can."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Times(
        monotonic=lambda: time.clock_gettime(clock),
        local_ms=lambda: time.time_ns() // 1_000_000,
        generator=Random(),
    )


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run_feed(settings, machine_times(), stop)


def _is_news(record: logging.LogRecord) -> bool:
    """ccxt leaves behind futures of connections that were lost; that they were is in the log already."""
    return "never retrieved" not in record.getMessage()
