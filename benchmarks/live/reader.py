"""A reader, as the UI and `hindsight status` are: how long it waits for its turn, and how far the tables are.

    python -m benchmarks.live.reader HOME FILE SECONDS

One JSON line each SECONDS, until it is told to stop: when it asked (seconds since 1970), seconds until it could read,
and the newest close of each stream, in milliseconds.
"""

import json
import sys
import time
from pathlib import Path
from typing import TextIO

from hindsight.errors import HindsightError
from hindsight.store.warehouse import Warehouse

# Pivots see every candle in the transaction that stores it, and their states are a table of a few rows.
NEWEST = """
select venue || ' ' || symbol || ' ' || timeframe, epoch_ms(max(as_of))
from pivot_states
group by all"""


def read_on(warehouse: Warehouse, out: TextIO, every_seconds: float) -> None:
    """Reads again and again."""
    due = time.monotonic()
    while True:
        asked, started = time.time(), time.monotonic()
        closes, waited, refused = {}, None, ""
        try:
            with warehouse.reading() as con:
                waited = time.monotonic() - started
                closes = dict(con.execute(NEWEST).fetchall())
        except HindsightError as error:
            refused = f"{type(error).__name__}: {error}"
        waited = time.monotonic() - started if waited is None else waited
        told = {"asked": asked, "waited": waited, "closes": closes, "refused": refused}
        print(json.dumps(told), file=out, flush=True)
        due = max(due + every_seconds, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a") as file:
        path = Path(sys.argv[1]) / "hindsight.duckdb"
        read_on(Warehouse(path=path, lock_timeout_seconds=60.0), file, float(sys.argv[3]))
