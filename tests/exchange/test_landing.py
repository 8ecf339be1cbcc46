"""The landing: segments whole or absent, in order, across restarts, full disks and damage."""

import json
import resource
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import xxhash

from hindsight.errors import HomeUnwritable, SegmentUnreadable
from hindsight.exchange.landing import Landing
from hindsight.exchange.segments import BUCKETS, Row
from hindsight.market.book_rows import book_frame

NOW = 1_717_200_000_000
STREAM = "binance ETH/USDT 1m"


def candle(number: int = 0, **changed: object) -> Row:
    row = {"stream": STREAM, "open_time_ms": NOW + 60_000 * number, "open": 1.5, "high": 2, "low": 1.0, "close": 1.25}
    return {**row, "volume": 3.0, "known_ms": None, "closed_by": "flag", **changed}


def second(**changed: object) -> Row:
    row = {"symbol": "ETH/USDT", "venue": "binance", "second_ms": NOW, "price": 3020.5, "bucket_size": 1.0}
    row |= {"anchor": 3020, "amounts": [1.0] * BUCKETS, "imbalance": None, "snapshots": 10, "age_ms": 40}
    return {**row, "spread": 0.01, "venues": ["binance"], **changed}


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def again(landing: Landing) -> Landing:
    """The landing as another process sees it."""
    return Landing(landing.folder)


def test_what_was_written_is_read(landing: Landing) -> None:
    rows = [candle(0), candle(1, known_ms=NOW + 99, closed_by="rest")]
    path = landing.write("candles", rows, NOW + 5, NOW + 7)
    segment = again(landing).read(path)
    assert (segment.kind, segment.venue_ms, segment.written_ms, segment.rows) == ("candles", NOW + 5, NOW + 7, rows)
    assert path.name == f"00{NOW + 5}-000000-candles.jsonl"


def test_names_sort_in_the_order_written_whatever_the_venues_clock_does(landing: Landing) -> None:
    clocks = [NOW, NOW, NOW + 50, NOW - 3000, NOW + 50, NOW + 51]
    written = [landing.write("order_book", [second()], clock, clock) for clock in clocks]
    assert landing.segments() == sorted(written) == written


@pytest.mark.parametrize("fate", ["landed", "archived", "refused"])
def test_names_never_go_back_when_the_feed_starts_again(landing: Landing, fate: str) -> None:
    before = landing.write("candles", [candle()], NOW, NOW)
    if fate == "archived":
        landing.archive(before)
    if fate == "refused":
        landing.refuse(before, "for the test")
    after = again(landing).write("candles", [candle()], NOW - 5_000, NOW)
    assert after.name > before.name


def test_the_newest_candle_is_known_after_a_kill_however_long_ago_it_landed(landing: Landing) -> None:
    for number in range(30):  # a cursor is written every ten seconds of these
        path = landing.write("candles", [candle(number)], NOW + number, NOW + 700 * number)
        if number % 3:
            landing.archive(path)
    assert again(landing).newest(STREAM) == candle(29)["open_time_ms"]
    assert again(landing).newest("binance BTC/USDT 1m") is None


@pytest.mark.parametrize("damage", [b"", b'{"venue_ms": 1', b"[]", b'{"venue_ms":1,"sequence":1,"newest":[]}'])
def test_a_damaged_cursor_costs_only_reading(landing: Landing, damage: bytes) -> None:
    landing.write("candles", [candle(4)], NOW, NOW)
    (landing.folder / "cursor.json").write_bytes(damage)
    assert again(landing).newest(STREAM) == candle(4)["open_time_ms"]
    assert again(landing).write("candles", [candle(5)], NOW, NOW).name.startswith(f"00{NOW}-000001")


def test_archived_segments_lie_below_their_day_and_archiving_twice_is_once(landing: Landing) -> None:
    path = landing.write("candles", [candle()], NOW, NOW)
    landing.archive(path)
    landing.archive(path)
    assert [each.name for each in (landing.archived / "2024-06-01").iterdir()] == [path.name]
    assert landing.segments() == []


