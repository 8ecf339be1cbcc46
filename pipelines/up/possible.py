"""Whether the settings can work at all: asked once, before anything starts that would fail again and again."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from hindsight.settings import Settings


def refuse_the_impossible(settings: Settings, *, feed: bool) -> None:
    """Raises SettingRefused for a model, or a venue, that does not exist.

    Asked in a process of its own: torch and ccxt, who know, weigh 230 MB, and ours stays as long as all that it starts.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        other.submit(_refuse, settings, feed).result()


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
