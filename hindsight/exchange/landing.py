"""The landing: where the feed leaves what it heard, one small file per flush, for the tables to take up.

    landing/<venue_ms>-<sequence>-<kind>.jsonl    landed: whole or absent, named in the order written
    landing/refused/                              set aside, each with its reason beside it
    archive/<day>/                                taken up; past hours are packed (packs.py)

The feed writes, whoever fills the tables reads and then archives; neither waits for the other, and a process killed at
any moment leaves nothing half. Names never go back, whatever the venue's clock does and however often the feed starts.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from hindsight.errors import HomeUnwritable, SegmentUnreadable
from hindsight.exchange.segments import Kind, Row, Segment, decode, encode

logger = logging.getLogger(__name__)
NAME = re.compile(r"(\d{15})-(\d{6})-(candles|order_book|trades)\.jsonl")
LAST_SEQUENCE = 999_999
CURSOR_EVERY_MS = 10_000
READ_BACK = 3000  # segments, of those who look for what was landed before


@dataclass(slots=True)
class Landing:
    """The folders of landed, refused and archived segments. One process writes, any number read."""

    folder: Path
    _newest: dict[str, int] = field(default_factory=dict)  # of each stream, the last open time landed
    _last: tuple[int, int] | None = None  # venue_ms and sequence of the last name given out
    _cursor_ms: int = 0

    @property
    def archived(self) -> Path:
        return self.folder.parent / "archive"

    @property
    def refused(self) -> Path:
        return self.folder / "refused"

    def write(self, kind: Kind, rows: list[Row], venue_ms: int, written_ms: int) -> Path:
        """The new segment, on disk and named. Raises HomeUnwritable on a full disk, leaving nothing behind."""
        self._catch_up()
        data = encode(Segment(kind=kind, venue_ms=venue_ms, written_ms=written_ms, rows=rows))
        assert self._last is not None
        last_ms, sequence = self._last
        if venue_ms > last_ms or sequence == LAST_SEQUENCE:
            key = (max(venue_ms, last_ms + 1), 0)
        else:
            key = (last_ms, sequence + 1)
        path = self.folder / f"{key[0]:015d}-{key[1]:06d}-{kind}.jsonl"
        replace(path, [data])
        self._last = key
        if kind == "candles":
            self._remember(rows)
        if written_ms - self._cursor_ms >= CURSOR_EVERY_MS:
            self._write_cursor(written_ms)
        return path

    def clear_torn(self) -> None:
        """Removes what was left half by a process killed while writing, and marks of what is gone; for the feed."""
        own = (self.folder.glob(name) for name in (".*.jsonl.new", ".cursor.json.new", ".resume.json.[0-9]*"))
        for torn in chain(*own, self.archived.glob("*/.*.new"), self.folder.parent.glob(".feed.json.*")):
            torn.unlink(missing_ok=True)
        for reason in self.refused.glob(".*.reason.new"):
            if not (self.folder / reason.name[1:].removesuffix(".reason.new")).exists():  # it is not being written now
                reason.unlink(missing_ok=True)
        for asked in self.refused.glob("*.asked"):
            if not asked.with_suffix("").exists():
                asked.unlink(missing_ok=True)

    def segments(self) -> list[Path]:
        """What has landed and waits to be taken up, in the order written."""
        return sorted(_named(self.folder))

    def waiting(self) -> tuple[str | None, int]:
        """The name of the newest segment with candles that waits, if one does, and how many segments wait in all."""
        try:
            names = [name for name in os.listdir(self.folder) if name.endswith(".jsonl") and name[0] != "."]
        except FileNotFoundError:
            return None, 0
        return max((name for name in names if name.endswith("-candles.jsonl")), default=None), len(names)

    def read(self, path: Path) -> Segment:
        """The segment at `path`. Raises SegmentUnreadable where the file is truncated, corrupt or of another schema.

        An OSError says nothing of what is in it: the file may be gone, or whole.
        """
        return decode(path.read_bytes(), path.name)

    def archive(self, path: Path) -> None:
        """Puts a segment that the tables have taken up below the day of its name. Twice is once."""
        _move(path, self._day(path))

    def refuse(self, path: Path, reason: str) -> None:
        """Sets a segment aside, with the reason in a file beside it."""
        self.refused.mkdir(parents=True, exist_ok=True)
        replace(self.refused / f"{path.name}.reason", [f"{reason}\n".encode()])
        _move(path, self.refused)

    def set_aside(self, kind: Kind) -> list[Path]:
        """The refused segments of a kind, in the order written."""
        return sorted(path for path in _named(self.refused) if path.name.endswith(f"-{kind}.jsonl"))

    def newest(self, stream: str) -> int | None:
        """The open time of the last candle ever landed for a stream; None where there is none."""
        self._catch_up()
        return self._newest.get(stream)

    def backwards(self, kind: Kind) -> Iterator[tuple[str, Segment]]:
        """Segments of a kind, by name, that are still files of their own, landed or archived, the newest first."""
        folders = (self.folder, *self._days())
        loose = [path for folder in folders for path in _named(folder) if path.name.endswith(f"-{kind}.jsonl")]
        for path in sorted(loose, key=_key, reverse=True)[:READ_BACK]:
            try:
                try:
                    segment = self.read(path)
                except FileNotFoundError:  # taken up meanwhile
                    segment = self.read(self._day(path) / path.name)
            except (OSError, SegmentUnreadable) as error:
                logger.warning("left out while reading backwards: %s", error)
            else:
                yield path.name, segment

    def _catch_up(self) -> None:
        """Once: what the last process to write here has left, from its cursor and the segments written since."""
        if self._last is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HomeUnwritable(f"{self.folder} cannot be made: {error}. Make room, and see whose it is") from error
        cursor = self._read_cursor()
        loose = [path for folder in (self.folder, self.refused, *self._days()) for path in _named(folder)]
        since = (cursor["venue_ms"], cursor["sequence"])
        for path in sorted(loose, key=_key):
            if _key(path) > since and path.name.endswith("-candles.jsonl"):
                try:
                    self._remember(decode(path.read_bytes(), path.name).rows)
                except (OSError, SegmentUnreadable) as error:  # moved on meanwhile, or damaged: asked for again
                    logger.warning("left out while looking for the newest candles: %s", error)
        for stream, open_time_ms in cursor["newest"].items():
            self._newest[stream] = max(self._newest.get(stream, 0), open_time_ms)
        self._last = max([since, *map(_key, loose)])

    def _day(self, path: Path) -> Path:
        """The folder of the archive for a segment."""
        return self.archived / f"{datetime.fromtimestamp(_key(path)[0] / 1000, UTC):%Y-%m-%d}"

    def _days(self) -> list[Path]:
        return [path for path in self.archived.glob("*") if path.is_dir()]

    def _remember(self, rows: list[Row]) -> None:
        for row in rows:
            self._newest[row["stream"]] = max(self._newest.get(row["stream"], 0), row["open_time_ms"])

    def _read_cursor(self) -> Row:
        try:
            found = json.loads((self.folder / "cursor.json").read_bytes())
            newest = {str(stream): int(open_time_ms) for stream, open_time_ms in found["newest"].items()}
            return {"venue_ms": int(found["venue_ms"]), "sequence": int(found["sequence"]), "newest": newest}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {"venue_ms": 0, "sequence": 0, "newest": {}}

    def _write_cursor(self, written_ms: int) -> None:
        assert self._last is not None
        cursor = {"venue_ms": self._last[0], "sequence": self._last[1], "newest": self._newest}
        try:
            replace(self.folder / "cursor.json", [json.dumps(cursor).encode()])
            self._cursor_ms = written_ms
        except HomeUnwritable as error:  # only saves the next process some reading
            logger.warning("%s", error)


def replace(path: Path, pieces: Iterable[bytes]) -> None:
    """Puts `pieces` at `path`, whole or not at all. Raises HomeUnwritable, of a full disk say."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        try:
            with temporary.open("wb") as handle:
                handle.writelines(pieces)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _settle(path.parent)
    except OSError as error:
        raise HomeUnwritable(
            f"{path} cannot be written: {error}. Make room: what was to be written is kept in memory and tried again"
        ) from error


def _settle(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(path: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    except FileNotFoundError:
        if not (folder / path.name).exists():
            raise
    except OSError as error:
        raise HomeUnwritable(f"{path} cannot be moved to {folder}: {error}") from error


def _named(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if NAME.fullmatch(name)]
    except FileNotFoundError:
        return []


def _key(path: Path) -> tuple[int, int]:
    """The venue's milliseconds and the sequence in a segment's name."""
    found = NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path.name} is no name of a segment")
    return int(found[1]), int(found[2])
