"""How much of its partitions a run covers, and what it calls now."""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field


class ScopeResource(dg.ConfigurableResource):
    """Cuts the months of a run down to [since, until), so that a backfill may start and end inside a month."""

    since: str = Field(default="", description="ISO instant or date, UTC; empty: the start of the first month")
    until: str = Field(default="", description="ISO instant or date, UTC, excluded; empty: the end of the last month")

    def bounds(self) -> tuple[datetime | None, datetime | None]:
        """Both instants, None where not given."""
        return instant(self.since, "since"), instant(self.until, "until")

    def now(self) -> datetime:
        """The present: the one place where a run reads the clock."""
        return datetime.now(UTC)


def instant(text: str, field: str) -> datetime | None:
    """The UTC instant that `text` writes in ISO form, None for no text. Raises dg.Failure, naming `field`, for
    anything else."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise dg.Failure(
            f"{field}: expected an instant or a date, UTC, like 2022-01-01T12:00 or 2022-01-01, found {text!r}",
            allow_retries=False,
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
