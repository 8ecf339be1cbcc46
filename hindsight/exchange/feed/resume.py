"""Where a feed goes on: after what the tables store and what was landed, whichever is newer."""

import json
from collections.abc import Iterable
from itertools import islice

from hindsight.errors import HomeUnwritable
from hindsight.exchange.feed.sequence import REMEMBERED
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import Row
from hindsight.market.streams import Stream

TRADES_READ = 300  # segments, back from the newest, for the last trade


def positions(landing: Landing, streams: Iterable[Stream]) -> dict[str, int]:
    """The open time of each stream's last candle; streams without one are left out.

    Raises HomeUnwritable where resume.json, which `hindsight up` writes, is not what it should be.
    """
    path = landing.folder / "resume.json"
    try:
        stored = {str(name): int(open_time_ms) for name, open_time_ms in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        stored = {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise HomeUnwritable(
            f"{path} does not say where each stream goes on: {error}. Delete it: `hindsight up` writes it anew"
        ) from error
    newest = {str(stream): landing.newest(str(stream)) or 0 for stream in streams}
    both = {name: max(landed, stored.get(name, 0)) for name, landed in newest.items()}
    return {name: position for name, position in both.items() if position}


def known_candles(landing: Landing, streams: Iterable[Stream]) -> dict[str, list[Row]]:
    """What was landed last of each stream, oldest first, so that a correction is told from a repeat."""
    known: dict[str, list[Row]] = {str(stream): [] for stream in streams}
    for _, segment in landing.backwards("candles"):
        for row in reversed(segment.rows):
            if row["stream"] in known:
                known[row["stream"]].append(row)
        if all(len(rows) >= REMEMBERED for rows in known.values()):
            break
    return {name: rows[::-1] for name, rows in known.items()}


def newest_trade(landing: Landing, symbol: str) -> tuple[int, int] | None:
    """Id and time of the last trade landed of a symbol, where ids count."""
    for _, segment in islice(landing.backwards("trades"), TRADES_READ):
        ids = [(row["trade_id"], row["time_ms"]) for row in segment.rows if row["symbol"] == symbol]
        if numbers := [each for each in ids if isinstance(each[0], int)]:
            return max(numbers)
    return None
