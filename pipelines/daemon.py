"""Dagster's daemon, looking at its sensors four times a second.

    python -m pipelines.daemon run --workspace FILE

Dagster looks every 5 s, and has no setting for it: a sensor whose tick has just ended, because something happened or
because nothing did, would miss what happens until then.
"""

import dagster._daemon.sensor as sensors
from dagster._daemon.cli import cli

LOOK_EVERY_SECONDS = 0.25

if __name__ == "__main__":
    if not hasattr(sensors, "MIN_INTERVAL_LOOP_TIME"):
        raise SystemExit("this Dagster has no MIN_INTERVAL_LOOP_TIME: see pipelines/daemon.py")
    sensors.MIN_INTERVAL_LOOP_TIME = LOOK_EVERY_SECONDS
    cli()
