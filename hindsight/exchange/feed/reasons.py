"""Why something that a venue said is not used: the few words that feed.json counts by."""

from enum import StrEnum


class Reason(StrEnum):
    """One of a fixed set; what exactly was found stands in the log."""

    NO_JSON = "no JSON"
    UNREADABLE = "unreadable"  # JSON, but no message, row or answer of the kind expected
    NOT_ASKED_FOR = "nobody asked for it"
    MISSING = "a field is missing"
    NO_NUMBER = "no number"
    NEGATIVE = "negative"  # or 0, of a price or a traded amount
    NO_INSTANT = "no instant"
    FROM_THE_FUTURE = "from the future"
    CONTRADICTORY = "contradictory"  # a close above the high, an open time between two candles
    # Of order books; those of hindsight.market.book_seconds.
    EMPTY = "empty"
    MALFORMED = "malformed"
    CROSSED = "crossed"
    OUT_OF_ORDER = "out of order"
    STALE = "stale"  # seconds that a dead book was left out of
    LATE = "late"  # books of a second that had been given out already
