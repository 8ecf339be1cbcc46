"""What requests weigh, and what becomes of those who ask too much: 429 with Retry-After, then 418.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits. Minutes are this machine's, as are
the seconds of Retry-After, however fast the venue's clock runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FLAT = {"/ping": 1, "/time": 1, "/exchangeInfo": 20, "/klines": 2, "/trades": 25, "/aggTrades": 4}
DEPTH = ((100, 5), (500, 25), (1000, 50), (5000, 250))  # by limit
MINUTE_SECONDS = 60


@dataclass(slots=True)
class Verdict:
    """The status that a request gets for its weight alone, and how many seconds to stay away."""

    status: int
    retry_after: int = 0


@dataclass(slots=True, kw_only=True)
class Weights:
    """One address's account, all clients taken together: they all come from this machine."""

    limit: int = 6000
    patience: int = 20  # requests after a 429 until the ban
    ban_seconds: float = 120.0
    used: int = 0
    _minute: int = -1
    _ignored: int = 0
    _banned_until: float = 0.0

    def charge(self, weight: int, now: float) -> Verdict:
        """What becomes of a request of this weight; `now` counts seconds from any instant."""
        if now < self._banned_until:
            return Verdict(418, round(self._banned_until - now) + 1)
        minute = int(now // MINUTE_SECONDS)
        if minute != self._minute:
            self._minute, self.used, self._ignored = minute, 0, 0
        self.used += weight
        if self.used <= self.limit:
            return Verdict(200)
        self._ignored += 1
        if self._ignored > self.patience:
            self._banned_until = now + self.ban_seconds
            return Verdict(418, round(self.ban_seconds))
        return Verdict(429, MINUTE_SECONDS - int(now % MINUTE_SECONDS))


def weight_of(path: str, query: Mapping[str, str]) -> int:
    """What one request to a public path weighs."""
    path = path.removeprefix("/api/v3")
    if path == "/depth":
        asked = query.get("limit", "100")
        limit = int(asked) if asked.isdigit() else 100
        return next((weight for most, weight in DEPTH if limit <= most), DEPTH[-1][1])
    if path.startswith("/ticker/"):
        return 2 if "symbol" in query else 4
    return FLAT.get(path, 1)
