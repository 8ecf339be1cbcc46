"""One candle file of an archive: recognised by name, checked once, then read window by window.

Files are checked as files here: readable, complete, of the right columns, symbol, spacing and unit of time. Whether
each candle in them makes sense is decided at the candles' own door (`hindsight.market.candles.accept`).
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hindsight.errors import ArchiveUnreadable
from hindsight.market.candles import TIME
from hindsight.market.streams import EPOCH, Stream, Window

SUFFIXES = frozenset({".parquet", ".feather", ".csv", ".zip"})
STAMPS = ("open_time", "ts_ms", "date", "timestamp")
VALUES = ("open", "high", "low", "close", "volume")
BINANCE = (
    "open_time",
    *VALUES,
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
SYMBOLS = ("symbol", "pair")
# Units of integer stamps by their digits: 13 and 16 are the years 2001 to 2286 in both.
UNITS = {13: timedelta(milliseconds=1), 16: timedelta(microseconds=1)}
SURVEY_ROWS = 1_000_000
SPACING_ROWS = 100_000
ENOUGH_TO_JUDGE = 10
REDOWNLOAD = "Download it again, or remove it."
DAMAGE = (pl.exceptions.PolarsError, OSError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError, EOFError)

Refuse = Callable[[str, str], ArchiveUnreadable]


def name_pattern(stream: Stream) -> re.Pattern[str]:
    """Matches the names of files of one stream: its symbol, then its timeframe (whose case counts: 1m is not 1M)."""
    symbol = "[-_]?".join(re.escape(part) for part in stream.symbol.split("/"))
    return re.compile(rf"(?:^|[^A-Za-z0-9])(?i:{symbol})[-_]{stream.timeframe}(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleFile:
    """A readable file of one stream, with the open times of its first and its last candle."""

    path: Path
    stream: Stream
    window: Window  # that it is read for: errors name it
    time: pl.Expr  # the open time as the file has it, as integers in `unit`
    unit: timedelta
    first: datetime
    last: datetime
    is_sorted: bool  # every candle opens later than the one before it

    @classmethod
    def opened(cls, path: Path, stream: Stream, window: Window) -> Self:
        """The file at `path`, checked. Raises ArchiveUnreadable."""

        refuse = _refusal(path, stream, window)
        with _named_when_damaged(refuse):
            _verify_checksum(path, refuse)
            lazy = _scan(path, stream, refuse)
            stamp, dtype = _checked_columns(lazy, stream, refuse)
            time = _microseconds(stamp, dtype) if isinstance(dtype, pl.Datetime) else pl.col(stamp)
            survey = _survey(lazy.select(time=time), refuse)
        unit = timedelta(microseconds=1) if isinstance(dtype, pl.Datetime) else _unit_of(survey, refuse)
        survey.check_spacing(stream.step // unit, unit, refuse)
        return cls(
            path=path,
            stream=stream,
            window=window,
            time=time,
            unit=unit,
            first=EPOCH + survey.first * unit,
            last=EPOCH + survey.last * unit,
            is_sorted=survey.is_sorted,
        )

    def batches(self, first: datetime, last: datetime, rows: int) -> Iterator[pl.DataFrame]:
        """The candles that open in [first, last], as the file orders them: open_time and OHLCV, `rows` at most."""
        refuse = _refusal(self.path, self.stream, self.window)
        with _named_when_damaged(refuse):
            lazy = _scan(self.path, self.stream, refuse)
            if self.first < first or self.last > last:
                # In the file's own integers, so that Parquet's statistics pass over whole stretches.
                lowest, highest = -((EPOCH - first) // self.unit), (last - EPOCH) // self.unit
                lazy = lazy.filter(self.time.is_between(lowest, highest))
            microseconds = self.time.cast(pl.Int64) * (self.unit // timedelta(microseconds=1))
            values = [pl.col(value).cast(pl.Float64) for value in VALUES]
            candles = lazy.select(microseconds.cast(TIME).alias("open_time"), *values)
            for frame in candles.collect_batches(chunk_size=rows, maintain_order=True):
                yield from frame.iter_slices(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one look at all open times of a file shows, in the file's own integers."""

    first: int
    last: int
    is_sorted: bool
    closest: int | None  # the smallest distance between neighbours; None where there are too few to judge
    typical: int | None  # the median distance

    def check_spacing(self, step: int, unit: timedelta, refuse: Refuse) -> None:
        """Raises ArchiveUnreadable where the candles are of another timeframe than `step`."""
        if self.closest is None or self.typical is None:
            return
        if self.closest > step or self.typical < step:
            found = self.closest if self.closest > step else self.typical
            raise refuse(f"candles {found * unit} apart", "Rename the file after the timeframe that it holds.")


