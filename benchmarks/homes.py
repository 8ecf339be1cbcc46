"""The recorded candles that figures are measured on, and homes of Hindsight filled with them in a scratch folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import duckdb

from benchmarks.fresh import CHECKOUT
from hindsight.exchange.sources import Source, open_source
from hindsight.market.streams import Stream, Window
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.settings import Settings, load
from hindsight.store.rows import stream_key
from hindsight.store.warehouse import Warehouse

CANDLES = CHECKOUT.parent / "shared" / "data" / "candles"
ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="binance", symbol="BTC/USDT", timeframe="1m")
FILES = {
    ETH: CANDLES / "ethusdt_1m_binance_spot_2022_2023.parquet",
    BTC: CANDLES / "btcusdt_1m_binance_spot_2022_2023.parquet",
}
TWO_YEARS = Window(start=datetime(2022, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 1, tzinfo=UTC))
CANDLES_EACH = 1_051_120
MODEL = "transformer"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for everything that is written; it is the working folder meanwhile, and settings are the defaults."""
    for name in [name for name in os.environ if name.startswith("HINDSIGHT_")]:
        del os.environ[name]  # figures are promised for the default settings
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="hindsight-benchmarks-") as folder:
        os.chdir(folder)  # out of reach of the checkout's hindsight.toml
        tempfile.tempdir = folder
        os.environ["HINDSIGHT_HOME"] = str(Path(folder) / "default-home")
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            tempfile.tempdir = None


def new_folder(name: str) -> Path:
    """A folder that is not there yet, below the scratch folder."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-")) / "home"


def settings_in(home: Path | str, **overrides: object) -> Settings:
    """The default settings with the archive as the source, and everything below `home`."""
    return load(home=Path(home), source=f"archive:{CANDLES}", **overrides)


def warehouse_in(home: Path | str) -> Warehouse:
    """The warehouse below `home`."""
    settings = settings_in(home)
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=settings.lock_timeout_seconds)


def record(home: Path | str, stream: Stream, window: Window) -> None:
    """Candles, indicators and pivots of `window`."""
    settings = settings_in(home)
    record_from(open_source(settings), settings, warehouse_in(home), stream, window)


def record_from(source: Source, settings: Settings, warehouse: Warehouse, stream: Stream, window: Window) -> None:
    """The same, of what `source` delivers."""
    record_candles(warehouse, source, stream, window, window.end)
    record_indicators(warehouse, stream, window)
    record_pivots(warehouse, stream, window.end, max_gap=settings.max_gap)


def begin_learning_at(home: Path | str, stream: Stream, moment: datetime) -> None:
    """Puts the model where it would stand had it been learning until `moment`, except that it has learned nothing.

    Its watermark stands there, and a training step of number 0 and no content: how far training has come decides how
    far back the next call looks.
    """
    with warehouse_in(home).writing() as con:
        con.execute(
            """
            insert into learned_until (model, venue, symbol, timeframe, since, until)
            values ($model, $venue, $symbol, $timeframe, $moment, $moment)
            """,
            {"model": MODEL, **stream_key(stream), "moment": moment},
        )
        write_empty_step(con, MODEL, stream, moment)


def write_empty_step(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, moment: datetime) -> None:
    """A training step of number 0 and no content at `moment`."""
    con.execute(
        """
        insert into training_steps
        values ($model, $venue, $symbol, $timeframe, 0, 'candle', $moment, [], [], 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                0, '', '{}', 'cpu', 0)
        """,
        {"model": model, **stream_key(stream), "moment": moment},
    )


def copied(home: Path) -> Path:
    """A copy of `home` to measure on, so that every run begins from the same state."""
    copy = new_folder("copy")
    shutil.copytree(home, copy)
    return copy


@cache
def recorded_two_years() -> Path:
    """A home with candles, indicators and pivots of two years of ETH/USDT; shared by all who do not learn in it."""
    home = new_folder("two-years")
    record(home, ETH, TWO_YEARS)
    return home
