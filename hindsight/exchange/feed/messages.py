"""What a venue says, checked before anything uses it: one candle or one trade, or MessageRefused with the reason."""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from hindsight.errors import MessageRefused
from hindsight.exchange.feed.reasons import Reason

DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
PAST_MS = 315_532_800_000  # 1980: seconds taken for milliseconds land in 1970
LARGEST_ID = 2**63 - 1  # that a column of trade ids holds

Values = tuple[float, float, float, float, float]
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardCandle:
    """A candle as a venue told it. `is_final`: what the venue says of it, None where it says nothing."""

    open_time_ms: int
    values: Values  # open, high, low, close, volume
    is_final: bool | None = None
    event_ms: int | None = None
    trade_ids: tuple[int, int] | None = None  # first and last trade in it


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardTrade:
    """A trade as a venue told it."""

    trade_id: int | str
    time_ms: int
    price: float
    amount: float
    side: Literal["buy", "sell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Told]):
    """One answer of REST: those of its rows that could be used.

    `is_whole`: every row could. `more_ms`: from when on there may be more, whatever could be used; None: that was all.
    """

    rows: list[Told]
    is_whole: bool
    more_ms: int | None


def candle(
    open_time: object,
    values: tuple[object, object, object, object, object],
    *,
    step_ms: int,
    latest_ms: int,
    is_final: bool | None = None,
    event_ms: int | None = None,
    trade_ids: tuple[int, int] | None = None,
) -> HeardCandle:
    """The candle, if it can be one. Raises MessageRefused with the reason."""
    open_time_ms = moment(open_time, "open time", latest_ms)
    if open_time_ms % step_ms:
        raise MessageRefused("open time is not a multiple of the timeframe", Reason.CONTRADICTORY)
    names = ("open", "high", "low", "close", "volume")
    first, high, low, close, volume = (number(value, name) for value, name in zip(values, names, strict=True))
    if min(first, high, low, close) <= 0:
        raise MessageRefused("price is not positive", Reason.NEGATIVE)
    if volume < 0:
        raise MessageRefused("negative volume", Reason.NEGATIVE)
    if not low <= min(first, close) <= max(first, close) <= high:
        raise MessageRefused("open or close outside low and high", Reason.CONTRADICTORY)
    return HeardCandle(
        open_time_ms=open_time_ms,
        values=(first, high, low, close, volume),
        is_final=is_final,
        event_ms=event_ms,
        trade_ids=trade_ids,
    )


def trade(told_id: object, time: object, price: object, amount: object, side: object, *, latest_ms: int) -> HeardTrade:
    """The trade, if it can be one. Raises MessageRefused with the reason."""
    identity = trade_id(told_id)
    if side not in ("buy", "sell"):
        raise MessageRefused("side is neither buy nor sell", Reason.UNREADABLE)
    found = number(price, "price"), number(amount, "amount")
    if min(found) <= 0:
        raise MessageRefused("price or amount is not positive", Reason.NEGATIVE)
    return HeardTrade(
        trade_id=identity,
        time_ms=moment(time, "trade time", latest_ms),
        price=found[0],
        amount=found[1],
        side=side,  # pyright: ignore[reportArgumentType]
    )


def trade_id(value: object) -> int | str:
    """The id in `value`: a number where ids count, which ccxt has as text. One that is too large to count is text."""
    if type(value) is str and value:
        is_number = value.isascii() and value.isdigit() and len(value) <= len(str(LARGEST_ID))
        return int(value) if is_number and int(value) <= LARGEST_ID else value
    if type(value) is int and value >= 0:
        return value if value <= LARGEST_ID else str(value)
    raise MessageRefused("trade id is missing", Reason.MISSING)


def number(value: object, name: str) -> float:
    """The finite number in `value`: a number, or a decimal as text, as venues write prices."""
    if value is None:
        raise MessageRefused(f"{name} is missing", Reason.MISSING)
    found = math.nan
    if type(value) in (int, float) or (type(value) is str and DECIMAL.fullmatch(value)):
        with suppress(OverflowError):  # an int that is larger than every float
            found = float(value)  # pyright: ignore[reportArgumentType]
    if not math.isfinite(found):
        raise MessageRefused(f"{name} is not a number", Reason.NO_NUMBER)
    return found


def last_instant(values: Iterable[object], latest_ms: int) -> int | None:
    """The last of those values that are instants up to `latest_ms`."""
    return max((value for value in values if type(value) is int and PAST_MS <= value <= latest_ms), default=None)


def moment(value: object, name: str, latest_ms: int) -> int:
    """The instant in `value`, in milliseconds; refused where it lies after `latest_ms`, ahead of the venue's clock."""
    if type(value) is not int or value < PAST_MS:
        if value is None:
            raise MessageRefused(f"{name} is missing", Reason.MISSING)
        raise MessageRefused(f"{name} is not an instant in milliseconds", Reason.NO_INSTANT)
    if value > latest_ms:
        raise MessageRefused(f"{name} lies in the future", Reason.FROM_THE_FUTURE)
    return value
