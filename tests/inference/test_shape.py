"""Shapes: what the setting `frame` asks for, in words that a hash and a table can hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.shape import PIVOTS_KEPT, CandleBlock, FrameShape, Read, frame_shape
from hindsight.market.streams import TIMEFRAMES, Stream

ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
symbols = st.sampled_from(["ETH/USDT", "BTC/USDT", "SOL/USDC:USDC"])
blocks = st.builds(CandleBlock, symbol=symbols, timeframe=st.sampled_from([*TIMEFRAMES]), length=st.integers(2, 10**4))
reads = st.builds(
    Read,
    model=st.sampled_from(["cnn", "lstm"]),
    width=st.integers(1, 512),
    deadline_ms=st.integers(0, 600_000),
)


def shape_of(*entries: str, stream: Stream = ETH) -> FrameShape:
    return frame_shape(entries, stream, lookback=60, warmup=30)


def lengths(shape: FrameShape) -> dict[str, int]:
    return {str(block): block.length for block in shape.candles}


@pytest.mark.parametrize(
    ("entries", "expected", "book", "pivots"),
    [
        pytest.param(["own"], {"ETH/USDT 1m": 60}, 0, 0, id="own"),
        pytest.param(["own=20"], {"ETH/USDT 1m": 20}, 0, 0, id="of another length"),
        pytest.param(["own=20", "1m"], {"ETH/USDT 1m": 20}, 0, 0, id="own and its timeframe are the same block"),
        pytest.param(["1m=25"], {"ETH/USDT 1m": 25}, 0, 0, id="own by its timeframe"),
        pytest.param(["pivots"], {"ETH/USDT 1m": 60}, 0, PIVOTS_KEPT, id="own is always there"),
        pytest.param(["1h", "1d=7"], {"ETH/USDT 1m": 60, "ETH/USDT 1h": 60, "ETH/USDT 1d": 7}, 0, 0, id="timeframes"),
        pytest.param(["BTC/USDT 1s"], {"ETH/USDT 1m": 60, "BTC/USDT 1s": 60}, 0, 0, id="another market"),
        pytest.param(["SOL/USDC:USDC 5m=9"], {"ETH/USDT 1m": 60, "SOL/USDC:USDC 5m": 9}, 0, 0, id="a perpetual"),
        pytest.param(["book", "pivots=2"], {"ETH/USDT 1m": 60}, 60, 2, id="book and pivots"),
        pytest.param(["book=30", "pivots=0"], {"ETH/USDT 1m": 60}, 30, 0, id="with lengths"),
    ],
)
def test_entries_name_blocks(entries: list[str], expected: dict[str, int], book: int, pivots: int):
    shape = shape_of(*entries)
    assert (lengths(shape), shape.book, shape.pivots, shape.warmup) == (expected, book, pivots, 30)


@pytest.mark.parametrize("timeframe", ["1s", "1m", "1h"])
def test_the_standard_frame_holds_four_timeframes_bitcoin_the_book_and_pivots_the_predicted_stream_first(
    timeframe: str,
):
    stream = Stream(venue="simulated", symbol="ETH/USDT", timeframe=timeframe)
    shape = shape_of("standard", stream=stream)
    assert str(shape.own) == f"ETH/USDT {timeframe}"
    expected = {f"ETH/USDT {each}" for each in ("1s", "1m", "1h", "1d")} | {"BTC/USDT 1s"}
    assert lengths(shape) == dict.fromkeys(expected, 60)
    assert (shape.book, shape.pivots) == (60, PIVOTS_KEPT)


def test_the_streams_are_those_of_the_blocks_and_a_reference_addresses_what_warms_them_too():
    shape = shape_of("own=20", "1h", "BTC/USDT 1s")
    assert list(map(str, shape.streams("binance"))) == [
        "binance ETH/USDT 1m",
        "binance ETH/USDT 1h",
        "binance BTC/USDT 1s",
    ]
    assert shape.reach == 50
    assert [block.step_ms for block in shape.candles] == [60_000, 3_600_000, 1_000]


@pytest.mark.parametrize(
    "entry", ["7m", "ETH/USDT", "ETH/USDT 7m", "BTC/USDT own", "BTC/USDT book", "own=", "own=-5", "book = 5", "eth", ""]
)
def test_an_entry_that_names_no_block_is_refused_with_those_there_are(entry: str):
    with pytest.raises(ValueError, match="frame: expected own, a timeframe") as raised:
        shape_of("own", entry)
    assert repr(entry) in str(raised.value)


@pytest.mark.parametrize("entry", ["own=1", "1h=0"])
def test_a_block_without_a_return_in_it_is_refused(entry: str):
    with pytest.raises(ValueError, match="expected blocks of at least two candles"):
        shape_of(entry)


@given(
    st.lists(blocks, min_size=1, max_size=4),
    st.integers(0, 10**4),
    st.integers(0, 10**4),
    st.integers(0, 20),
    st.lists(reads, max_size=3),
)
def test_a_shape_comes_back_from_its_text(candles, warmup, book, pivots, reads):
    shape = FrameShape(candles=tuple(candles), warmup=warmup, book=book, pivots=pivots, reads=tuple(reads))
    assert FrameShape.parse(str(shape)) == shape
    assert str(FrameShape.parse(str(shape))) == str(shape)


def test_the_text_of_a_shape_is_the_same_in_every_version():
    """It is hashed: a schema hash of the past has to be found again."""
    text = (
        '{"book": 300, "candles": [{"length": 60, "symbol": "ETH/USDT", "timeframe": "1m"}], "pivots": 2,'
        ' "reads": [{"deadline_ms": 5000, "model": "cnn", "width": 64}], "warmup": 30}'
    )
    own = CandleBlock(symbol="ETH/USDT", timeframe="1m", length=60)
    shape = FrameShape(candles=(own,), warmup=30, book=300, pivots=2, reads=(Read(model="cnn", width=64),))
    assert str(shape) == text
