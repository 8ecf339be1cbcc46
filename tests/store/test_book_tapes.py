"""The book's tape: the rows of the table whatever came late or again, and whatever happened to its file."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.errors import HomeUnwritable
from hindsight.inference.book_tape import BOOK_COLUMN, BOOK_COLUMNS, BookTape
from hindsight.market.book_rows import book_frame
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.store import book_tapes
from hindsight.store.book_tables import write_order_book
from hindsight.store.book_tapes import BLOCK, KEPT
from hindsight.store.rows import OF_MARKET, market_key, select

START = datetime(2024, 8, 31, 23, 55, tzinfo=UTC)  # in the middle of a block
SECOND = timedelta(seconds=1)
DAY = 86_400
ETH = Stream(venue="binance", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="binance", symbol="BTC/USDT:USDT", timeframe="1s")
Row = dict[str, object]


def row(at: int, imbalance: float | None = 0.5, stream: Stream = ETH, **changed: object) -> Row:
    """The second that begins so many seconds after START."""
    shade = at % 7000
    return {
        "symbol": stream.symbol,
        "venue": stream.venue,
        "second_ms": to_ms(START) + at * 1000,
        "price": 2683.805 + shade / 1000,
        "spread": 0.01,
        "bucket_size": 1.0,
        "anchor": 2683.0,
        "amounts": [float(bucket + shade) if bucket else None for bucket in range(40)],
        "imbalance": imbalance,
        "snapshots": 10,
        "age_ms": 47,
        "venues": [stream.venue],
        **changed,
    }


def tables() -> duckdb.DuckDBPyConnection:
    """The schema in a database of its own, faster to make than a file."""
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.execute(files("hindsight.store").joinpath("schema.sql").read_text())
    return con


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Empty tables."""
    with tables() as con:
        yield con


def write(con: duckdb.DuckDBPyConnection, *rows: Row) -> None:
    write_order_book(con, book_frame(rows))


def span(start: int, end: int) -> Window:
    return Window(start=START + start * SECOND, end=START + end * SECOND)


def load(con: duckdb.DuckDBPyConnection, folder: Path, start: int, end: int, stream: Stream = ETH) -> np.ndarray:
    """The seconds [start, end) after START, as a stretch of the tape has them."""
    return stretch(book_tapes.load(con, folder, stream, span(start, end)), start, end)


def stretch(tape: BookTape, start: int, end: int) -> np.ndarray:
    return tape.gather(np.array([to_ms(START) + end * 1000]), end - start)[0]


def by_plain_lines(con: duckdb.DuckDBPyConnection, start: int, end: int, stream: Stream = ETH) -> np.ndarray:
    """The same from nothing but the rows of the table."""
    rows = np.full((end - start, len(BOOK_COLUMNS)), np.nan, np.float32)
    sql = f"select * from order_book where {OF_MARKET} and second >= $start and second < $end"
    asked = span(start, end)
    stored = select(con, sql, **market_key(stream), start=asked.start, end=asked.end)
    for found in stored.iter_rows(named=True):
        values = [*found["amounts"], *(found[name] for name in BOOK_COLUMNS[40:])]
        at = (found["second"] - START) // SECOND - start
        rows[at] = [np.nan if value is None else value for value in values]
    return rows


def tape_file(folder: Path) -> Path:
    (file,) = folder.rglob("rows.f32")
    return file


def contents(folder: Path) -> Path:
    return tape_file(folder).with_name("contents.json")


def test_rows_are_the_rows_of_the_table_with_nan_for_what_it_does_not_know(con, tmp_path: Path) -> None:
    write(con, *(row(at, None if at % 7 == 3 else at / 400) for at in range(130) if at not in (5, 6, 90)))
    found = load(con, tmp_path, -20, 150)
    np.testing.assert_array_equal(found, by_plain_lines(con, -20, 150))
    assert np.isnan(found[[0, 19, 25, 26, 110, 150]]).all()
    assert found[20, BOOK_COLUMN["price"]] == np.float32(2683.805)
    assert np.isnan(found[20, BOOK_COLUMN["amount_00"]])
    assert found[20, BOOK_COLUMN["amount_39"]] == 39
    assert np.isfinite(found[129, BOOK_COLUMN["imbalance_60"]])


