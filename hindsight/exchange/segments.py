"""Segments: small files of rows, as the feed lands them. A header line with a digest, then one JSON object a line.

| kind | a row is |
|---|---|
| candles | one closed candle, or a correction of one: `known_ms` is null for what was known at its close |
| order_book | one second of one symbol's resting amounts, known at the end of that second |
| trades | one trade; one filled in later may be several at one price, under the last of their ids |

Times are milliseconds since 1970, UTC, by the venue's clock; `written_ms` alone is this machine's.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import xxhash

from hindsight.errors import SegmentUnreadable

FORMAT = 1
Kind = Literal["candles", "order_book", "trades"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Row = dict[str, Any]

BUCKETS = 40
_TIME, _TEXT, _NUMBER = (int,), (str,), (int, float)
_MAYBE_TIME, _MAYBE_NUMBER = (int, type(None)), (int, float, type(None))
COLUMNS: dict[Kind, dict[str, tuple[type, ...]]] = {
    "candles": {
        "stream": _TEXT,
        "open_time_ms": _TIME,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), _NUMBER),
        "known_ms": _MAYBE_TIME,
        "closed_by": _TEXT,
    },
    "order_book": {
        "symbol": _TEXT,
        "venue": _TEXT,
        "second_ms": _TIME,
        **dict.fromkeys(("price", "bucket_size", "anchor"), _NUMBER),
        "spread": _MAYBE_NUMBER,
        "amounts": (list,),
        "imbalance": _MAYBE_NUMBER,
        "snapshots": (int,),
        "age_ms": _TIME,
        "venues": (list,),
    },
    "trades": {
        "symbol": _TEXT,
        "venue": _TEXT,
        "trade_id": (int, str),
        "time_ms": _TIME,
        **dict.fromkeys(("price", "amount"), _NUMBER),
        "side": _TEXT,
    },
}
# Columns that older segments lack, and what their rows are read with.
ADDED: dict[Kind, Row] = {"candles": {}, "order_book": {"spread": None}, "trades": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one file holds: the venue's and this machine's clock as it was written, and its rows."""

    kind: Kind
    venue_ms: int
    written_ms: int
    rows: list[Row]


def encode(segment: Segment) -> bytes:
    """The bytes of a segment. Raises ValueError for rows that are not what `COLUMNS` says: they are our own mistake."""
    for row in segment.rows:
        if wrong := what_is_wrong(segment.kind, row):
            raise ValueError(f"a row of {segment.kind}: {wrong}, found {row}")
    body = "".join(_line(row) for row in segment.rows).encode()
    header = {
        "format": FORMAT,
        "kind": segment.kind,
        "venue_ms": segment.venue_ms,
        "written_ms": segment.written_ms,
        "rows": len(segment.rows),
        "xxh64": xxhash.xxh64_hexdigest(body),
    }
    return _line(header).encode() + body


def decode(data: bytes, name: str) -> Segment:
    """The segment in `data`, which was read from `name`.

    Raises SegmentUnreadable for one that is truncated, corrupt, of another format or of another schema.
    """
    head, newline, body = data.partition(b"\n")
    try:
        header = json.loads(head)
        if not newline or not isinstance(header, dict):
            raise ValueError("the header is not a JSON object on a line of its own")
        if header["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {header['format']!r}")
        if (digest := xxhash.xxh64_hexdigest(body)) != header["xxh64"]:
            raise ValueError(f"its rows have the digest {digest}, the header says {header['xxh64']}")
        if header["kind"] not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, found kind {header['kind']!r}")
        rows = [_row(header["kind"], line) for line in body.splitlines()]
        if len(rows) != header["rows"]:
            raise ValueError(f"expected {header['rows']} rows, found {len(rows)}")
        for row in rows:
            if wrong := what_is_wrong(header["kind"], row):
                raise ValueError(wrong)
        return Segment(
            kind=header["kind"], venue_ms=int(header["venue_ms"]), written_ms=int(header["written_ms"]), rows=rows
        )
    except (ValueError, KeyError, TypeError) as error:  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors
        what = f"no {error} in its header" if isinstance(error, KeyError) else str(error)
        raise SegmentUnreadable(
            f"segment {name} is not what the feed wrote: {what}. It is set aside with this reason, and the rest goes on"
        ) from error


def what_is_wrong(kind: Kind, row: object) -> str:
    """Why `row` cannot be a row of `kind`; empty where it can."""
    columns = COLUMNS[kind]
    if not isinstance(row, dict) or row.keys() != columns.keys():
        return f"expected the columns {', '.join(columns)}"
    for name, types in columns.items():
        value = row[name]
        if type(value) not in types:  # exactly: True is no number
            return f"{name} is {value!r}"
        if type(value) is float and not math.isfinite(value):
            return f"{name} is {value!r}"
    if kind == "order_book":
        known = [amount for amount in row["amounts"] if amount is not None]  # null: the book does not reach that far
        if len(row["amounts"]) != BUCKETS or not all(type(each) in _NUMBER and 0 <= each < math.inf for each in known):
            return f"expected {BUCKETS} amounts of 0 or more, or null"
    return ""


def _row(kind: Kind, line: bytes) -> Row:
    row = json.loads(line, parse_constant=_refuse)
    return ADDED[kind] | row if isinstance(row, dict) else row


def _line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
