"""Candles of a real exchange, by REST through ccxt (https://docs.ccxt.com): public data, no key needed.

The forming candle, which exchanges return last, is dropped by the venue's own clock, read before the candles are. ccxt
keeps the venue's rate limit; what the venue may answer later (a timeout, 429, 5xx) is retried with growing, jittered
waits, an answer that makes no sense too, and nothing else is. A REST answer carries no corrections: a candle that the
venue changed after its close is delivered as it stands now, and the store tells that it differs from what it has.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeGuard, TypeVar

import ccxt
import polars as pl
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from hindsight.errors import SettingRefused, VenueUnavailable
from hindsight.exchange.feed.listening import EveryCandle
from hindsight.market.candles import PLAUSIBLE, TIME, first_delivery
from hindsight.market.streams import Stream, Window, to_ms

FRAME_ROWS = 20_000  # a download that breaks off has kept all but its last few seconds
USUAL_PAGE, LONGEST_PAGE = 500, 1000  # candles per request; below the longest, ccxt knows each venue's own limit
ROW = pl.Schema({"open_time": pl.Int64} | dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64))
FIRST_MS, BEYOND_MS = map(to_ms, PLAUSIBLE)
SHOWN = 300  # characters of an answer that makes no sense
# ccxt's name for what "might be retried": all network errors, rate limits, outages, and answers that are not JSON.
RETRYABLE = ccxt.OperationFailed
Answer = TypeVar("Answer")
Told = list[float | None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class CcxtRest:
    """One venue of ccxt. Waits between attempts double from `first_wait` to `longest_wait` seconds, plus the jitter."""

    def __init__(
        self,
        venue: str,
        *,
        config: Mapping[str, object] | None = None,
        attempts: int = 6,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        jitter: float = 1.0,
        grace_seconds: float = 0.0,
        local_clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        """`config` goes to ccxt as it is (urls, timeouts, options).

        `local_clock` serves where the venue shows none; `grace_seconds` after its close a candle counts as closed, for
        venues that finish their candles late.
        """
        if venue not in ccxt.exchanges:
            near = ", ".join(get_close_matches(venue, ccxt.exchanges)) or "binance, kraken, coinbase"
            raise SettingRefused(f"setting source = 'ccxt:{venue}': ccxt has no such venue; did you mean {near}?")
        self.venue = venue
        venue_class: Any = type(venue, (EveryCandle, getattr(ccxt, venue)), {})
        self.exchange: ccxt.Exchange = venue_class({"enableRateLimit": True, **(config or {})})
        self.local_clock, self.grace_seconds, self.attempts = local_clock, grace_seconds, attempts
        backoff = wait_exponential(multiplier=first_wait, max=longest_wait) + wait_random(0, jitter)

        def wait(state: RetryCallState) -> float:
            # A venue that says how long to stay away bans those who do not listen.
            return max(backoff(state), min(self._asked_to_wait(), longest_wait))

        self._retrying = Retrying(
            retry=retry_if_exception_type(RETRYABLE), stop=stop_after_attempt(attempts), wait=wait, reraise=True
        )

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        """First deliveries that open in `window` and have closed by its end and by the venue's clock.

        Among them those whose open time is no instant, as null: `candles.accept` refuses and counts them.

        Raises VenueUnavailable when every attempt failed, and SettingRefused for a symbol or timeframe that the venue
        does not have.
        """
        self._check(stream, window)
        closed_by = min(to_ms(window.end), self._clock_ms(stream, window) - int(self.grace_seconds * 1000))
        start, end = to_ms(window.start), closed_by - stream.step_ms + 1  # of open times, half-open
        page = self.exchange.feature_value(stream.symbol, "fetchOHLCV", "limit", USUAL_PAGE)
        page = min(page, LONGEST_PAGE) if isinstance(page, int) else USUAL_PAGE
        pending: list[Told] = []
        while start < end:
            limit = min(page, -((start - end) // stream.step_ms))
            rows = self._ask(partial(self._page, stream, start, limit), stream, window)
            rows = [row for row in rows if row[0] is None or row[0] >= start]
            opens = [int(row[0]) for row in rows if row[0] is not None]
            # So far there is no candle but those of the page. One without anything new is a hole as wide as a page.
            reached = start + (len(rows) if opens else limit) * stream.step_ms
            if len(opens) > 1 and opens[-1] > opens[-2] + stream.step_ms:
                opens.pop()  # it may be stamped wrongly, and skip what is there: it is asked for again
            reached = max(reached, max(opens, default=0) + stream.step_ms)
            pending += [row for row in rows if row[0] is None or row[0] < min(reached, end)]
            start = reached
            if len(pending) >= FRAME_ROWS:
                yield _frame(pending, stream)
                pending = []
        if pending:
            yield _frame(pending, stream)

    def _page(self, stream: Stream, start: int, limit: int) -> list[Told]:
        """The rows that the venue answers with, in time order. Raises ccxt.BadResponse where none can be a candle."""
        answer = self.exchange.fetch_ohlcv(stream.symbol, stream.timeframe, since=start, limit=limit)
        if answer == [] and self.exchange.last_http_response == "{}":  # of which ccxt makes a list
            answer = {}
        if not isinstance(answer, list):
            raise ccxt.BadResponse(f"no list of candles, but {str(answer)[:SHOWN]}")
        rows = [_row(row) for row in answer]
        if rows and all(row[0] is None for row in rows):
            raise ccxt.BadResponse(f"candles without an open time, first {str(answer[0])[:SHOWN]}")
        return sorted(rows, key=lambda row: row[0] or 0)

    def _check(self, stream: Stream, window: Window) -> None:
        """Raises SettingRefused unless the venue serves such candles."""
        if stream.venue != self.venue:
            raise SettingRefused(f"{stream}: the source is ccxt:{self.venue}, whose streams have that venue")
        self._ask(self._load_markets, stream, window)
        symbols, timeframes = list(self.exchange.markets or ()), list(self.exchange.timeframes or ())
        if stream.symbol not in symbols:
            near = ", ".join(get_close_matches(stream.symbol, symbols)) or f"one of its {len(symbols)} markets"
            raise SettingRefused(f"setting symbols: {self.venue} has no {stream.symbol}; did you mean {near}?")
        if not self.exchange.has.get("fetchOHLCV") or stream.timeframe not in timeframes:
            has = ", ".join(timeframes) or "none"
            raise SettingRefused(f"setting timeframe = {stream.timeframe!r}: {self.venue} has candles of {has}")

    def _load_markets(self) -> None:
        if not self.exchange.load_markets():
            raise ccxt.BadResponse("no markets at all")

    def _clock_ms(self, stream: Stream, window: Window) -> int:
        """The venue's own clock; the local one where the venue does not show its own."""
        if not self.exchange.has.get("fetchTime"):
            return to_ms(self.local_clock())
        return self._ask(self._show_time, stream, window)

    def _show_time(self) -> int:
        shown = self.exchange.fetch_time()
        if not _is_instant(shown):
            raise ccxt.BadResponse(f"a time that is none: {str(shown)[:SHOWN]}")
        return shown

    def _ask(self, call: Callable[[], Answer], stream: Stream, window: Window) -> Answer:
        """What the venue answers, after as many attempts as it takes and is worth."""
        try:
            return self._retrying(lambda: _understood(call))
        except RETRYABLE as error:
            raise VenueUnavailable(
                f"{stream} {window}: {self.venue} did not answer {self.attempts} times, the last time with "
                f"{type(error).__name__}: {error}. Check the network and the venue's status page, then run again."
            ) from error
        except ccxt.BaseError as error:
            raise SettingRefused(
                f"{stream} {window}: {self.venue} refused ({type(error).__name__}: {error})"
            ) from error

    def _asked_to_wait(self) -> float:
        """Seconds that the last answer asked us to stay away, in the header Retry-After; 0 where it did not."""
        seconds = (self.exchange.last_response_headers or {}).get("Retry-After", "")
        return float(seconds) if seconds.isdigit() else 0.0


def _understood(call: Callable[[], Answer]) -> Answer:
    """What the venue answers. Raises ccxt.BaseError, also where ccxt stumbles over an answer."""
    try:
        return call()
    except ccxt.BaseError:
        raise
    except Exception as error:
        raise ccxt.BadResponse(f"what cannot be read: {type(error).__name__}: {error}") from error


def _is_instant(value: object) -> TypeGuard[int]:
    return type(value) is int and FIRST_MS <= value < BEYOND_MS


def _row(row: object) -> Told:
    """One of ccxt's rows, its open time None where that is no instant in milliseconds."""
    if not isinstance(row, list) or len(row) < len(ROW):
        return [None] * len(ROW)
    return [row[0] if _is_instant(row[0]) else None, *row[1 : len(ROW)]]


def _frame(rows: list[Told], stream: Stream) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=ROW, orient="row")
    return first_delivery(frame.with_columns(pl.col("open_time").mul(1000).cast(TIME)), stream)
