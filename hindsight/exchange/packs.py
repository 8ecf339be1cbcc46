"""Archived segments of a past hour, packed into one file: a 1s feed would leave 100,000 of them a day.

`archive/2024-06-01/13.jsonl.gz` holds whole segments one after the other, each behind a line that says its name.
"""

import gzip
import json
import logging
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hindsight.errors import HomeUnwritable
from hindsight.exchange.alone import alone
from hindsight.exchange.landing import NAME, Landing, replace

logger = logging.getLogger(__name__)
HOUR_MS = 3_600_000
BREATH_SEGMENTS = 50  # after so many the reader makes room for whoever else runs in this process


def pack(landing: Landing, before_ms: int) -> list[Path]:
    """Packs every whole hour that ended before `before_ms`; the packs that were written. Twice is once.

    Nothing is done while another call is at it, in this process or another: two would write the same files.

    A pack that is damaged is set aside, under its name and `.damaged`. Raises HomeUnwritable on a full disk, leaving
    everything as it was.
    """
    with _only_one(landing) as is_alone:
        return _pack_days(landing, before_ms) if is_alone else []


@contextmanager
def _only_one(landing: Landing) -> Iterator[bool]:
    if not landing.folder.exists():
        yield False
        return
    path = landing.folder / "pack.lock"
    with ExitStack() as stack:
        try:
            other = stack.enter_context(alone(path))
        except OSError as error:
            raise HomeUnwritable(f"{path} cannot be had: {error}. Nothing is packed until it can") from error
        yield other is None


def _pack_days(landing: Landing, before_ms: int) -> list[Path]:
    written: list[Path] = []
    for day in sorted(landing.archived.glob("????-??-??")):
        hours: dict[int, list[Path]] = {}
        for path in sorted(day.iterdir()):
            if found := NAME.fullmatch(path.name):
                hours.setdefault(int(found[1]) // HOUR_MS, []).append(path)
        for hour, paths in hours.items():
            if (hour + 1) * HOUR_MS <= before_ms:
                path = day / f"{datetime.fromtimestamp(hour * 3600, UTC):%H}.jsonl.gz"
                try:
                    written.append(_pack_hour(path, paths))
                except OSError as error:
                    raise HomeUnwritable(
                        f"{path} cannot be packed: {error}. What is in it stays where it is"
                    ) from error
    return written


def unpack(pack: Path) -> dict[str, bytes]:
    """The segments of a pack, by name, in the order packed."""
    segments: dict[str, bytes] = {}
    name = ""
    with gzip.open(pack, "rb") as lines:
        for line in lines:
            if line.startswith(b'{"segment":'):
                name = json.loads(line)["segment"]
                segments[name] = b""
            else:
                segments[name] += line
    return segments


def _pack_hour(pack: Path, paths: list[Path]) -> Path:
    # A process killed between writing and removing left both; a segment may also have been taken up late.
    before = _unpack_or_set_aside(pack) if pack.exists() else {}
    loose = {path.name: path for path in paths}
    replace(pack, _packed(before, loose))
    for path in paths:
        path.unlink(missing_ok=True)
    return pack


def _unpack_or_set_aside(pack: Path) -> dict[str, bytes]:
    try:
        return unpack(pack)
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        aside = pack.with_name(f"{pack.name}.damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = pack.with_name(f"{pack.name}.damaged-{number}")
        pack.rename(aside)
        logger.error(
            "%s is damaged (%s: %s): it is kept as %s, and what came late to its hour is packed without it",
            pack, type(error).__name__, error, aside.name,
        )  # fmt: skip
        return {}


def _packed(before: dict[str, bytes], loose: dict[str, Path]) -> Iterator[bytes]:
    """The bytes of a pack, piece by piece: an hour of segments need not fit into memory twice."""
    gzip_ = zlib.compressobj(level=5, wbits=31)
    for count, name in enumerate(sorted(before.keys() | loose.keys())):
        yield gzip_.compress(json.dumps({"segment": name}).encode() + b"\n")
        yield gzip_.compress(before[name] if name in before else loose[name].read_bytes())
        if count % BREATH_SEGMENTS == 0:
            time.sleep(0.001)
    yield gzip_.flush()