def test_a_refused_segment_has_its_reason_beside_it(landing: Landing) -> None:
    path = landing.write("candles", [candle()], NOW, NOW)
    landing.refuse(path, "truncated")
    assert (landing.refused / path.name).exists()
    assert (landing.refused / f"{path.name}.reason").read_text() == "truncated\n"
    assert landing.segments() == []


def test_a_bucket_that_the_book_does_not_reach_is_null(landing: Landing) -> None:
    row = second(amounts=[None] * 3 + [1.0] * 37)
    assert landing.read(landing.write("order_book", [row], NOW, NOW)).rows == [row]


@pytest.mark.parametrize("spread", [None, 0, -0.5])
def test_a_spread_may_be_unknown_zero_or_less(landing: Landing, spread: float | None) -> None:
    row = second(spread=spread)
    assert landing.read(landing.write("order_book", [row], NOW, NOW)).rows == [row]


def test_a_segment_from_before_there_was_a_spread_is_read_and_knows_none(landing: Landing) -> None:
    path = landing.write("order_book", [second(), second(second_ms=NOW + 1000)], NOW, NOW)
    body = path.read_bytes().partition(b"\n")[2].replace(b'"spread":0.01,', b"")
    header = changed(path.read_bytes(), xxh64=xxhash.xxh64_hexdigest(body)).partition(b"\n")[0]
    path.write_bytes(header + b"\n" + body)
    assert b"spread" not in path.read_bytes()
    rows = again(landing).read(path).rows
    assert rows == [second(spread=None), second(second_ms=NOW + 1000, spread=None)]
    assert book_frame(rows)["spread"].to_list() == [None, None]


def changed(data: bytes, **header: object) -> bytes:
    head, _, body = data.partition(b"\n")
    return json.dumps(json.loads(head) | header).encode() + b"\n" + body


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda data: b"", "Expecting value", id="empty"),
        pytest.param(lambda data: data[:40], "Unterminated|Expecting|header", id="cut in the header"),
        pytest.param(lambda data: data[:-1], "digest", id="cut by one byte"),
        pytest.param(lambda data: data[: len(data) // 2], "digest", id="cut in half"),
        pytest.param(lambda data: data.replace(b"1.25", b"1.26"), "digest", id="one digit flipped"),
        pytest.param(lambda data: data + b"{}\n", "digest", id="a row too many"),
        pytest.param(lambda data: changed(data, format=2), "format 1, found 2", id="a newer format"),
        pytest.param(lambda data: changed(data, kind="trades"), "expected the columns", id="rows of another kind"),
        pytest.param(lambda data: changed(data, kind="candle"), "found kind 'candle'", id="no such kind"),
        pytest.param(lambda data: changed(data, rows=1), "expected 1 rows, found 2", id="another number of rows"),
        pytest.param(lambda data: b"\x00\xff" * 50 + b"\n", "not what the feed wrote", id="binary"),
        pytest.param(lambda data: b"null\n" + data, "header", id="a header that is no object"),
    ],
)
def test_a_damaged_segment_is_unreadable_and_says_why(landing: Landing, damage, reason: str) -> None:
    path = landing.write("candles", [candle(0), candle(1)], NOW, NOW)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SegmentUnreadable, match=reason) as caught:
        landing.read(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        pytest.param("candles", candle(close=float("nan")), id="NaN"),
        pytest.param("candles", candle(close=True), id="a truth value for a number"),
        pytest.param("candles", candle(open_time_ms=1.5), id="a fraction of a millisecond"),
        pytest.param("candles", candle(extra=1), id="a column too many"),
        pytest.param("order_book", second(amounts=[1.0] * 39), id="39 amounts"),
        pytest.param("order_book", second(spread=float("inf")), id="an endless spread"),
        pytest.param("order_book", second(spread="0.01"), id="text for a spread"),
        pytest.param("order_book", {key: value for key, value in second().items() if key != "spread"}, id="no spread"),
        pytest.param("order_book", second(amounts=[1.0] * 39 + [-1.0]), id="a negative amount"),
        pytest.param("order_book", second(amounts=[1.0] * 39 + [float("inf")]), id="an endless amount"),
    ],
)
def test_rows_that_no_reader_would_take_are_never_written(landing: Landing, kind, row: Row) -> None:
    with pytest.raises(ValueError, match="a row of"):
        landing.write(kind, [row], NOW, NOW)
    assert landing.segments() == []


