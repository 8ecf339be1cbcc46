"""Dagster's daemon, looking at its sensors four times a second, and for backfills every three seconds.

    python -m pipelines.home.daemon run --workspace FILE

Dagster looks every 5 s and every 30 s, and has no settings for it. A sensor whose tick has just ended, because
something happened or because nothing did, would miss what happens until then; and whoever launches a backfill in the
UI would wait half a minute for its first run, and as long again to be told that it is done. While the code server is
away, each look of each sensor is a traceback: it is told in one line instead.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator

import dagster._daemon.controller as daemons
import dagster._daemon.sensor as sensors
from dagster._core.errors import DagsterCodeLocationNotFoundError, DagsterUserCodeUnreachableError
from dagster._daemon.cli import cli
from dagster._daemon.utils import DaemonErrorCapture
from dagster._utils.error import ExceptionInfo, SerializableErrorInfo, serializable_error_info_from_exc_info

LOOK_EVERY_SECONDS, BACKFILLS_EVERY_SECONDS = 0.25, 3
SAME_OUTAGE_SECONDS = 15.0  # without an attempt that failed, after which the next one is of another outage


class Outages:
    """Tells of each stretch of time without a code server once; Dagster's ticks keep every failure all the same."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.failed_at = clock, -math.inf

    def process(self, exc_info: ExceptionInfo, logger: logging.Logger, log_message: str) -> SerializableErrorInfo:
        """In place of Dagster's `DaemonErrorCapture.process_exception`, which logs a traceback."""
        raised = list(_chain(exc_info[1]))
        if any(isinstance(each, DagsterCodeLocationNotFoundError) for each in raised):
            # The daemon knows its code from the start until it stops, while a tick may still be going on.
            logger.debug("%s without any code", log_message)
        elif any(isinstance(each, DagsterUserCodeUnreachableError) for each in raised):
            before, self.failed_at = self.failed_at, self.clock()
            if self.failed_at - before >= SAME_OUTAGE_SECONDS:
                logger.warning("the code server does not answer; sensors go on once it does")
        else:
            logger.error(log_message, exc_info=exc_info)
        return serializable_error_info_from_exc_info(exc_info)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    DaemonErrorCapture.process_exception = staticmethod(Outages(time.monotonic).process)
    for module, name, seconds in (
        (sensors, "MIN_INTERVAL_LOOP_TIME", LOOK_EVERY_SECONDS),
        (daemons, "DEFAULT_DAEMON_INTERVAL_SECONDS", BACKFILLS_EVERY_SECONDS),
    ):
        if not hasattr(module, name):
            raise SystemExit(f"this Dagster has no {name}: see pipelines/home/daemon.py")
        setattr(module, name, seconds)
    cli()
