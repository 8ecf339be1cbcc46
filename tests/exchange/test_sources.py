"""The setting `source` opens the source that it names."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from hindsight import settings
from hindsight.errors import SettingRefused
from hindsight.exchange.archive import Archive
from hindsight.exchange.ccxt_rest import CcxtRest
from hindsight.exchange.simulated import SimulatedVenue
from hindsight.exchange.sources import Source, open_source
from hindsight.market.streams import Stream, Window


def test_the_default_source_is_the_simulated_venue_of_the_settings() -> None:
    source = open_source(settings.load(source="simulated", simulated_seed=3, simulated_phi=0.25))
    assert isinstance(source, SimulatedVenue)
    assert (source.seed, source.phi) == (3, 0.25)


def test_an_archive_is_opened_by_its_folder(tmp_path: Path) -> None:
    source = open_source(settings.load(source=f"archive:{tmp_path}"))
    assert isinstance(source, Archive)
    assert source.folder == tmp_path


def test_a_venue_of_ccxt_is_opened_by_its_id_without_asking_it_anything() -> None:
    source = open_source(settings.load(source="ccxt:kraken"))
    assert isinstance(source, CcxtRest)
    assert source.venue == "kraken"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("ccxt:nyse", "ccxt:nyse", id="unknown venue"),
        pytest.param("archive:/does/not/exist", "archive:/does/not/exist", id="no such folder"),
    ],
)
def test_a_source_that_does_not_exist_is_refused_by_name(source: str, message: str) -> None:
    with pytest.raises(SettingRefused, match=message):
        open_source(settings.load(source=source))


def test_every_source_serves_the_streams_of_its_settings(tmp_path: Path) -> None:
    simulated = settings.load(source="simulated")
    stream = simulated.streams[0]
    start = datetime(2024, 3, 1, tzinfo=UTC)
    window = Window(start=start, end=start + timedelta(hours=1))
    recorded = pl.concat(open_source(simulated).candles(stream, window))
    recorded.drop("revision", "recorded_at").write_parquet(tmp_path / "ethusdt_1m.parquet")
    archive = settings.load(source=f"archive:{tmp_path}", archive_venue="elsewhere")
    source: Source = open_source(archive)
    assert pl.concat(source.candles(archive.streams[0], window)).equals(recorded)


def test_ccxt_is_imported_only_where_it_is_used() -> None:
    code = (
        "import sys; from hindsight import settings; from hindsight.exchange.sources import open_source; "
        "open_source(settings.load(source='simulated')); assert 'ccxt' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_at_12_34_56_the_last_hour_that_is_there_opened_at_eleven() -> None:
    """Trap 5: a candle of a longer timeframe that contains the present has not closed, and is not there."""
    stream = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1h")
    present = datetime(2024, 1, 3, 12, 34, 56, tzinfo=UTC)
    window = Window(start=datetime(2024, 1, 3, tzinfo=UTC), end=present)
    hours = pl.concat(SimulatedVenue(seed=7, phi=0.3).candles(stream, window))
    assert hours["open_time"].max() == datetime(2024, 1, 3, 11, tzinfo=UTC)
    assert hours["recorded_at"].max() <= present
