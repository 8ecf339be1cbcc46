"""The venue's clock: starts where it is told to, and may run faster than this machine's."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Clock:
    """Venue time in milliseconds UTC: `start_ms` when it was made, and `speed` seconds later in each of ours."""

    start_ms: int
    speed: float = 1.0
    started_at: float = field(default_factory=time.monotonic)

    def now_ms(self) -> int:
        return self.start_ms + int((time.monotonic() - self.started_at) * self.speed * 1000)

    def seconds_until(self, moment_ms: int) -> float:
        """Seconds of ours until the venue's clock shows `moment_ms`; negative once it has."""
        return self.started_at + (moment_ms - self.start_ms) / 1000 / self.speed - time.monotonic()