def test_only_seconds_of_the_window_are_on_the_tape(con, tmp_path: Path) -> None:
    """Trap 3: what was recorded after the window's end cannot be reached in it."""
    write(con, *(row(at) for at in range(700)))
    first = to_ms(START) // 1000
    for start, end in ((10, 20), (-50, 20), (650, 660), (0, 700), (299, 301)):
        tape = book_tapes.load(con, tmp_path, ETH, span(start, end))
        assert tape.first_row >= first + max(start, -BLOCK)
        assert tape.end_row == first + end
        np.testing.assert_array_equal(stretch(tape, start, end), by_plain_lines(con, start, end))
        assert np.isnan(stretch(tape, end, end + 40)).all()
    for start, end in ((-900, -700), (5000, 5100), (20, 20)):
        assert len(book_tapes.load(con, tmp_path, ETH, span(start, end)).rows) == 0


def test_a_market_without_a_book_has_no_rows_and_no_file(con, tmp_path: Path) -> None:
    write(con, row(0, stream=BTC))
    tape = book_tapes.load(con, tmp_path / "tape", ETH, span(0, 100))
    assert len(tape.rows) == 0
    assert np.isnan(stretch(tape, 0, 100)).all()
    assert not (tmp_path / "tape").exists()


def test_markets_are_kept_apart_and_streams_of_one_market_are_not(con, tmp_path: Path) -> None:
    kraken = Stream(venue="kraken", symbol="ETH/USDT", timeframe="1m")
    write(con, *(row(at, at / 100, stream) for at in range(9) for stream in (ETH, BTC)), row(2, -1.0, kraken))
    for stream in (ETH, BTC, kraken):
        np.testing.assert_array_equal(load(con, tmp_path, 0, 9, stream), by_plain_lines(con, 0, 9, stream))
    names = {file.parent.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("rows.f32")}
    assert names == {"binance/ETH-USDT/book", "binance/BTC-USDT_USDT/book", "kraken/ETH-USDT/book"}
    hourly = Stream(venue="binance", symbol="ETH/USDT", timeframe="1h")
    np.testing.assert_array_equal(load(con, tmp_path, 0, 9, hourly), by_plain_lines(con, 0, 9))
    assert len(list(tmp_path.rglob("rows.f32"))) == 3


def test_the_tape_is_a_read_only_map_of_the_file(con, tmp_path: Path) -> None:
    write(con, row(0))
    tape = book_tapes.load(con, tmp_path, ETH, span(0, 1))
    with pytest.raises(ValueError, match="read-only"):
        tape.rows[0] = 0


def test_a_tape_extended_close_by_close_is_the_tape_made_at_once(con, tmp_path: Path) -> None:
    """Over the ends of blocks, of a day and of a month, and over a pause."""
    rows = [row(at, at % 200 / 200) for at in range(1500) if not 400 <= at < 1290]
    for end in range(0, 1500, 60):
        write(con, *(each for each in rows if end - 60 <= (int(str(each["second_ms"])) - to_ms(START)) / 1000 < end))
        np.testing.assert_array_equal(load(con, tmp_path / "a", end - 300, end), by_plain_lines(con, end - 300, end))
    write(con, *rows)
    load(con, tmp_path / "a", 0, 1500)
    load(con, tmp_path / "b", 0, 1500)
    assert tape_file(tmp_path / "a").read_bytes() == tape_file(tmp_path / "b").read_bytes()
    assert contents(tmp_path / "a").read_text() == contents(tmp_path / "b").read_text()


