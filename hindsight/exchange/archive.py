"""Archives: folders of candle files that somebody else recorded, read in place and never changed.

Understood, by the end of the name: `.parquet` and `.feather` (freqtrade's too), `.csv` and `.zip` as Binance publishes
them (https://github.com/binance/binance-public-data), whose `.CHECKSUM` is verified where it lies beside the file. A
file belongs to a stream by its name: BTCUSDT-1m-2020-01-01.zip, ethusdt_1m_binance_spot_2022_2023.parquet,
ETH_USDT-1m.feather. All others in the folder and below it are left alone.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl

from hindsight.errors import ArchiveUnreadable, SettingRefused
from hindsight.exchange.archive_files import SUFFIXES, CandleFile, name_pattern
from hindsight.market.candles import first_delivery
from hindsight.market.streams import Stream, Window, next_month

FRAME_ROWS = 250_000
PUBLISHED = re.compile(r"-(\d{4})-(\d{2})(?:-(\d{2}))?$")  # BTCUSDT-1m-2020-01[-03]: one month, or one day


class Archive:
    """The candle files under one folder. They hold no corrections: every candle is a first delivery."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SettingRefused(f"setting source = 'archive:{folder}': expected an existing folder, found none")
        self.folder = folder
        self._opened: dict[tuple[object, ...], CandleFile] = {}

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        """First deliveries that open in `window` and close by its end, as the files have them: not yet validated.

        Rows that several files have alike are delivered once. Raises ArchiveUnreadable, naming the file and the cure,
        for a file that cannot be read as candles of this stream, and where no file is named after the stream.
        """
        # A candle that closes after the window's end is not known by then.
        last_open = window.end - stream.step
        files = (self._open(path, stream, window) for path in self._paths(stream, window))
        files = sorted(
            (file for file in files if file.last >= window.start and file.first <= last_open),
            key=lambda file: file.first,
        )
        one_after_the_other = all(file.is_sorted for file in files) and all(
            a.last < b.first for a, b in pairwise(files)
        )
        read = _read_in_turn if one_after_the_other else _read_merged
        for frame in _in_full_frames(read(files, window.start, last_open, stream.step)):
            yield first_delivery(frame, stream)

    def _open(self, path: Path, stream: Stream, window: Window) -> CandleFile:
        """The file, checked once for as long as it does not change: a backfill asks for it month after month."""
        stat = path.stat()
        key = (path, stream, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in self._opened:
            self._opened[key] = CandleFile.opened(path, stream, window)
        return replace(self._opened[key], window=window)

    def _paths(self, stream: Stream, window: Window) -> list[Path]:
        """The files named after `stream`, but for those that by their own name hold no candle of `window`."""
        every = sorted(path for path in self.folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
        pattern = name_pattern(stream)
        named = [path for path in every if pattern.search(path.stem)]
        if not named:
            others = ", ".join(path.name for path in every[:5]) or "no candle file at all"
            raise ArchiveUnreadable(
                f"{self.folder}: expected a file of {stream.symbol} {stream.timeframe} candles for {window}, "
                f"found {others}. Name the file like {stream.symbol.replace('/', '')}-{stream.timeframe}-2024-01.zip, "
                "or set `symbols` and `timeframe` to what the folder has."
            )
        return [path for path in named if _may_hold(path, window)]


def _may_hold(path: Path, window: Window) -> bool:
    """Whether a file named after one month or one day may have candles of `window`; other names may have any."""
    published = PUBLISHED.search(path.stem)
    if published is None:
        return True
    year, month, day = published.groups()
    start = datetime(int(year), int(month), int(day or 1), tzinfo=UTC)
    end = start + timedelta(days=1) if day else next_month(start)
    return start < window.end and end > window.start


def _read_in_turn(files: list[CandleFile], first: datetime, last: datetime, _: timedelta) -> Iterator[pl.DataFrame]:
    for file in files:
        yield from file.batches(first, last, FRAME_ROWS)


def _read_merged(files: list[CandleFile], first: datetime, last: datetime, step: timedelta) -> Iterator[pl.DataFrame]:
    """The rows of files that overlap, or are not in order, one stretch of time after the other."""
    stretch = step * (FRAME_ROWS // len(files))
    start = max(first, min(file.first for file in files))
    last = min(last, max(file.last for file in files))
    while start <= last:
        end = min(start + stretch, last + timedelta(microseconds=1))
        inside = end - timedelta(microseconds=1)
        frames = [
            frame
            for file in files
            if file.last >= start and file.first <= inside
            for frame in file.batches(start, inside, FRAME_ROWS)
        ]
        if frames:
            # Rows that differ in a value are not equal: both go on, and the candles' door refuses the second by name.
            yield pl.concat(frames).unique(maintain_order=True).sort("open_time", maintain_order=True)
        start = end


def _in_full_frames(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in few frames: a folder of daily files would otherwise come as one small frame a day."""
    pending: list[pl.DataFrame] = []
    for frame in frames:
        if pending and sum(map(len, pending)) + len(frame) > FRAME_ROWS:
            yield pl.concat(pending)
            pending = []
        pending.append(frame)
    if pending:
        yield pl.concat(pending)
