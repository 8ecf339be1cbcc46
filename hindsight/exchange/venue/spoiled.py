"""Messages spoiled in one way each, for the faults that ask for it."""

import json
from dataclasses import replace
from decimal import Decimal

from hindsight.exchange.venue.faults import MISSING, Fault
from hindsight.exchange.venue.market import Message

LOST_UPDATES = 7
CROSSED_TICKS = 5


def corrupted(text: str) -> str:
    """The text, not JSON any more though it begins like it."""
    return text.replace(":", "::", 1)


def answered(text: str, fault: Fault) -> str:
    """The text of an answer in JSON with the fault's value in its place, or instead of it."""
    if not fault.name:
        return json.dumps(None if fault.value is MISSING else fault.value)
    answer = {"answer": json.loads(text)}
    set_field(answer, replace(fault, name=f"answer.{fault.name}"))
    return json.dumps(answer["answer"])


def set_field(message: Message, fault: Fault) -> None:
    """Gives a field of the message, however deep, the fault's value, or takes it out. What is not there stays so."""
    *path, last = fault.name.split(".")
    place: object = message
    for part in path:
        place = _item(place, part)
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        if fault.value is MISSING:
            del place[int(last)]
        else:
            place[int(last)] = fault.value
    elif isinstance(place, dict):
        if fault.value is MISSING:
            place.pop(last, None)
        else:
            place[last] = fault.value


def _item(place: object, part: str) -> object:
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        place[int(part)] = list(place[int(part)])  # levels are tuples
        return place[int(part)]
    return place.get(part) if isinstance(place, dict) else None


def cross(message: Message) -> None:
    """Puts an ask below the best bid of a depth message; swaps the sides of a bookTicker."""
    if "u" in message and "B" in message:
        message["b"], message["a"] = message["a"], message["b"]
        return
    bids, asks = message.get("b"), message.get("a")
    if isinstance(bids, list) and isinstance(asks, list) and (standing := [bid for bid in bids if Decimal(bid[1])]):
        best = max(Decimal(price) for price, _ in standing)
        tick = Decimal(1).scaleb(int(best.as_tuple().exponent))
        asks.insert(0, [str(best - CROSSED_TICKS * tick), standing[0][1]])


def break_chain(message: Message) -> None:
    """Makes a depth message begin later than the one before it ended."""
    message["U"] = int(str(message["U"])) + LOST_UPDATES
