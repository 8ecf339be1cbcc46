"""The terminal: one console, and errors told plainly."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from hindsight.errors import HindsightError

console = Console()


@contextmanager
def told_plainly() -> Iterator[None]:
    """An error that Hindsight raised on purpose ends as its message and exit code 1, without a traceback."""
    try:
        yield
    except HindsightError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