def test_twice_is_once(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(1300)))
    load(con, tmp_path, 0, 1300)
    before = [(file, file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(tmp_path.rglob("*.*"))]
    load(con, tmp_path, 0, 1300)
    write(con, *(row(at) for at in range(1300)))
    load(con, tmp_path, 0, 1300)
    assert [(file, file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(tmp_path.rglob("*.*"))] == before


def test_only_the_blocks_that_changed_are_laid_again(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(3000)))
    load(con, tmp_path, 0, 3000)
    planted = np.memmap(tape_file(tmp_path), np.float32, "r+").reshape(-1, len(BOOK_COLUMNS))
    planted[:, 1] = -7
    write(con, row(3000), row(700, -0.5))
    found = load(con, tmp_path, 0, 3001)
    was_laid = found[:, 1] != -7
    blocks = (np.arange(3001) + 300) // BLOCK  # START is 300 s after the first one begins
    assert sorted(set(blocks[was_laid])) == [1, 5]


@st.composite
def histories(draw) -> list[tuple[list[Row], int, int]]:
    """Deliveries in any order, late or again or changed, and after each one the window that is loaded."""
    seconds = st.integers(0, 60) | st.integers(560, 640) | st.integers(1500, 1560) | st.integers(3 * DAY, 3 * DAY + 40)
    values = st.none() | st.integers(-1000, 1000).map(lambda value: value / 1000)
    steps = []
    for _ in range(draw(st.integers(1, 5))):
        rows = [row(at, value) for at, value in draw(st.dictionaries(seconds, values, max_size=12)).items()]
        start = draw(st.sampled_from([-30, 0, 250, 290, 580, 1490, 3 * DAY - 20]))
        steps.append((rows, start, start + draw(st.integers(1, 900))))
    return steps


@given(histories())
def test_every_window_is_as_the_table_has_it_then_whatever_came_in_what_order(steps) -> None:
    with tables() as con, TemporaryDirectory() as folder:
        for rows, start, end in steps:
            write(con, *rows)
            np.testing.assert_array_equal(load(con, Path(folder), start, end), by_plain_lines(con, start, end))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda con: write(con, row(1204, -0.5)), id="a late row"),
        pytest.param(lambda con: write(con, row(1100, -0.5)), id="another imbalance"),
        pytest.param(lambda con: write(con, row(1100, price=1.0)), id="another price"),
        pytest.param(lambda con: write(con, row(1100, None)), id="an imbalance that is unknown now"),
        pytest.param(lambda con: write(con, row(1100, age_ms=48, amounts=[3.0] * 40)), id="a later book"),
        pytest.param(
            lambda con: con.execute("delete from order_book where price between 2684 and 2685"), id="removed rows"
        ),
    ],
)
def test_what_changed_behind_the_newest_row_is_laid_again(
    con, tmp_path: Path, change: Callable[[duckdb.DuckDBPyConnection], object]
) -> None:
    """The row at 1499 ends a block: what comes late there changes means in the next one too."""
    write(con, *(row(at) for at in range(4000) if at not in (1204, 1499)))
    before = load(con, tmp_path, 0, 4000).copy()
    change(con)
    after = load(con, tmp_path, 0, 4000)
    np.testing.assert_array_equal(after, by_plain_lines(con, 0, 4000))
    assert not np.array_equal(before, after, equal_nan=True)
    write(con, row(1499, -1.0))
    np.testing.assert_array_equal(load(con, tmp_path, 1500, 4000), by_plain_lines(con, 1500, 4000))
    np.testing.assert_array_equal(load(con, tmp_path, 0, 4000), by_plain_lines(con, 0, 4000))


def test_a_change_before_the_window_is_laid_once_a_block_begins(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(4000)))
    load(con, tmp_path, 0, 4000)
    write(con, row(20, -0.5))
    load(con, tmp_path, 3990, 4000)
    at = to_ms(START) // 1000 // BLOCK * BLOCK
    first = np.memmap(tape_file(tmp_path), np.float32, "r").reshape(-1, len(BOOK_COLUMNS))
    place = to_ms(START) // 1000 + 20 - at, BOOK_COLUMN["imbalance"]
    assert first[place] == 0.5
    write(con, row(4600))
    load(con, tmp_path, 3990, 4601)
    assert first[place] == -0.5