def test_a_full_disk_leaves_nothing_half_and_the_same_rows_can_be_written_later(landing: Landing) -> None:
    landing.write("candles", [candle(0)], NOW, NOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # files of 100 bytes at most: the write breaks off
        with pytest.raises(HomeUnwritable, match="cannot be written"):
            landing.write("candles", [candle(1)], NOW + 1, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert len(list(landing.folder.glob("*-candles.jsonl"))) == 1
    assert not list(landing.folder.glob(".*"))
    assert landing.newest(STREAM) == candle(0)["open_time_ms"]
    landing.write("candles", [candle(1)], NOW + 1, NOW)
    assert [landing.read(path).rows for path in landing.segments()] == [[candle(0)], [candle(1)]]


def test_half_a_segment_of_a_killed_feed_is_cleared_away_and_never_read(landing: Landing) -> None:
    landing.write("candles", [candle(0)], NOW, NOW)
    torn = landing.folder / f".00{NOW}-000001-candles.jsonl.new"
    torn.write_text('{"format":1')
    assert len(again(landing).segments()) == 1
    cursor = landing.folder / ".cursor.json.new"
    packed = landing.archived / "2024-06-01" / ".13.jsonl.gz.new"
    packed.parent.mkdir(parents=True)
    of_another = landing.folder / ".resume.json.new"
    drafts = landing.folder / ".resume.json.77", landing.folder.parent / ".feed.json.77"
    for path in (cursor, packed, of_another, *drafts):
        path.write_bytes(b"{")
    next_feed = again(landing)
    assert next_feed.newest(STREAM) is not None  # what a feed asks first
    next_feed.clear_torn()
    assert [path.exists() for path in (torn, cursor, packed, of_another)] == [False, False, False, True]
    assert not any(path.exists() for path in drafts)


def test_what_is_left_of_a_refused_segment_that_is_gone_is_cleared_away(landing: Landing) -> None:
    waiting, *paths = (landing.write("candles", [candle(number)], NOW + number, NOW) for number in range(3))
    for path in paths:
        landing.refuse(path, "for the test")
        (landing.refused / f"{path.name}.asked").touch()
    gone, kept = (landing.refused / path.name for path in paths)
    gone.unlink()
    for path in (waiting, gone):
        (landing.refused / f".{path.name}.reason.new").touch()
    again(landing).clear_torn()
    left = {path.name for path in landing.refused.iterdir()}
    being_written = f".{waiting.name}.reason.new"
    assert left == {kept.name, f"{kept.name}.reason", f"{kept.name}.asked", f"{gone.name}.reason", being_written}


def test_segments_are_read_backwards_whatever_becomes_of_them_meanwhile(
    landing: Landing, caplog: pytest.LogCaptureFixture
) -> None:
    gone, moved, newest = (landing.write("candles", [candle(number)], NOW + number, NOW) for number in range(3))
    reading = again(landing).backwards("candles")
    assert next(reading)[0] == newest.name
    landing.archive(moved)
    gone.unlink()
    assert [name for name, _ in reading] == [moved.name]
    assert any(gone.name in message for message in caplog.messages)


def test_the_segments_set_aside_are_told_by_their_names(landing: Landing) -> None:
    paths = [landing.write("candles", [candle(number)], NOW + number, NOW) for number in range(3)]
    for path in reversed(paths):
        landing.refuse(path, "for the test")
    (landing.refused / paths[0].name).rename(landing.refused / f"repaired-{paths[0].name}")
    assert [path.name for path in landing.set_aside("candles")] == [path.name for path in paths[1:]]
    assert landing.set_aside("trades") == []


def test_a_writer_and_a_reader_at_once_lose_nothing(landing: Landing) -> None:
    reader, seen = again(landing), []
    for number in range(200):
        landing.write("candles", [candle(number)], NOW + number // 3, NOW)
        if number % 7 == 0:
            for path in reader.segments():
                seen += reader.read(path).rows
                reader.archive(path)
    for path in reader.segments():
        seen += reader.read(path).rows
    opens = [row["open_time_ms"] for row in seen]
    assert len(opens) == 200
    assert all(earlier < later for earlier, later in pairwise(opens))
