"""Frames of a real market: eleven minutes of ETH/USDT and BTC/USDT by the second, with the book as it was recorded."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.configured import shape_of
from hindsight.exchange.book_recordings import recorded_seconds
from hindsight.inference.blocks import Blocks
from hindsight.inference.book_tape import BOOK_COLUMN, BOOK_COLUMNS
from hindsight.inference.frames import COLUMN, WARM
from hindsight.learn import learn
from hindsight.market.book_means import MEANS
from hindsight.market.book_rows import book_frame
from hindsight.market.book_seconds import BookSeconds, BookSource
from hindsight.market.candles import TIME, first_delivery
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.market.trades import TRADES, whole_candles
from hindsight.recall_blocks import recall_blocks
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.remake import remake
from hindsight.settings import Settings, load
from hindsight.store.book_tables import write_order_book
from hindsight.store.rows import OF_MARKET, market_key, select
from hindsight.store.warehouse import Warehouse
from hindsight.verify import references_not_resolving

# Of the first and the last recorded second nobody can say that they are whole.
RECORDED = Window(start=datetime(2024, 8, 8, 23, 54, 16, tzinfo=UTC), end=datetime(2024, 8, 9, 0, 5, 5, tzinfo=UTC))
SECOND = timedelta(seconds=1)
SECONDS = (RECORDED.end - RECORDED.start) // SECOND
LENGTH = 300
WARMING = 49  # candles before the first with an SMA 50, the longest there is
MADE = SECONDS - WARMING - LENGTH + 1
QUIET = {"ETH/USDT": 41, "BTC/USDT": 6}


def candles(shared_data: Path, coin: str) -> pl.DataFrame:
    """Every second between the first trade and the last, quiet ones among them."""
    trades = pl.read_parquet(shared_data / "order_book" / f"{coin}usdt_trades_binance_spot_20240808T2354.parquet")
    trades = trades.select("trade_id", "price", "side", time=(pl.col("ts_ms") * 1000).cast(TIME), amount="qty")
    return whole_candles(trades.select(TRADES.names()).cast(TRADES), Stream.parse(f"binance {coin.upper()}/USDT 1s"))


def book(shared_data: Path, coin: str, size: float) -> pl.DataFrame:
    """The rows that the recording of the book makes."""
    seconds = BookSeconds(
        symbol=f"{coin.upper()}/USDT",
        venue="binance",
        bucket_size=size,
        sources=[BookSource(name="binance", age_limit_ms=3000, quote_to_usd=1.0)],
        quote_to_usd=1.0,
    )
    path = shared_data / "order_book" / f"{coin}usdt_l2_binance_spot_20240808T2354.parquet"
    return book_frame(row.landed() for row in recorded_seconds(path, seconds, "binance"))


@pytest.fixture(scope="module")
def home(shared_data: Path, deliveries: Callable, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The recording, stored, and predicted from and learned by the CNN at every second."""
    settings = load(
        home=tmp_path_factory.mktemp("real") / "home",
        source=f"archive:{shared_data}",
        timeframes=("1s",),
        predicted=("ETH/USDT 1s",),
        models=("cnn",),
        frame=(f"own={LENGTH}", f"BTC/USDT 1s={LENGTH}", f"book={LENGTH}", "pivots"),
        warmup=0,
        device="cpu",
        batch_size=8,
    )
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)
    for stream, coin, size in zip(settings.streams, ("eth", "btc"), (1.0, 10.0), strict=True):
        found = first_delivery(candles(shared_data, coin), stream)
        record_candles(warehouse, deliveries(found), stream, RECORDED, RECORDED.end)
        record_indicators(warehouse, stream, RECORDED)
        record_pivots(warehouse, stream, RECORDED.end, max_gap=settings.max_gap)
        with warehouse.writing() as con:
            write_order_book(con, book(shared_data, coin, size))
    learn(settings, settings.predicted_streams[0], "cnn", RECORDED.end)
    return settings


def rows_of(settings: Settings, sql: str) -> pl.DataFrame:
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
        return select(con, sql)


