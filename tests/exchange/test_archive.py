"""Archives: every format gives the same candles, and a file that is not what its name says is refused by name."""

import hashlib
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hindsight.errors import ArchiveUnreadable, SettingRefused
from hindsight.exchange.archive import FRAME_ROWS, Archive
from hindsight.market.candles import CANDLES, TIME, accept
from hindsight.market.streams import Stream, Window

ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
START = datetime(2024, 12, 31, 12, tzinfo=UTC)
BINANCE_HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def _candles(minutes: int = 2000, start: datetime = START, step: timedelta = timedelta(minutes=1)) -> pl.DataFrame:
    """open_time and OHLCV of a made-up market."""
    row = pl.int_range(minutes, eager=True)
    wave = (row * 7 % 100).cast(pl.Float64) / 8
    return pl.DataFrame(
        {
            "open_time": pl.datetime_range(
                start, start + step * (minutes - 1), step, time_unit="us", time_zone="UTC", eager=True
            ),
            "open": 3000 + wave,
            "high": 3020 + wave,
            "low": 2980 + wave,
            "close": 3001 + wave,
            "volume": row % 10 + 0.25,
        }
    )


def _stamped(frame: pl.DataFrame, unit: str, name: str = "ts_ms") -> pl.DataFrame:
    stamps = {
        "s": pl.col("open_time").dt.epoch("s"),
        "ms": pl.col("open_time").dt.epoch("ms"),
        "us": pl.col("open_time").dt.epoch("us"),
        "ns": pl.col("open_time").dt.epoch("ns"),
    }
    return frame.with_columns(stamps[unit]).rename({"open_time": name})


def _binance_csv(frame: pl.DataFrame, unit: str, header: bool = False) -> str:
    """The text of a file as Binance's public data has it."""
    rest = [pl.lit(0).alias(name) for name in BINANCE_HEADER.split(",")[6:]]
    text = _stamped(frame, unit, "open_time").with_columns(rest).write_csv(include_header=False)
    return f"{BINANCE_HEADER}\n{text}" if header else text


def _write_zip(path: Path, text: str, inside: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside or path.with_suffix(".csv").name, text)
    return path


def _write_parquet(folder: Path, frame: pl.DataFrame, name: str = "ethusdt_1m_made.parquet") -> Path:
    frame.write_parquet(folder / name)
    return folder / name


def _window(start: datetime = START, days: float = 30) -> Window:
    return Window(start=start, end=start + timedelta(days=days))


def _read(folder: Path, stream: Stream = ETH, window: Window | None = None) -> pl.DataFrame:
    frames = Archive(folder).candles(stream, window or _window())
    return pl.concat([pl.DataFrame(schema=CANDLES), *frames])


