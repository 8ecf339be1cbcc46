"""Dagster's daemon, looking at its sensors four times a second, and for backfills every three seconds.

    python -m pipelines.daemon run --workspace FILE

Dagster looks every 5 s and every 30 s, and has no settings for it. A sensor whose tick has just ended, because
something happened or because nothing did, would miss what happens until then; and whoever launches a backfill in the
UI would wait half a minute for its first run, and as long again to be told that it is done.
"""

import dagster._daemon.controller as daemons
import dagster._daemon.sensor as sensors
from dagster._daemon.cli import cli

LOOK_EVERY_SECONDS, BACKFILLS_EVERY_SECONDS = 0.25, 3

if __name__ == "__main__":
    for module, name, seconds in (
        (sensors, "MIN_INTERVAL_LOOP_TIME", LOOK_EVERY_SECONDS),
        (daemons, "DEFAULT_DAEMON_INTERVAL_SECONDS", BACKFILLS_EVERY_SECONDS),
    ):
        if not hasattr(module, name):
            raise SystemExit(f"this Dagster has no {name}: see pipelines/daemon.py")
        setattr(module, name, seconds)
    cli()
