"""What armed faults do to messages, connections, answers and candles on their way out."""

import copy
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from hindsight.exchange.venue.clock import Clock
from hindsight.exchange.venue.faults import Armed, Fault
from hindsight.exchange.venue.market import Kline, Message
from hindsight.exchange.venue.spoiled import break_chain, corrupted, cross, set_field

REMEMBERED = 1000  # spent faults that can still be looked at, and candles that REST shows corrected
WIRE_NAMES = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}


@dataclass(slots=True)
class Outcome:
    """What becomes of one message: texts with seconds to wait, and what happens to those who listen."""

    texts: list[tuple[float, str]]
    ends: Fault | None = None  # close or half_open


@dataclass(slots=True)
class Correction:
    """Other values of a closed candle, told from `known_ms` on."""

    stream: str
    open_ms: int
    known_ms: int
    values: dict[str, str] = field(default_factory=dict)


class Faults:
    """The faults of one venue: armed at any time, each struck off when it is spent."""

    def __init__(self, clock: Clock, told: Iterable[Fault] = ()) -> None:
        self.clock = clock
        self.armed: list[Armed] = []
        self.spent: deque[Armed] = deque(maxlen=REMEMBERED)
        self.corrections: deque[Correction] = deque(maxlen=REMEMBERED)
        self._held: dict[str, list[str]] = {}
        self._count = 0
        for fault in told:
            self.arm(fault)

    @property
    def skew_ms(self) -> int:
        return sum(armed.fault.ms for armed in self.armed if armed.fault.fault == "skew")

    def add(self, fault: str, **settings: object) -> Armed:
        """Arms a fault by its name and words. Raises SettingRefused."""
        return self.arm(Fault.read({"fault": fault, **settings}))

    def arm(self, fault: Fault) -> Armed:
        self._count += 1
        armed = Armed(self._count, fault, self.clock.now_ms())
        self.armed.append(armed)
        return armed

    def remove(self, number: int | None = None) -> None:
        """Takes one fault away, or all of them."""
        for armed in [each for each in self.armed if number in (None, each.number)]:
            self.armed.remove(armed)
            self.spent.append(armed)

    def on_message(self, stream: str, message: Message) -> Outcome:
        """What becomes of a message that is due now."""
        if not self.armed and not self._held:
            return Outcome([(0.0, _written(message))])
        if self._is_left_out(stream, message):
            return Outcome([])
        if skew := self.skew_ms:
            message = {**message, "E": int(str(message["E"])) + skew} if "E" in message else message
        struck = [armed for armed in self.armed if armed.takes_message(stream, message)]
        outcome = self._strike(stream, message, struck)
        outcome.texts += [(0.0, text) for text in self._released(stream, struck)]
        self._strike_off()
        return outcome

    def on_request(self, path: str) -> list[Fault]:
        """The faults that strike a request."""
        struck = [armed.fault for armed in self.armed if armed.takes_request(path)]
        self._strike_off()
        return struck

    def on_klines(self, stream: str, klines: list[Kline], now_ms: int) -> list[Kline]:
        """The candles that REST shows, of those that the market has."""
        if not self.armed and not self.corrections and not self.spent:
            return klines
        gaps = [armed for armed in (*self.armed, *self.spent) if armed.fault.fault == "gap"]
        known = {each.open_ms: each for each in self.corrections if each.stream == stream and each.known_ms <= now_ms}
        return [
            replace(kline, **known[kline.open_ms].values) if kline.open_ms in known else kline
            for kline in klines
            if not any(gap.leaves_out("rest", stream, kline.open_ms, kline.close_ms - kline.open_ms) for gap in gaps)
        ]

    def _is_left_out(self, stream: str, message: Message) -> bool:
        kline = message.get("k")
        if not isinstance(kline, dict):
            return False
        open_ms, step_ms = kline["t"], kline["T"] + 1 - kline["t"]
        gaps = [armed for armed in self.armed if armed.leaves_out("stream", stream, open_ms, step_ms)]
        for gap in gaps:
            gap.fired += 1
        return bool(gaps)

    def _strike(self, stream: str, message: Message, struck: list[Armed]) -> Outcome:
        later, copies, ends, is_reordered = 0.0, 1, None, False
        again: list[tuple[float, str]] = []
        message = copy.deepcopy(message) if struck else message
        text = None
        for armed in struck:
            fault = armed.fault
            match fault.fault:
                case "drop":
                    copies = 0
                case "duplicate":
                    copies += 1
                case "delay":
                    later += fault.seconds
                case "reorder":
                    is_reordered = True
                case "corrupt":
                    text = corrupted(text or _written(message))
                case "truncate":
                    text = (text or _written(message))[: len(text or _written(message)) // 2]
                case "field":
                    set_field(message, fault)
                case "break_chain":
                    break_chain(message)
                case "cross":
                    cross(message)
                case "close" | "half_open":
                    ends = fault
                case "correct":
                    again.append((fault.seconds, self._corrected(stream, message, fault)))
                case _:
                    pass
        text = text or _written(message)
        if is_reordered:
            self._held.setdefault(stream, []).append(text)
            copies = 0
        return Outcome([(later, text)] * copies + again, ends)

    def _released(self, stream: str, struck: list[Armed]) -> list[str]:
        """Messages held back until another has passed: this one, unless it is held itself."""
        if any(armed.fault.fault == "reorder" for armed in struck):
            return []
        return self._held.pop(stream, [])

    def _corrected(self, stream: str, message: Message, fault: Fault) -> str:
        """The closing message with other values; REST tells them from the same instant on."""
        changed = copy.deepcopy(message)
        kline = changed["k"]
        assert isinstance(kline, dict)
        values = dict(fault.values) or {"c": kline["h"], "v": str(2 * Decimal(kline["v"]))}
        kline.update(values)
        known_ms = self.clock.now_ms() + int(fault.seconds * self.clock.speed * 1000)
        changed["E"] = known_ms + self.skew_ms
        named = {WIRE_NAMES[name]: value for name, value in values.items()}
        self.corrections.append(Correction(stream, kline["t"], known_ms, named))
        return _written(changed)

    def _strike_off(self) -> None:
        for armed in [each for each in self.armed if each.is_spent]:
            self.armed.remove(armed)  # in place: another thread may be arming one
            self.spent.append(armed)


def _written(message: object) -> str:
    return json.dumps(message, separators=(",", ":"))
