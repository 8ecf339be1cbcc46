"""The columns of an asset's table as the UI shows them, read from schema.sql once, when the definitions are loaded."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import dagster as dg

SCHEMA = files("hindsight.store").joinpath("schema.sql").read_text()
COLUMN = re.compile(r"(\w+) ([a-z]+(?:\[\d*\])?)( not null)?(?: check \((.*)\))?")
BETWEEN_COLUMNS = re.compile(r",\s+(?![^(]*\))")  # and not inside of a check


def columns_of(table: str) -> dict[str, Any]:
    """Metadata of the asset that fills `table`: its name and its columns, each with what schema.sql says beside it."""
    found = re.search(rf"^create table if not exists {table} \((.*?)^\);", SCHEMA, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"expected a table {table} in schema.sql, found none")
    lines = (line.partition("--")[::2] for line in found[1].splitlines())
    columns = [column for code, comment in lines for column in _columns(code.strip(" ,"), comment.strip())]
    return {"dagster/table_name": table, "dagster/column_schema": dg.TableSchema(columns=columns)}


def _columns(code: str, comment: str) -> Iterator[dg.TableColumn]:
    """Those of one line. The comment beside several says something of them together, and describes none."""
    texts = BETWEEN_COLUMNS.split(code) if code else []
    for text in texts:
        column = COLUMN.fullmatch(text)
        if column is None:
            raise ValueError(f"expected a column in schema.sql, found {text!r}")
        name, kind, is_needed, check = column.groups()
        constraints = dg.TableColumnConstraints(nullable=not is_needed, other=[check] if check else [])
        yield dg.TableColumn(name, kind, comment if comment and len(texts) == 1 else None, constraints)
