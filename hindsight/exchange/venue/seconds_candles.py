"""The candles of a market of seconds: closed ones as its source delivers them, the forming one second by second."""

import heapq
from collections.abc import Iterator
from itertools import count

import polars as pl

from hindsight.exchange.venue import wire
from hindsight.exchange.venue.kept_days import KeptDays
from hindsight.exchange.venue.market import Event, Kline, Listing, Pace
from hindsight.exchange.venue.seconds import DAY_MS, MINUTE_MS, forming
from hindsight.exchange.venue.seconds_trades import ids_between

OPENED_MS = pl.col("open_time").to_physical() // 1000
KNOWN_MS = pl.col("recorded_at").to_physical() // 1000


def klines(kept: KeptDays, listing: Listing, timeframe: str, first_ms: int, last_ms: int, now_ms: int) -> list[Kline]:
    """As Market.klines."""
    step_ms, day = kept.step_ms(timeframe), first_ms // DAY_MS
    days = [each for each in (day, day + 1) if each * DAY_MS <= now_ms]  # a correction may come after midnight
    found = []
    if days:
        frame = pl.concat([kept.delivered(listing.id, timeframe, each) for each in days])
        frame = frame.filter(OPENED_MS.is_between(first_ms, last_ms), now_ms >= KNOWN_MS)
        if (frame["revision"] > 0).any():
            frame = frame.sort("open_time", "revision").unique("open_time", keep="last", maintain_order=True)
        found = [_kline(listing, row, step_ms) for row in _rows(frame)]
    open_ms = now_ms - now_ms % step_ms
    if first_ms <= open_ms <= last_ms and (current := forming_kline(kept, listing, timeframe, now_ms)) is not None:
        found.append(current)
    return found


def forming_kline(kept: KeptDays, listing: Listing, timeframe: str, now_ms: int) -> Kline | None:
    """The candle that is open at `now`; None before anything of it was delivered."""
    step_ms = kept.step_ms(timeframe)
    open_ms = now_ms - now_ms % step_ms
    if open_ms < kept.source.opening_ms or kept.has_ended(now_ms):
        return None  # nothing yet, nothing any more, or a candle whose beginning nobody knows
    day, current = kept.source.day(listing.id, now_ms // DAY_MS), kept.trades(listing.id, now_ms // MINUTE_MS)
    candle = forming(day, current, open_ms % DAY_MS // 1000, now_ms % DAY_MS, kept.source.units_per_lot)
    if candle is None:
        return None
    return Kline(
        open_ms,
        open_ms + step_ms,
        listing.price(candle.open),
        listing.price(candle.high),
        listing.price(candle.low),
        listing.price(candle.close),
        listing.amount(candle.units),
    )


def kline_events(kept: KeptDays, listing: Listing, timeframe: str, since_ms: int, pace: Pace) -> Iterator[Event]:
    """The forming candle every now and then, each close at its instant, each correction when it is known."""
    closing, pushes = _closing(kept, listing, timeframe, since_ms), _pushes(kept, listing, timeframe, since_ms, pace)
    return heapq.merge(closing, pushes, key=lambda event: event.at_ms)


def _closing(kept: KeptDays, listing: Listing, timeframe: str, since_ms: int) -> Iterator[Event]:
    step_ms = kept.step_ms(timeframe)
    for day in count(since_ms // DAY_MS):
        if kept.has_ended(day * DAY_MS):
            return
        frame = kept.delivered(listing.id, timeframe, day).filter(since_ms < KNOWN_MS)
        frame = frame.sort("recorded_at", "open_time", maintain_order=True)
        known = frame.select(KNOWN_MS)["recorded_at"].to_list()
        for at_ms, row in zip(known, _rows(frame), strict=True):
            kline = _kline(listing, row, step_ms)
            ids = ids_between(kept, listing, kline.open_ms, kline.close_ms, at_ms)
            yield Event(at_ms, wire.kline_message(listing, timeframe, kline, ids, at_ms, is_closed=True))


def _pushes(kept: KeptDays, listing: Listing, timeframe: str, since_ms: int, pace: Pace) -> Iterator[Event]:
    step_ms = kept.step_ms(timeframe)
    after_opening = [] if pace.first_kline_ms is None else [pace.first_kline_ms]
    after_opening += range(pace.kline_ms, step_ms, pace.kline_ms)
    if not after_opening:
        return
    for open_ms in count(since_ms - since_ms % step_ms, step_ms):
        if kept.has_ended(open_ms):
            return
        for at_ms in (open_ms + offset for offset in after_opening):
            if at_ms < since_ms or not kept.is_delivered(listing.id, at_ms):
                continue
            kline = forming_kline(kept, listing, timeframe, at_ms)
            if kline is not None:
                ids = ids_between(kept, listing, open_ms, at_ms + 1, at_ms)
                message = wire.kline_message(listing, timeframe, kline, ids, at_ms, is_closed=False)
                yield Event(at_ms, message, is_forming=True)


def _rows(frame: pl.DataFrame) -> Iterator[tuple[int, float, float, float, float, float]]:
    return frame.select(OPENED_MS, "open", "high", "low", "close", "volume").iter_rows()


def _kline(listing: Listing, row: tuple[int, float, float, float, float, float], step_ms: int) -> Kline:
    open_ms, *prices, volume = row
    # As many digits as the venue has: they read back as the very float that they were printed from.
    open_, high, low, close = (f"{price:.{listing.price_decimals}f}" for price in prices)
    return Kline(open_ms, open_ms + step_ms, open_, high, low, close, f"{volume:.{listing.amount_decimals}f}")