def blocks_of(settings: Settings) -> Blocks:
    """All blocks of the frames made in the recording."""
    (stream,) = settings.predicted_streams
    first, end = (to_ms(moment) // stream.step_ms for moment in (RECORDED.start, RECORDED.end))
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
        return recall_blocks(con, settings, stream, shape_of(settings, stream, "cnn"), first, end)


def made_rows(settings: Settings) -> np.ndarray:
    made = rows_of(settings, "select made_at from inference_references order by made_at")["made_at"]
    return made.dt.epoch("ms").to_numpy() // 1000 - 1


def test_the_seconds_are_those_of_the_published_candles_and_the_quiet_ones_between(
    home: Settings, shared_data: Path
) -> None:
    """Two roads: from the trades, and as the candles were published. A quiet second is no gap (trap 18)."""
    for symbol, coin in (("ETH/USDT", "eth"), ("BTC/USDT", "btc")):
        stored = rows_of(home, f"select * from candles where symbol = '{symbol}' order by open_time")
        assert stored.height == SECONDS
        quiet = stored.filter(pl.col("volume") == 0)
        assert quiet.height == QUIET[symbol]
        assert quiet.select((pl.col("open") == pl.col("close")).all()).item()
        path = shared_data / "candles" / f"{coin}usdt_1s_binance_spot_20240808T2354_from_trades.parquet"
        published = pl.read_parquet(path).with_columns(open_time=(pl.col("ts_ms") * 1000).cast(TIME))
        columns = ["open", "high", "low", "close", "volume"]
        both = published.join(stored.cast({"open_time": TIME}), on="open_time", suffix="_stored")
        assert both.height == published.height == SECONDS - QUIET[symbol]
        for name in columns:
            np.testing.assert_allclose(both[name], both[f"{name}_stored"], rtol=1e-12)
    assert rows_of(home, "select * from gaps").is_empty()


def test_every_second_with_so_many_warm_ones_behind_it_has_its_frame_and_no_other(home: Settings) -> None:
    made = made_rows(home)
    last = to_ms(RECORDED.end) // 1000 - 1
    np.testing.assert_array_equal(made, np.arange(last - MADE + 1, last + 1))
    blocks = blocks_of(home)
    frame = blocks.gather(made, np.empty((len(made), 4), np.float32))
    for candles_BLF in frame.candles:
        assert candles_BLF.shape == (MADE, LENGTH, len(COLUMN))
        assert np.isfinite(candles_BLF[:, :, WARM]).all()
    assert np.isfinite(frame.book[:, :, BOOK_COLUMN["imbalance"]]).all()
    assert np.isfinite(frame.pivots[:, :, 0, 0]).any(axis=1).all()


def test_every_other_second_is_refused_with_what_its_frame_lacked(home: Settings) -> None:
    """Both markets warm up over the same seconds: what is missing first is missing of the predicted one."""
    found = rows_of(home, "select * from refused_frames order by day")
    midnight = datetime(2024, 8, 9, tzinfo=UTC)
    first_made = RECORDED.end - (MADE - 1) * SECOND
    assert found["model"].unique().to_list() == ["cnn"]
    assert found["block"].unique().to_list() == ["candles ETH/USDT 1s"]
    assert found["need"].unique().to_list() == [LENGTH]
    assert found["day"].to_list() == [date(2024, 8, 8), date(2024, 8, 9)]
    before = (midnight - SECOND - RECORDED.start) // SECOND
    assert found["closes"].to_list() == [before, SECONDS - MADE - before]
    assert found["fewest"].to_list() == [0, before + 1 - WARMING]
    assert found["first_at"].to_list() == [RECORDED.start + SECOND, midnight]
    assert found["last_at"].to_list() == [midnight - SECOND, first_made - SECOND]


def test_predictions_are_made_and_what_they_saw_is_found_again(home: Settings) -> None:
    (stream,) = home.predicted_streams
    references = rows_of(home, "select * from inference_references order by made_at")
    assert references.height == MADE
    assert np.isfinite(references["predicted_candle"].to_numpy()).all()
    assert references["checkpoint_id"].max() > 0  # type: ignore[operator]
    with Warehouse(path=home.warehouse_path, lock_timeout_seconds=30).reading() as con:
        assert references_not_resolving(home, con, stream, RECORDED).is_empty()
    made = made_rows(home)
    assert blocks_of(home).digests(made).tolist() == references["digest"].to_list()
    for at in (0, MADE // 2, -1):
        assert remake(home, references["inference_id"][at]).is_same


def test_the_book_of_a_frame_is_that_of_the_seconds_before_it(home: Settings) -> None:
    (stream,) = home.predicted_streams
    made = made_rows(home)
    seen = blocks_of(home).gather(made, np.empty((len(made), 4), np.float32)).book
    with Warehouse(path=home.warehouse_path, lock_timeout_seconds=30).reading() as con:
        sql = f"select * from order_book where {OF_MARKET} and second >= $since and second < $until order by second"
        stored = select(con, sql, **market_key(stream), since=RECORDED.start - SECOND, until=RECORDED.end)
    expected = np.column_stack(
        [stored["amounts"].to_numpy(), *(stored[name].fill_null(np.nan).to_numpy() for name in ("imbalance", *MEANS))]
    )
    expected = np.column_stack([expected, stored["price"].to_numpy()]).astype(np.float32)
    first = int(stored["second"].dt.epoch("ms")[0]) // 1000
    assert stored.height == int(stored["second"].dt.epoch("ms")[-1]) // 1000 - first + 1
    assert expected.shape[1] == len(BOOK_COLUMNS)
    for index, row in enumerate(made.tolist()):
        np.testing.assert_array_equal(seen[index], expected[row - LENGTH + 1 - first : row + 1 - first])