def _values(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("open_time", "open", "high", "low", "close", "volume")


WRITERS: dict[str, Callable[[Path, pl.DataFrame], object]] = {
    "parquet, ts_ms": lambda d, f: _write_parquet(d, _stamped(f, "ms")),
    "parquet, microseconds named ts_ms": lambda d, f: _write_parquet(d, _stamped(f, "us")),
    "parquet, open_time as a timestamp": lambda d, f: _write_parquet(d, f, "ETH-USDT-1m.parquet"),
    "parquet, open_time in nanosecond timestamps without a zone": lambda d, f: _write_parquet(
        d, f.with_columns(pl.col("open_time").dt.replace_time_zone(None).dt.cast_time_unit("ns"))
    ),
    "parquet with a symbol column": lambda d, f: _write_parquet(
        d, _stamped(f, "ms").with_columns(symbol=pl.lit("ETHUSDT"))
    ),
    "parquet in a folder below": lambda d, f: (
        (d / "spot" / "[1m]").mkdir(parents=True),
        _write_parquet(d / "spot" / "[1m]", _stamped(f, "ms")),
    ),
    "csv, milliseconds": lambda d, f: (d / "ETHUSDT-1m-all.csv").write_text(_binance_csv(f, "ms")),
    "csv, microseconds": lambda d, f: (d / "ETHUSDT-1m-all.csv").write_text(_binance_csv(f, "us")),
    "csv with a header": lambda d, f: (d / "ETHUSDT-1m-all.csv").write_text(_binance_csv(f, "ms", header=True)),
    "csv of six columns with dates in ISO": lambda d, f: f.write_csv(d / "eth_usdt-1m.csv"),
    "zip, microseconds": lambda d, f: _write_zip(d / "ETHUSDT-1m-all.zip", _binance_csv(f, "us")),
    "zip with a header": lambda d, f: _write_zip(d / "ETHUSDT-1m-all.zip", _binance_csv(f, "ms", header=True)),
    "freqtrade feather": lambda d, f: (
        f.rename({"open_time": "date"})
        .with_columns(pl.col("date").dt.cast_time_unit("ms"))
        .write_ipc(d / "ETH_USDT-1m.feather", compression="lz4")
    ),
}


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in WRITERS.items()])
def test_every_format_gives_the_same_candles(write: Callable[[Path, pl.DataFrame], object], tmp_path: Path) -> None:
    write(tmp_path, _candles())
    frame = _read(tmp_path)
    assert frame.schema == CANDLES
    assert_frame_equal(_values(frame), _candles(), check_exact=True)
    assert frame["revision"].unique().to_list() == [0]
    assert (frame["recorded_at"] - frame["open_time"]).unique().to_list() == [timedelta(minutes=1)]


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in WRITERS.items()])
def test_a_window_cuts_every_format_alike(write: Callable[[Path, pl.DataFrame], object], tmp_path: Path) -> None:
    write(tmp_path, _candles())
    window = Window(start=START + timedelta(seconds=30), end=START + timedelta(minutes=5, seconds=59))
    opens = _read(tmp_path, window=window)["open_time"].to_list()
    assert opens == [START + timedelta(minutes=m) for m in (1, 2, 3, 4)]  # :05 has not closed by :05:59


def test_nothing_is_read_that_closes_after_the_window_ends(tmp_path: Path) -> None:
    _write_parquet(tmp_path, _stamped(_candles(), "ms"))
    until = START + timedelta(minutes=10)
    assert _read(tmp_path, window=Window(start=START, end=until))["recorded_at"].max() == until


def test_windows_side_by_side_give_the_whole(tmp_path: Path) -> None:
    _write_parquet(tmp_path, _stamped(_candles(), "ms"))
    cuts = [START + timedelta(minutes=m) for m in (0, 1, 720, 721, 2000)]
    pieces = [_read(tmp_path, window=Window(start=a, end=b)) for a, b in pairwise(cuts)]
    assert_frame_equal(pl.concat(pieces), _read(tmp_path))


def test_files_of_other_streams_are_left_alone(tmp_path: Path) -> None:
    _write_parquet(tmp_path, _stamped(_candles(), "ms"))
    for name in (
        "btcusdt_1m.parquet",
        "stethusdt_1m.parquet",
        "ethusdt_1h.parquet",
        "ETHUSDT-1M-2024.parquet",
        "ethusdt_15m.parquet",
        "ETH_USDT_USDT-1m-mark.feather",
        "ethusdt_1m.txt",
        "ethusdtx_1m.csv",
    ):
        (tmp_path / name).write_bytes(b"not a candle file at all")
    assert_frame_equal(_values(_read(tmp_path)), _candles())


def test_daily_and_monthly_files_of_other_times_are_never_opened(tmp_path: Path) -> None:
    day = datetime(2025, 1, 3, tzinfo=UTC)
    _write_zip(tmp_path / "ETHUSDT-1m-2025-01-03.zip", _binance_csv(_candles(1440, day), "us"))
    for other in ("2025-01-02", "2025-01-04", "2024-12", "2025-02"):
        (tmp_path / f"ETHUSDT-1m-{other}.zip").write_bytes(b"broken")
    assert_frame_equal(_values(_read(tmp_path, window=_window(day, 1))), _candles(1440, day))
    with pytest.raises(ArchiveUnreadable, match=r"ETHUSDT-1m-2025-01-04\.zip"):
        _read(tmp_path, window=_window(day, 2))