def _survey(times: pl.LazyFrame, refuse: Refuse) -> Survey:
    """One pass over the column `time`, in pieces, so that a long file costs no memory."""
    firsts, lasts, is_sorted, previous = [], [], True, None
    closest = typical = None
    for batch in times.collect_batches(chunk_size=SURVEY_ROWS, maintain_order=True):
        if batch["time"].null_count():
            raise refuse(f"{batch['time'].null_count()} candles without an open time", REDOWNLOAD)
        time: NDArray[np.int64] = batch["time"].cast(pl.Int64).to_numpy()
        if time.size == 0:
            continue
        is_sorted = is_sorted and bool((np.diff(time) > 0).all()) and (previous is None or time[0] > previous)
        previous = time[-1]
        if not firsts and time.size >= ENOUGH_TO_JUDGE:
            distances = np.sort(np.diff(np.unique(time[:SPACING_ROWS])))
            if distances.size:
                closest, typical = int(distances[0]), int(distances[distances.size // 2])
        firsts.append(int(time.min()))
        lasts.append(int(time.max()))
    if not firsts:
        raise refuse("no candle in it", REDOWNLOAD)
    return Survey(first=min(firsts), last=max(lasts), is_sorted=is_sorted, closest=closest, typical=typical)


def _unit_of(survey: Survey, refuse: Refuse) -> timedelta:
    """The unit of integer stamps. Raises ArchiveUnreadable for seconds, nanoseconds, mixtures and anything else."""
    lowest, highest = (len(str(stamp)) for stamp in (survey.first, survey.last))
    if lowest != highest:
        found = f"open times of {lowest} and of {highest} digits mixed ({survey.first}, {survey.last})"
        raise refuse(found, "Split the file: all of its open times must be milliseconds, or all microseconds.")
    if lowest not in UNITS:
        unit = {10: "seconds", 19: "nanoseconds"}.get(lowest, "no known unit")
        found = f"open times of {lowest} digits ({survey.first}): {unit}"
        raise refuse(found, "Convert them to milliseconds (13 digits) or microseconds (16 digits).")
    return UNITS[lowest]


def _checked_columns(lazy: pl.LazyFrame, stream: Stream, refuse: Refuse) -> tuple[str, pl.DataType]:
    """The column of open times and its type. Raises ArchiveUnreadable for another schema or another symbol."""
    schema = lazy.collect_schema()
    stamp = next((name for name in STAMPS if name in schema), None)
    cure = (
        f"Expected an open time ({', '.join(STAMPS)}) and {', '.join(VALUES)}; convert the file, or move it elsewhere."
    )
    if stamp is None or any(value not in schema for value in VALUES):
        raise refuse(f"another schema, with the columns {', '.join(schema.names())}", cure)
    wrong = [name for name in VALUES if not schema[name].is_numeric()]
    if not (schema[stamp].is_integer() or isinstance(schema[stamp], pl.Datetime)):
        wrong.append(stamp)
    if wrong:
        raise refuse(f"another schema, with {', '.join(f'{name} as {schema[name]}' for name in wrong)}", cure)
    for column in (name for name in SYMBOLS if name in schema):
        for symbol in lazy.select(pl.col(column).unique()).collect()[column]:
            if not name_pattern(stream).search(f"{symbol}-{stream.timeframe}"):
                raise refuse(f"candles of {symbol}", "Rename the file after the symbol that it holds.")
    return stamp, schema[stamp]


def _microseconds(stamp: str, dtype: pl.Datetime) -> pl.Expr:
    """Microseconds since 1970 of a datetime column; one without a zone is UTC."""
    zoned = pl.col(stamp).dt.replace_time_zone("UTC") if dtype.time_zone is None else pl.col(stamp)
    return zoned.dt.timestamp("us")


def _scan(path: Path, stream: Stream, refuse: Refuse) -> pl.LazyFrame:
    """The rows of a file of any understood format."""
    if path.stat().st_size == 0:
        raise refuse("an empty file", REDOWNLOAD)
    if path.suffix == ".parquet":
        return pl.scan_parquet(path, glob=False)
    if path.suffix == ".feather":
        return pl.scan_ipc(path, glob=False)
    if path.suffix == ".csv":
        return _parse(path.read_bytes(), refuse).lazy()
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if len(members) != 1 or not name_pattern(stream).search(Path(members[0]).stem):
            raise refuse(
                f"{', '.join(members) or 'nothing'} inside", "Rename the zip after the one file that it holds."
            )
        return _parse(archive.read(members[0]), refuse).lazy()


def _parse(text: bytes, refuse: Refuse) -> pl.DataFrame:
    """The open time and OHLCV of a CSV, with or without a header."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    lines = text.rstrip()
    first_line, last_line = lines.partition(b"\n")[0].decode(), lines.rpartition(b"\n")[2].decode()
    if not lines:
        raise refuse("an empty file", REDOWNLOAD)
    if first_line.count(",") != last_line.count(","):
        raise refuse(f"a file cut off in its last line ({last_line!r})", REDOWNLOAD)
    has_header = not first_line[0].isdigit()
    if has_header and b"\n" not in lines:
        raise refuse("no candle in it", REDOWNLOAD)
    fields = [field.strip() for field in first_line.split(",")]
    names = fields if has_header else list(BINANCE[: len(fields)])
    wanted = [name for name in (*STAMPS, *VALUES, *SYMBOLS) if name in names]
    # Without a header the columns are only Binance's if there are enough of them; the schema check says so otherwise.
    return pl.read_csv(
        io.BytesIO(text),
        has_header=False,
        skip_rows=1 if has_header else 0,
        new_columns=names,
        schema_overrides=dict.fromkeys(VALUES, pl.Float64),
        try_parse_dates=True,
    ).select(wanted)


def _verify_checksum(path: Path, refuse: Refuse) -> None:
    """Raises ArchiveUnreadable where a `.CHECKSUM` (SHA-256) lies beside the file and does not match it."""
    beside = path.with_name(path.name + ".CHECKSUM")
    if not beside.exists():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found not in beside.read_text().lower().split():
        raise refuse(f"a SHA-256 of {found[:12]}…, not the one that {beside.name} names", REDOWNLOAD)


def _refusal(path: Path, stream: Stream, window: Window) -> Refuse:
    """Makes the error for one file out of what was found in it and the cure."""

    def refuse(found: str, cure: str) -> ArchiveUnreadable:
        wanted = f"{stream.symbol} {stream.timeframe} candles for {window}"
        return ArchiveUnreadable(f"{path}: expected {wanted}, found {found}. {cure}")

    return refuse


@contextmanager
def _named_when_damaged(refuse: Refuse) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise refuse(f"a truncated or damaged file ({type(error).__name__}: {reason})", REDOWNLOAD) from error
