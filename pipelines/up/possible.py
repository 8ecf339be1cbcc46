"""Whether the settings can work at all: asked once, before anything starts that would fail again and again.

python -m pipelines.up.possible feed    # what `hindsight up` asks; without `feed` for --no-feed
"""

import subprocess
import sys

from hindsight.errors import SettingRefused
from hindsight.settings import Settings, load

REFUSED = 3  # exit code; a traceback ends in 1


def refuse_the_impossible(*, feed: bool) -> None:
    """Raises SettingRefused for a model, or a venue, that does not exist.

    Asked in a process of its own: torch and ccxt, who know, weigh 230 MB, and ours stays as long as all that it starts.
    """
    command = [sys.executable, "-m", "pipelines.up.possible", *(["feed"] if feed else [])]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if answer.returncode == REFUSED:
        raise SettingRefused(answer.stdout.strip())
    answer.check_returncode()


def _refuse(settings: Settings, feed: bool) -> None:
    from hindsight.training.models.registry import in_order  # torch takes over a second to import

    in_order(settings.models)
    is_of_ccxt = settings.source.startswith("ccxt:")
    if is_of_ccxt:
        from hindsight.exchange.sources import open_source

        open_source(settings)
    if feed:
        heard = [f"{settings.venue}@{settings.venue_url}"] if is_of_ccxt else []
        for entry in (*heard, *(settings.book_venues if settings.books else ())):
            _refuse_venue(settings, *entry.partition("@")[::2])


def _refuse_venue(settings: Settings, name: str, url: str) -> None:
    """Makes the connection that the feed would, and does not open it."""
    from hindsight.exchange.feed.command import machine_times
    from hindsight.exchange.feed.connection import Connection  # ccxt takes half a second to import

    Connection(name, name, url, times=machine_times(), speed=1.0, silent_seconds=settings.silent_seconds)


if __name__ == "__main__":
    try:
        _refuse(load(), sys.argv[1:] == ["feed"])
    except SettingRefused as error:
        print(error)
        sys.exit(REFUSED)