def test_many_small_files_come_as_few_frames_in_time_order(tmp_path: Path) -> None:
    first = datetime(2024, 12, 30, tzinfo=UTC)  # milliseconds before 2025, microseconds since: as Binance changed it
    for number in range(4):
        day = first + timedelta(days=number)
        text = _binance_csv(_candles(1440, day), "us" if day.year == 2025 else "ms")
        _write_zip(tmp_path / f"ETHUSDT-1m-{day:%Y-%m-%d}.zip", text)
    frames = list(Archive(tmp_path).candles(ETH, _window(first)))
    assert [len(frame) for frame in frames] == [4 * 1440]
    assert frames[0]["open_time"].is_sorted()


def test_rows_that_several_files_have_alike_are_given_once(tmp_path: Path) -> None:
    frame = _candles()
    _write_parquet(tmp_path, _stamped(frame[:1500], "ms"), "ethusdt_1m_a.parquet")
    _write_parquet(tmp_path, _stamped(frame[1000:], "us"), "ethusdt_1m_b.parquet")
    (tmp_path / "ETHUSDT-1m.csv").write_text(_binance_csv(frame[400:600], "ms"))
    assert_frame_equal(_values(_read(tmp_path)), frame)


def test_rows_that_contradict_each_other_both_reach_the_candles_door(tmp_path: Path) -> None:
    frame = _candles(100)
    other = frame.with_columns(close=pl.when(pl.col("open_time") == START).then(3005.0).otherwise("close"))
    _write_parquet(tmp_path, _stamped(frame, "ms"), "ethusdt_1m_a.parquet")
    _write_parquet(tmp_path, _stamped(other, "ms"), "ethusdt_1m_b.parquet")
    good, refused = accept(_read(tmp_path), ETH)
    assert_frame_equal(_values(good), frame)
    assert refused.select("open_time", "reason").rows() == [(START, "duplicate")]


def test_a_file_out_of_order_is_given_in_time_order(tmp_path: Path) -> None:
    _write_parquet(tmp_path, _stamped(_candles().sample(fraction=1.0, shuffle=True, seed=3), "ms"))
    assert_frame_equal(_values(_read(tmp_path)), _candles())


def test_values_are_not_judged_here_but_none_is_lost(tmp_path: Path) -> None:
    frame = _candles(100).with_columns(high=pl.when(pl.col("open_time") == START).then(None).otherwise("high"))
    _write_parquet(tmp_path, _stamped(frame, "ms"))
    given = _read(tmp_path)
    assert len(given) == 100
    assert accept(given, ETH)[1]["reason"].to_list() == ["not a number"]


def test_long_files_come_in_frames_of_bounded_size(tmp_path: Path) -> None:
    seconds = Stream(venue="binance", symbol="ETH/USDT", timeframe="1s")
    frame = _candles(2 * FRAME_ROWS + 10, step=timedelta(seconds=1))
    _write_parquet(tmp_path, _stamped(frame, "ms"), "ethusdt_1s.parquet")
    sizes = [len(part) for part in Archive(tmp_path).candles(seconds, _window())]
    assert sum(sizes) == len(frame)
    assert max(sizes) <= FRAME_ROWS
    _write_parquet(tmp_path, _stamped(frame, "ms"), "ethusdt_1s_again.parquet")
    merged = list(Archive(tmp_path).candles(seconds, _window()))
    assert max(map(len, merged)) <= FRAME_ROWS
    assert_frame_equal(_values(pl.concat(merged)), frame)


def test_a_file_that_grows_is_read_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    _write_parquet(tmp_path, _stamped(_candles(100), "ms"))
    assert sum(map(len, archive.candles(ETH, _window()))) == 100
    _write_parquet(tmp_path, _stamped(_candles(200), "ms"))
    assert sum(map(len, archive.candles(ETH, _window()))) == 200


def test_a_month_that_no_file_covers_is_simply_empty(tmp_path: Path) -> None:
    _write_parquet(tmp_path, _stamped(_candles(), "ms"))
    assert _read(tmp_path, window=_window(START - timedelta(days=60))).is_empty()
    assert _read(tmp_path, window=_window(START + timedelta(days=60))).is_empty()


