"""Tables of facts for the terminal: a line per fact, a column per thing that it is told of."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def print_facts(console: Console, title: str, facts: Mapping[str, Sequence[object]], columns: Sequence[str]) -> None:
    """Nothing where there are no columns."""
    if not columns:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name, values in facts.items():
        # An id is copied, not counted.
        table.add_row(name, *(str(value) if name == "newest reference" else shown(value) for value in values))
    console.print(table)


def slim_table(title: str | None = None) -> Table:
    """An empty table without lines between its columns, for rows that are too wide for others."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )


def shown(value: object) -> str:
    """A value as a table shows it."""
    match value:
        case None:
            return "-"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case _:
            return str(value).replace("_", " ")