def test_rows_from_before_the_first_one_make_the_tape_anew(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(0, 1200, 3)))
    load(con, tmp_path, 0, 1200)
    write(con, row(-2 * DAY), row(-100))
    np.testing.assert_array_equal(load(con, tmp_path, -200, 1200), by_plain_lines(con, -200, 1200))
    found = load(con, tmp_path, -2 * DAY - 5, -2 * DAY + 5)
    np.testing.assert_array_equal(found, by_plain_lines(con, -2 * DAY - 5, -2 * DAY + 5))


def test_a_row_in_an_old_block_is_not_noticed_until_the_folder_is_removed(con, tmp_path: Path) -> None:
    """The limit that the module states."""
    write(con, *(row(at * BLOCK) for at in range(KEPT + 3)))
    load(con, tmp_path, 0, 60)
    write(con, row(2 * BLOCK + 1), row(3 * BLOCK + 1), row((KEPT + 3) * BLOCK))
    found = load(con, tmp_path, 0, 4 * BLOCK)
    assert np.isnan(found[2 * BLOCK + 1]).all()
    assert np.isfinite(found[3 * BLOCK + 1, -1])
    tape_file(tmp_path).unlink()
    np.testing.assert_array_equal(load(con, tmp_path, 0, 4 * BLOCK), by_plain_lines(con, 0, 4 * BLOCK))


def test_years_without_a_book_take_no_room(con, tmp_path: Path) -> None:
    later = 3 * 365 * DAY
    write(con, *(row(at) for at in range(5)), *(row(later + at) for at in range(5)))
    found = load(con, tmp_path, later - 1000, later + 5)
    np.testing.assert_array_equal(found, by_plain_lines(con, later - 1000, later + 5))
    stat = tape_file(tmp_path).stat()
    assert stat.st_size > 16_000_000_000
    assert stat.st_blocks * 512 < 1_000_000
    write(con, row(5), row(later + 5))  # the first block is one of the newest with rows, however old it is
    for start in (0, later):
        np.testing.assert_array_equal(load(con, tmp_path, start, start + 6), by_plain_lines(con, start, start + 6))


# The file ------------------------------------------------------------------------------------------------------------


def remove_rows(folder: Path) -> None:
    tape_file(folder).unlink()


def remove_contents(folder: Path) -> None:
    contents(folder).unlink()


def truncate_rows(folder: Path) -> None:
    with tape_file(folder).open("r+b") as handle:
        handle.truncate(tape_file(folder).stat().st_size - 4)


def say(folder: Path, text: str) -> None:
    contents(folder).write_text(text)
    tape_file(folder).write_bytes(b"\xff" * tape_file(folder).stat().st_size)


def say_otherwise(folder: Path, **changed: object) -> None:
    say(folder, json.dumps({**json.loads(contents(folder).read_text()), **changed}))


def of_other_tables(folder: Path) -> None:
    blocks = json.loads(contents(folder).read_text())["blocks"]
    say_otherwise(folder, blocks={block: f"{number} 0" for number, block in enumerate(blocks)})