def _truncated(path: Path, keep: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def _mixed(units: tuple[str, str]) -> pl.DataFrame:
    frame = _candles()
    return pl.concat([_stamped(frame[:1000], units[0]), _stamped(frame[1000:], units[1])])


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated parquet": (lambda d: _truncated(_write_parquet(d, _stamped(_candles(), "ms"))), "truncated or damaged"),
    "parquet without its first byte": (
        lambda d: (path := _write_parquet(d, _stamped(_candles(), "ms"))).write_bytes(path.read_bytes()[1:]),
        "truncated or damaged",
    ),
    "truncated zip": (
        lambda d: _truncated(_write_zip(d / "ETHUSDT-1m-a.zip", _binance_csv(_candles(), "ms"))),
        "truncated or damaged",
    ),
    "truncated csv": (
        lambda d: (d / "ETHUSDT-1m-a.csv").write_text(_binance_csv(_candles(), "ms")[:-15]),
        "cut off in its last line",
    ),
    "truncated feather": (
        lambda d: (
            _candles().rename({"open_time": "date"}).write_ipc(d / "ETH_USDT-1m.feather"),
            _truncated(d / "ETH_USDT-1m.feather"),
        ),
        "truncated or damaged",
    ),
    "text in a price": (
        lambda d: (d / "ETHUSDT-1m-a.csv").write_text(_binance_csv(_candles(50), "ms") + "1735700000000" + ",x" * 11),
        "truncated or damaged",
    ),
    "empty parquet": (lambda d: (d / "ethusdt_1m.parquet").touch(), "an empty file"),
    "empty csv": (lambda d: (d / "ETHUSDT-1m-a.csv").touch(), "an empty file"),
    "blank csv": (lambda d: (d / "ETHUSDT-1m-a.csv").write_text("\n\n"), "an empty file"),
    "empty zip": (lambda d: _write_zip(d / "ETHUSDT-1m-a.zip", ""), "an empty file"),
    "only a header": (lambda d: (d / "ETHUSDT-1m-a.csv").write_text(BINANCE_HEADER + "\n"), "no candle in it"),
    "parquet without rows": (lambda d: _write_parquet(d, _stamped(_candles()[:0], "ms")), "no candle in it"),
    "another schema": (lambda d: _write_parquet(d, pl.DataFrame({"time": [1], "price": [2.0]})), "columns time, price"),
    "a csv of three columns": (lambda d: (d / "ETHUSDT-1m-a.csv").write_text("1,2,3\n4,5,6\n"), "another schema"),
    "prices as text": (
        lambda d: _write_parquet(d, _stamped(_candles(), "ms").with_columns(pl.col("high").cast(pl.String))),
        "high as String",
    ),
    "open times as fractions": (
        lambda d: _write_parquet(d, _stamped(_candles(), "ms").with_columns(pl.col("ts_ms").cast(pl.Float64))),
        "ts_ms as Float64",
    ),
    "a missing open time": (
        lambda d: _write_parquet(
            d, _stamped(_candles(), "ms").with_columns(pl.when(pl.col("volume") < 9).then("ts_ms").alias("ts_ms"))
        ),
        "200 candles without an open time",
    ),
    "open times in seconds": (lambda d: _write_parquet(d, _stamped(_candles(), "s")), "10 digits .*: seconds"),
    "open times in nanoseconds": (lambda d: _write_parquet(d, _stamped(_candles(), "ns")), "19 digits .*: nanoseconds"),
    "milliseconds and microseconds mixed": (lambda d: _write_parquet(d, _mixed(("ms", "us"))), "13 and of 16 digits"),
    "microseconds and milliseconds mixed": (lambda d: _write_parquet(d, _mixed(("us", "ms"))), "13 and of 16 digits"),
    "seconds and milliseconds mixed": (lambda d: _write_parquet(d, _mixed(("s", "ms"))), "10 and of 13 digits"),
    "hours under the name of minutes": (
        lambda d: _write_parquet(d, _stamped(_candles(step=timedelta(hours=1)), "ms")),
        "candles 1:00:00 apart",
    ),
    "seconds under the name of minutes": (
        lambda d: _write_parquet(d, _stamped(_candles(step=timedelta(seconds=1)), "ms")),
        "candles 0:00:01 apart",
    ),
    "another symbol in a column": (
        lambda d: _write_parquet(d, _stamped(_candles(), "ms").with_columns(symbol=pl.lit("BTCUSDT"))),
        "candles of BTCUSDT",
    ),
    "another symbol inside the zip": (
        lambda d: _write_zip(d / "ETHUSDT-1m-a.zip", _binance_csv(_candles(), "ms"), "BTCUSDT-1m-a.csv"),
        "BTCUSDT-1m-a.csv inside",
    ),
}


