"""Faults: ways in which a venue misbehaves on demand, so that what a feed does about them can be tested.

    venue.faults.add("drop", stream="ethusdt@kline_1m", only="closing", count=2)
    curl -d '{"fault": "drop", "stream": "ethusdt@kline_*", "count": 3}' http://127.0.0.1:8123/control/faults

| fault | what happens to each of `count` messages of streams like `stream`, after the first `after` |
|---|---|
| drop, duplicate | it is left out; it comes twice |
| delay | it comes `seconds` later, while those after it come on time |
| reorder | it comes after the one that follows it |
| corrupt, truncate | its text is no JSON; its text ends half way |
| field | its field `name` (k.c, b.0.1) is `value`, or missing where no value is given |
| break_chain | a depth message pretends that one before it got lost |
| cross | a depth message puts an ask below its bids, where it stays; a bookTicker has bid and ask swapped |
| close | every connection that listens to it ends, with close code `code`, or without any where that is 0 |
| half_open | every connection that listens to it stays open and falls silent, for `seconds` (0: for ever); pings too |
| correct | (closing candles) `seconds` later it comes again with `values`, by REST too; by default close = high |
| gap | `candles` candles are left out, from the next to open; `where` = stream, rest or both |
| status | (requests for paths like `path`) the answer is `status`, with Retry-After where `retry_after` says so |
| answer | (requests) the field `name` (0.4: of rows, counted) of the answer is `value`; all of it without a `name` |
| slow | (requests) the answer comes `seconds` later |
| skew | its clock is `ms` ahead, in /time and in event times, until the fault is removed |

Seconds are this machine's. `count` = 0 goes on until the fault is removed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Literal, get_args

from hindsight.errors import SettingRefused

Kind = Literal[
    "drop",
    "duplicate",
    "delay",
    "reorder",
    "corrupt",
    "truncate",
    "field",
    "break_chain",
    "cross",
    "close",
    "half_open",
    "correct",
    "gap",
    "status",
    "answer",
    "slow",
    "skew",
]
MISSING = object()
OF_REQUESTS = frozenset({"status", "answer", "slow"})
STANDING = frozenset({"skew", "gap"})  # judged by time, not by counting messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, where, and how often: the words of the table above."""

    fault: Kind
    stream: str = "*"
    path: str = "/api/*"
    count: int = 1
    after: int = 0
    only: Literal["any", "closing", "forming"] = "any"
    seconds: float = 0.0
    name: str = ""
    value: object = MISSING
    values: Mapping[str, str] = field(default_factory=dict)
    code: int = 0
    candles: int = 1
    where: Literal["stream", "rest", "both"] = "both"
    status: int = 503
    retry_after: int | None = None
    ms: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("fault", Kind), ("only", _ONLY), ("where", _WHERE)):
            if getattr(self, name) not in get_args(allowed):
                words = ", ".join(get_args(allowed))
                raise SettingRefused(f"fault {name} = {getattr(self, name)!r}: expected one of {words}")
        for name in ("count", "after", "candles", "status", "ms", "seconds", "code"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or (number < 0 and name != "ms"):
                raise SettingRefused(f"fault {self.fault}: {name} = {number!r}, expected a number that is not negative")
        if self.fault == "field" and not self.name:
            raise SettingRefused("fault field: name says which field, as in k.c or b.0.1")

    @classmethod
    def read(cls, told: object) -> "Fault":
        """The fault that a JSON object describes. Raises SettingRefused for words that it does not know."""
        if not isinstance(told, Mapping) or "fault" not in told:
            raise SettingRefused(f'fault {told!r}: expected an object like {{"fault": "drop", "stream": "*@trade"}}')
        unknown = set(told) - {each.name for each in fields(cls)}
        if unknown:
            raise SettingRefused(f"fault {told['fault']!r} has no {', '.join(sorted(map(str, unknown)))}")
        return cls(**told)

    def shown(self) -> dict[str, object]:
        """The fault as JSON, without what it leaves at its default."""
        usual = Fault(fault=self.fault, name="-")
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in told.items() if name == "fault" or value != getattr(usual, name)}


_ONLY = Literal["any", "closing", "forming"]
_WHERE = Literal["stream", "rest", "both"]


@dataclass(slots=True)
class Armed:
    """A fault that waits for its moment, and how often it has struck."""

    number: int
    fault: Fault
    since_ms: int  # the venue's clock when it was armed
    fired: int = 0
    passed: int = 0

    @property
    def is_spent(self) -> bool:
        return self.fault.fault not in STANDING and 0 < self.fault.count <= self.fired

    def takes_message(self, stream: str, message: Mapping[str, object]) -> bool:
        """Whether it strikes this message; counts it either way."""
        fault = self.fault
        if fault.fault in OF_REQUESTS | STANDING or self.is_spent or not fnmatchcase(stream, fault.stream):
            return False
        kline = message.get("k")
        is_closing = isinstance(kline, Mapping) and kline.get("x") is True
        if (fault.only == "closing" or fault.fault == "correct") and not is_closing:
            return False
        if fault.only == "forming" and (is_closing or kline is None):
            return False
        if (fault.fault == "break_chain" and "U" not in message) or (fault.fault == "cross" and "b" not in message):
            return False
        return self._counted()

    def takes_request(self, path: str) -> bool:
        """Whether it strikes this request; counts it either way."""
        if self.fault.fault not in OF_REQUESTS or self.is_spent or not fnmatchcase(path, self.fault.path):
            return False
        return self._counted()

    def leaves_out(self, where: Literal["stream", "rest"], stream: str, open_ms: int, step_ms: int) -> bool:
        """Whether it is a gap in which this candle lies; it begins with the next candle to open."""
        fault = self.fault
        if fault.fault != "gap" or fault.where not in (where, "both") or not fnmatchcase(stream, fault.stream):
            return False
        first_ms = -(-self.since_ms // step_ms) * step_ms
        return first_ms <= open_ms < first_ms + fault.candles * step_ms

    def _counted(self) -> bool:
        self.passed += 1
        if self.passed <= self.fault.after:
            return False
        self.fired += 1
        return True
