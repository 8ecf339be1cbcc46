"""What a venue says, checked before anything uses it: one candle or one trade, or MessageRefused with the reason."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from hindsight.errors import MessageRefused

DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
PAST_MS = 315_532_800_000  # 1980: seconds taken for milliseconds land in 1970

Values = tuple[float, float, float, float, float]


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
        raise MessageRefused("open time is not a multiple of the timeframe")
    names = ("open", "high", "low", "close", "volume")
    first, high, low, close, volume = (number(value, name) for value, name in zip(values, names, strict=True))
    if min(first, high, low, close) <= 0:
        raise MessageRefused("price is not positive")
    if volume < 0:
        raise MessageRefused("negative volume")
    if not low <= min(first, close) <= max(first, close) <= high:
        raise MessageRefused("open or close outside low and high")
    return HeardCandle(
        open_time_ms=open_time_ms,
        values=(first, high, low, close, volume),
        is_final=is_final,
        event_ms=event_ms,
        trade_ids=trade_ids,
    )


def trade(trade_id: object, time: object, price: object, amount: object, side: object, *, latest_ms: int) -> HeardTrade:
    """The trade, if it can be one. Raises MessageRefused with the reason."""
    if isinstance(trade_id, str) and trade_id.isdigit():
        trade_id = int(trade_id)  # ccxt has them as text
    if type(trade_id) not in (int, str) or not trade_id or (isinstance(trade_id, int) and trade_id < 0):
        raise MessageRefused("trade id is missing")
    if side not in ("buy", "sell"):
        raise MessageRefused("side is neither buy nor sell")
    found = number(price, "price"), number(amount, "amount")
    if min(found) <= 0:
        raise MessageRefused("price or amount is not positive")
    return HeardTrade(
        trade_id=trade_id,  # pyright: ignore[reportArgumentType]
        time_ms=moment(time, "trade time", latest_ms),
        price=found[0],
        amount=found[1],
        side=side,  # pyright: ignore[reportArgumentType]
    )


def number(value: object, name: str) -> float:
    """The finite number in `value`: a number, or a decimal as text, as venues write prices."""
    if type(value) is str and DECIMAL.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float) or not math.isfinite(value):  # pyright: ignore[reportArgumentType]
        raise MessageRefused(f"{name} is missing" if value is None else f"{name} is not a number")
    return float(value)  # pyright: ignore[reportArgumentType]


def moment(value: object, name: str, latest_ms: int) -> int:
    """The instant in `value`, in milliseconds; refused where it lies after `latest_ms`, ahead of the venue's clock."""
    if type(value) is not int or value < PAST_MS:
        raise MessageRefused(f"{name} is missing" if value is None else f"{name} is not an instant in milliseconds")
    if value > latest_ms:
        raise MessageRefused(f"{name} lies in the future")
    return value