def further_than_recorded(folder: Path) -> None:
    blocks = json.loads(contents(folder).read_text())["blocks"]
    tape_file(folder).write_bytes(b"\xff" * 2 * tape_file(folder).stat().st_size)
    say_otherwise(folder, blocks={int(block) + 20: text for block, text in blocks.items()})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: None, id="nothing"),
        pytest.param(remove_rows, id="rows missing"),
        pytest.param(remove_contents, id="contents missing"),
        pytest.param(truncate_rows, id="rows truncated"),
        pytest.param(lambda folder: say_otherwise(folder, layout="other"), id="other layout"),
        pytest.param(lambda folder: say_otherwise(folder, first_block=2_800_000), id="other first block"),
        pytest.param(lambda folder: say_otherwise(folder, first_block="a"), id="wrong type"),
        pytest.param(lambda folder: say_otherwise(folder, blocks={}), id="no blocks"),
        pytest.param(lambda folder: say_otherwise(folder, blocks={"a": "b"}), id="blocks without a number"),
        pytest.param(lambda folder: say_otherwise(folder, blocks=[1]), id="a list of blocks"),
        pytest.param(of_other_tables, id="of other tables"),
        pytest.param(further_than_recorded, id="further than what is recorded"),
        pytest.param(lambda folder: say(folder, "{"), id="garbage"),
        pytest.param(lambda folder: say(folder, ""), id="empty"),
        pytest.param(lambda folder: say(folder, "[]"), id="a list"),
        pytest.param(lambda folder: say(folder, '{"layout": "x"}'), id="fields missing"),
    ],
)
def test_a_tape_that_is_not_what_its_json_says_is_made_again_from_the_table(
    con, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    write(con, *(row(at) for at in range(2000)))
    load(con, tmp_path, 0, 2000)
    before = tape_file(tmp_path).read_bytes()
    damage(tmp_path)
    for start in (1900, 0):
        np.testing.assert_array_equal(load(con, tmp_path, start, 2000), by_plain_lines(con, start, 2000))
    assert tape_file(tmp_path).read_bytes() == before


def test_the_tape_of_another_warehouse_is_made_again(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(0, 9000, 7)))
    load(con, tmp_path, 0, 9000)
    with tables() as other:
        write(other, *(row(at, 0.25) for at in range(0, 5000, 5)))
        np.testing.assert_array_equal(load(other, tmp_path, 0, 9000), by_plain_lines(other, 0, 9000))
    np.testing.assert_array_equal(load(con, tmp_path, 0, 9000), by_plain_lines(con, 0, 9000))


def test_an_older_copy_of_the_warehouse_loses_what_it_does_not_hold(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(5000)))
    load(con, tmp_path, 0, 5000)
    con.execute("delete from order_book where second >= $since", {"since": START + 2100 * SECOND})
    for start in (4000, 0):
        np.testing.assert_array_equal(load(con, tmp_path, start, 5000), by_plain_lines(con, start, 5000))
    write(con, *(row(at, -0.5) for at in range(3000, 4800, 11)))
    np.testing.assert_array_equal(load(con, tmp_path, 0, 5000), by_plain_lines(con, 0, 5000))


def test_a_map_of_a_tape_that_is_made_again_stays_whole(con, tmp_path: Path) -> None:
    write(con, *(row(at) for at in range(2000)))
    tape = book_tapes.load(con, tmp_path, ETH, span(0, 2000))
    before = tape.rows.copy()
    with tables() as other:
        write(other, row(0, 0.25))
        load(other, tmp_path, 0, 10)
    np.testing.assert_array_equal(tape.rows, before)


def test_rows_written_before_a_kill_but_not_yet_named_are_written_again(con, tmp_path: Path) -> None:
    """A kill between the rows and the JSON leaves rows of a later state under an older name."""
    write(con, *(row(at) for at in range(1000)))
    load(con, tmp_path, 0, 1000)
    older = contents(tmp_path).read_text()
    write(con, *(row(at, -0.25) for at in range(900, 2000)))
    load(con, tmp_path, 0, 2000)
    contents(tmp_path).write_text(older)
    np.testing.assert_array_equal(load(con, tmp_path, 1990, 2000), by_plain_lines(con, 1990, 2000))
    np.testing.assert_array_equal(load(con, tmp_path, 0, 2000), by_plain_lines(con, 0, 2000))


def test_a_file_left_half_made_is_in_nobodys_way(con, tmp_path: Path) -> None:
    write(con, row(0))
    folder = tmp_path / "binance" / "ETH-USDT" / "book"
    folder.mkdir(parents=True)
    (folder / ".unfinished").write_bytes(b"\xff" * 1_000_000)
    np.testing.assert_array_equal(load(con, tmp_path, 0, 9), by_plain_lines(con, 0, 9))
    assert sorted(file.name for file in folder.iterdir()) == ["contents.json", "rows.f32"]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(con, tmp_path: Path) -> None:
    write(con, row(0))
    (tmp_path / "binance").write_text("a file in the way")
    with pytest.raises(HomeUnwritable, match=r"order book's tape of binance ETH/USDT cannot be written to .*rows\.f32"):
        load(con, tmp_path, 0, 9)