@pytest.mark.parametrize(("write", "found"), [pytest.param(*case, id=name) for name, case in DAMAGED.items()])
def test_an_unreadable_file_is_refused_with_its_name_and_the_cure(
    write: Callable[[Path], object], found: str, tmp_path: Path
) -> None:
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(ArchiveUnreadable, match=found) as refusal:
        _read(tmp_path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: expected ETH/USDT 1m candles for [2024-12-31 12:00, 2025-01-30 12:00), found ")
    assert any(cure in message for cure in ("Download it again", "Rename", "Convert", "convert", "Split"))


@pytest.mark.parametrize("keep", [pytest.param(keep / 20, id=f"{keep * 5} %") for keep in range(1, 20)])
def test_a_parquet_file_cut_anywhere_is_refused(keep: float, tmp_path: Path) -> None:
    path = _write_parquet(tmp_path, _stamped(_candles(200), "ms"))
    _truncated(path, keep)
    with pytest.raises(ArchiveUnreadable, match=path.name):
        _read(tmp_path)


def test_a_checksum_beside_a_file_is_verified(tmp_path: Path) -> None:
    path = _write_zip(tmp_path / "ETHUSDT-1m-a.zip", _binance_csv(_candles(), "ms"))
    beside = path.with_name(path.name + ".CHECKSUM")
    beside.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    assert len(_read(tmp_path)) == 2000
    beside.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(ArchiveUnreadable, match=r"SHA-256 .* ETHUSDT-1m-a\.zip\.CHECKSUM"):
        _read(tmp_path)


def test_a_folder_without_the_symbol_says_what_it_has(tmp_path: Path) -> None:
    _write_parquet(tmp_path, _stamped(_candles(), "ms"), "btcusdt_1m.parquet")
    with pytest.raises(ArchiveUnreadable, match=r"ETH/USDT 1m .* btcusdt_1m\.parquet.*ETHUSDT-1m"):
        _read(tmp_path)


def test_a_folder_that_does_not_exist_is_a_setting_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match=r"archive:.*nowhere"):
        Archive(tmp_path / "nowhere")


@pytest.mark.parametrize("symbol", ["ETH/USDT", "BTC/USDT"])
@pytest.mark.parametrize(("timeframe", "rows"), [("1m", 1_051_120), ("1h", 17_519), ("1d", 730)])
def test_the_recorded_parquet_files_are_read_whole(symbol: str, timeframe: str, rows: int, shared_data: Path) -> None:
    stream = Stream(venue="binance", symbol=symbol, timeframe=timeframe)
    window = Window(start=datetime(2022, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 1, tzinfo=UTC))
    frame = _read(shared_data / "candles", stream, window)
    assert len(frame) == rows
    good, refused = accept(frame, stream)
    assert refused.is_empty()
    name = "2017_2023" if timeframe != "1m" else "2022_2023"
    file = f"{symbol.replace('/', '').lower()}_{timeframe}_binance_spot_{name}.parquet"
    bare = pl.read_parquet(shared_data / "candles" / file)
    assert_frame_equal(
        _values(good),
        bare.rename({"ts_ms": "open_time"}).with_columns(pl.col("open_time").mul(1000).cast(TIME)).tail(rows),
    )


def test_the_recorded_daily_zips_are_read_and_verified(shared_data: Path) -> None:
    folder = shared_data / "messages" / "binance_vision_zips"
    bitcoin = Stream(venue="binance", symbol="BTC/USDT", timeframe="1m")
    days = _read(folder, bitcoin, _window(datetime(2020, 1, 1, tzinfo=UTC), 3))
    assert len(days) == 3 * 1440
    assert days.row(0)[1:6] == (7195.24, 7196.25, 7183.14, 7186.68, 51.642812)
    outage = _read(folder, ETH, _window(datetime(2023, 3, 24, tzinfo=UTC), 1))
    assert len(outage) == 1440 - 80
