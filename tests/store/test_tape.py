"""The tape: the same rows whatever happened to its file, and frames as they stood when a reference was made."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.inference.blocks import digest
from hindsight.inference.frames import CANDLE_COLUMNS, COLUMN, COLUMNS, PIVOT_TYPES, Tape
from hindsight.market import indicators
from hindsight.market.streams import Window, from_ms, to_ms
from hindsight.settings import Settings
from hindsight.store import tape as tapes
from hindsight.store.market_tables import pivot_mark, read_indicators
from hindsight.store.rows import select
from hindsight.store.tape_changes import rows_at_their_close
from hindsight.store.warehouse import Warehouse

MINUTE = timedelta(minutes=1)
LENGTH = 600


def load_tape(settings: Settings, start: datetime | None = None, end: datetime | None = None) -> Tape:
    """The tape of [start, end), by default of all that is recorded."""
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        mark = pivot_mark(con, settings.streams[0])
        assert mark is not None
        window = Window(start=start or mark.since, end=end or mark.as_of)
        return tapes.load(con, settings.tape_path, settings.streams[0], window, mark.since)


def tape_file(settings: Settings) -> Path:
    (file,) = settings.tape_path.rglob("rows.f32")
    return file


def pivots_of(settings: Settings) -> pl.DataFrame:
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        return select(con, "select *, rowid as emitted from pivots order by confirmed_at, emitted")


def by_ten_plain_lines(deliveries: pl.DataFrame, pivots: pl.DataFrame, window: Window, moment: datetime) -> np.ndarray:
    """Rows of `window` from nothing but what had been delivered, and what had been confirmed, by `moment`."""
    known = deliveries.filter(pl.col("recorded_at") <= moment).unique("open_time", keep="last").sort("open_time")
    values = indicators.compute(known, window, MINUTE).join(known, on="open_time")
    rows = np.full(((window.end - window.start) // MINUTE, len(COLUMNS)), np.nan, np.float32)
    waiting = pivots.select("confirmed_at", "pivot_type", "pivot_time", "price").rows()[::-1]
    newest = {}
    for candle in values.iter_rows(named=True):
        row = rows[(candle["open_time"] - window.start) // MINUTE]
        for name in (*CANDLE_COLUMNS, *indicators.NAMES):
            row[COLUMN[name]] = np.nan if candle[name] is None else candle[name]
        while waiting and waiting[-1][0] <= candle["open_time"] + MINUTE:
            _, pivot_type, *newest[pivot_type] = waiting.pop()
        for pivot_type, (pivot_time, price) in newest.items():
            row[COLUMN[f"{pivot_type}_price"]] = price
            row[COLUMN[f"{pivot_type}_age"]] = (candle["open_time"] - pivot_time) // MINUTE
    return rows


def test_rows_are_the_rows_of_the_tables_of_candles_indicators_and_pivots(venue_home: Settings, copy_home):
    settings = copy_home(venue_home)
    tape, pivots = load_tape(settings), pivots_of(settings)
    span = Window(start=from_ms(tape.first_row * 60_000), end=from_ms(tape.end_row * 60_000))
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        table = read_indicators(con, settings.streams[0], span)
        candles = select(con, "select * from candles order by open_time")
    at = (table["open_time"].dt.epoch("ms").to_numpy() // 60_000) - tape.first_row
    for name in indicators.NAMES:
        np.testing.assert_array_equal(tape.rows[at, COLUMN[name]], table[name].to_numpy().astype(np.float32))
    for name in CANDLE_COLUMNS:
        np.testing.assert_array_equal(tape.rows[at, COLUMN[name]], candles[name].to_numpy().astype(np.float32))
    missing = np.setdiff1d(np.arange(len(tape.rows)), at)
    assert len(missing) == 5  # the venue delivered nothing
    assert np.isnan(tape.rows[missing]).all()
    for row in np.random.default_rng(0).choice(at, 40, replace=False):  # trap 1: a pivot enters at its confirmation
        close = span.start + (int(row) + 1) * MINUTE
        for pivot_type in PIVOT_TYPES:
            seen = pivots.filter(pl.col("pivot_type") == pivot_type, pl.col("confirmed_at") <= close)
            price, age = (tape.rows[row, COLUMN[f"{pivot_type}_{what}"]] for what in ("price", "age"))
            if seen.is_empty():
                assert np.isnan([price, age]).all()
            else:
                assert price == np.float32(seen["price"][-1])
                assert age == (close - MINUTE - seen["pivot_time"][-1]) // MINUTE


def test_a_frame_holds_what_had_been_delivered_when_it_was_made_whatever_was_corrected_later(
    storm_home: Settings, storm: pl.DataFrame
):
    """Trap 32. The tape has gone to the end of the storm; the frames are of the middle of it."""
    tape, pivots = load_tape(storm_home), pivots_of(storm_home)
    for made_at in [*range(600, 760, 9), 800, 801, 802, 1000, 1021, 1022, 1280, 1300]:
        moment = from_ms((tape.first_row + made_at) * 60_000)
        frame = tape.gather(np.array([tape.first_row + made_at - 1]), LENGTH)[0]
        expected = by_ten_plain_lines(storm, pivots, Window(start=moment - LENGTH * MINUTE, end=moment), moment)
        np.testing.assert_array_equal(frame, expected, err_msg=str(made_at))
        assert digest([frame]) == digest([expected])


def test_a_window_of_the_past_is_read_as_it_stood_although_the_file_has_gone_on(
    storm_home: Settings, storm: pl.DataFrame
):
    """Trap 32: what `show` does. A candle corrected after the window's end is not yet corrected in it."""
    first_row, pivots = load_tape(storm_home).first_row, pivots_of(storm_home)  # brings the file to the end
    for made_at in [*range(640, 760, 13), 800, 801, 1000, 1021, 1022, 1280]:
        moment = from_ms((first_row + made_at) * 60_000)
        window = Window(start=moment - LENGTH * MINUTE, end=moment)
        tape = load_tape(storm_home, window.start, window.end)
        expected = by_ten_plain_lines(storm, pivots, window, moment)
        np.testing.assert_array_equal(tape.rows, expected, err_msg=str(made_at))
        np.testing.assert_array_equal(tape.gather(np.array([first_row + made_at - 1]), LENGTH)[0], expected)


def test_first_known_rows_are_each_as_they_stood_at_their_own_close(storm_home: Settings, storm: pl.DataFrame):
    tape, pivots = load_tape(storm_home), pivots_of(storm_home)
    found = tape.first_known(tape.first_row, tape.end_row)
    for row in [*range(30, 130), *range(640, 660), *range(795, 805), *range(995, 1025), 1299]:
        opens = from_ms((tape.first_row + row) * 60_000)
        expected = by_ten_plain_lines(storm, pivots, Window(start=opens, end=opens + MINUTE), opens + MINUTE)
        np.testing.assert_array_equal(found[row], expected[0], err_msg=str(row))


def test_a_candle_that_came_late_is_missing_in_the_frames_made_before_it_came(storm_home: Settings):
    """Candle 1000 of the storm came 21 minutes late."""
    tape = load_tape(storm_home)
    frames = tape.gather(tape.first_row + np.array([1000, 1020, 1021, 1022]), 30)
    at = [-1, -21, -22, -23]
    assert [np.isnan(frame[place, COLUMN["open"]]) for frame, place in zip(frames, at, strict=True)] == [
        True,
        True,
        False,
        False,
    ]
    assert np.isnan(tape.first_known(tape.first_row + 1000, tape.first_row + 1001)).all()


def test_a_tape_extended_candle_by_candle_is_the_tape_built_at_once(storm_home: Settings, copy_home):
    """Corrections rewrite rows on the way; late candles fill them."""
    step_by_step, at_once = copy_home(storm_home), copy_home(storm_home)
    whole = load_tape(at_once)
    start = from_ms(whole.first_row * 60_000)
    cuts = [*range(600, 622), *range(644, 660), 900, *range(1018, 1024), 1299, 1300]
    for cut in cuts:
        part = load_tape(step_by_step, start, start + cut * MINUTE)
        rows = np.arange(max(cut - 5, LENGTH - 1), cut) + whole.first_row
        np.testing.assert_array_equal(part.gather(rows, LENGTH), whole.gather(rows, LENGTH))  # prefix: frames
        known = part.first_known(whole.first_row, whole.first_row + cut)  # prefix: rows as first known
        np.testing.assert_array_equal(known, whole.first_known(whole.first_row, whole.first_row + cut))
    np.testing.assert_array_equal(part.rows, whole.rows)
    assert tape_file(step_by_step).read_bytes() == tape_file(at_once).read_bytes()


def test_a_correction_rewrites_the_rows_from_its_candle_on_and_none_before(venue_home: Settings, copy_home):
    settings = copy_home(venue_home)
    corrected, known_at = datetime.fromisoformat("2024-03-01T03:59Z"), datetime.fromisoformat("2024-03-01T04:04Z")
    before = load_tape(settings, end=known_at - MINUTE)
    after = load_tape(settings, end=known_at)
    at = to_ms(corrected) // 60_000 - before.first_row
    np.testing.assert_array_equal(after.rows[:at], before.rows[:at])
    assert after.rows[at, COLUMN["volume"]] > before.rows[at, COLUMN["volume"]]
    assert (
        after.rows[at : len(before.rows), COLUMN["volume_sma_20"]] != before.rows[at:, COLUMN["volume_sma_20"]]
    ).all()


def test_the_files_only_grow_and_a_tape_in_use_stays_as_it_was(storm_home: Settings, copy_home):
    """Corrections reach back hours, while a lesson may hold the rows that it has mapped."""
    settings = copy_home(storm_home)
    start = from_ms(load_tape(storm_home).first_row * 60_000)
    held, written = [], b""
    for cut in (600, 640, 650, 700, 801, 1000, 1021, 1022, 1300):
        tape = load_tape(settings, start, start + cut * MINUTE)
        held.append((tape, tape.rows.copy()))
        assert tape_file(settings).read_bytes()[: len(written)] == written
        written = tape_file(settings).read_bytes()
    for tape, rows in held:
        np.testing.assert_array_equal(tape.rows, rows)
    at_close = np.frombuffer(written, np.float32).reshape(-1, len(COLUMNS))
    np.testing.assert_array_equal(at_close, tape.first_known(tape.first_row, tape.end_row))


def test_rows_taken_from_the_tables_an_hour_at_a_time_are_those_computed_at_once(storm_home: Settings):
    """Two roads: the stored indicators where they were known at the close, and the candles everywhere else."""
    stream, tape = storm_home.streams[0], load_tape(storm_home)
    start, end = (from_ms(row * 60_000) for row in (tape.first_row, tape.end_row))
    hours = [start + hour * 60 * MINUTE for hour in range(-((start - end) // (60 * MINUTE)))]
    with Warehouse(path=storm_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
        whole = rows_at_their_close(con, stream, Window(start=start, end=end))
        parts = [
            rows_at_their_close(con, stream, Window(start=hour, end=min(hour + 60 * MINUTE, end))) for hour in hours
        ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(whole, tape.first_known(tape.first_row, tape.end_row))


def correct(settings: Settings, opens: datetime, known_at: datetime) -> None:
    """The venue corrects the candle of the storm that opens then."""
    given = {"opens": opens, "known_at": known_at}
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        con.execute(
            "insert into candle_revisions select * exclude (recorded_at), recorded_at, $known_at from candles"
            " where open_time = $opens",
            given,
        )
        con.execute(
            "update candles set close = high + 1, high = high + 1, revision = revision + 1, recorded_at = $known_at"
            " where open_time = $opens",
            given,
        )


def test_a_correction_from_before_the_end_of_the_file_that_is_stored_after_it_makes_the_tape_anew(
    storm_home: Settings, copy_home
):
    """A longer candle's may be: known before a close, and delivered when the tape has passed it."""
    settings = copy_home(storm_home)
    before = load_tape(settings)
    opens, known_at = (from_ms((before.end_row - back) * 60_000) for back in (300, 200))
    correct(settings, opens, known_at)
    after = load_tape(settings)
    assert len(after.superseded) == len(before.superseded) + 1
    changed = (after.rows != before.rows) & ~(np.isnan(after.rows) & np.isnan(before.rows))
    assert changed.any(axis=1).argmax() == len(before.rows) - 300
    tape_file(settings).unlink()
    np.testing.assert_array_equal(load_tape(settings).rows, after.rows)


def test_a_correction_from_long_ago_is_laid_as_far_as_indicators_reach_and_no_further(storm_home: Settings, copy_home):
    """Those of 1 February begin 512 candles before that day: a candle of 11:10 on the last of January is in none."""
    settings = copy_home(storm_home)
    before = load_tape(settings)
    opens, midnight = datetime.fromisoformat("2024-01-31T11:10Z"), datetime.fromisoformat("2024-02-01T00:00Z")
    correct(settings, opens, from_ms((before.end_row - 1) * 60_000))
    tape_file(settings).unlink()
    after = load_tape(settings)
    (block,) = [each for each in after.superseded if each.until_ms == (before.end_row - 1) * 60_000]
    reached = slice(block.first_row - after.first_row, block.first_row + len(block.rows) - after.first_row)
    assert (block.first_row, block.first_row + len(block.rows)) == (to_ms(opens) // 60_000, to_ms(midnight) // 60_000)
    changed = (after.rows != before.rows) & ~(np.isnan(after.rows) & np.isnan(before.rows))
    assert np.flatnonzero(changed.any(axis=1)).tolist()[0] == reached.start
    assert not changed[reached.stop :].any()
    np.testing.assert_array_equal(block.rows, before.rows[reached])


@pytest.mark.parametrize(
    "candle", [pytest.param(1290, id="late in the file"), pytest.param(150, id="long before its end")]
)
def test_another_warehouse_that_lacks_a_candle_has_a_tape_of_its_own(storm_home: Settings, copy_home, candle: int):
    """As where the file was moved away and the market recorded again. No pivot tells them apart."""
    settings = copy_home(storm_home)
    before = load_tape(settings)
    opens = from_ms((before.first_row + candle) * 60_000)
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        con.execute("delete from candles where open_time = $opens", {"opens": opens})
    after = load_tape(settings)
    assert not np.isnan(before.rows[candle]).all()
    assert np.isnan(after.rows[candle]).all()


def damage_nothing(settings: Settings) -> None:
    """The control."""


def remove_rows(settings: Settings) -> None:
    tape_file(settings).unlink()


def remove_contents(settings: Settings) -> None:
    tape_file(settings).with_name("contents.json").unlink()


def truncate_rows(settings: Settings) -> None:
    with tape_file(settings).open("r+b") as handle:
        handle.truncate(tape_file(settings).stat().st_size - 4)


def say(settings: Settings, text: str) -> None:
    tape_file(settings).with_name("contents.json").write_text(text)
    tape_file(settings).write_bytes(b"\xff" * tape_file(settings).stat().st_size)


def other_layout(settings: Settings) -> None:
    contents = json.loads(tape_file(settings).with_name("contents.json").read_text())
    say(settings, json.dumps({**contents, "layout": "other"}))


def other_start(settings: Settings) -> None:
    contents = json.loads(tape_file(settings).with_name("contents.json").read_text())
    say(settings, json.dumps({**contents, "first_row": contents["first_row"] + 1}))


def changes_file(settings: Settings) -> Path:
    return tape_file(settings).with_name("changes.f32")


def truncate_changes(settings: Settings) -> None:
    with changes_file(settings).open("r+b") as handle:
        handle.truncate(changes_file(settings).stat().st_size - 4)


def say_of_changes(settings: Settings, change: Callable[[list], object]) -> None:
    contents = json.loads(tape_file(settings).with_name("contents.json").read_text())
    say(settings, json.dumps({**contents, "changes": change(contents["changes"])}))


def further_than_recorded(settings: Settings) -> None:
    contents = json.loads(tape_file(settings).with_name("contents.json").read_text())
    with tape_file(settings).open("ab") as handle:
        handle.write(b"\xff" * len(COLUMNS) * 4 * 10)
    say(settings, json.dumps({**contents, "end_row": contents["end_row"] + 10}))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage_nothing, id="nothing"),
        pytest.param(remove_rows, id="rows missing"),
        pytest.param(remove_contents, id="contents missing"),
        pytest.param(truncate_rows, id="rows truncated"),
        pytest.param(other_layout, id="other layout"),
        pytest.param(other_start, id="other first row"),
        pytest.param(further_than_recorded, id="further than what is recorded"),
        pytest.param(lambda settings: say(settings, "{"), id="garbage"),
        pytest.param(lambda settings: say(settings, ""), id="empty"),
        pytest.param(lambda settings: say(settings, "[]"), id="a list"),
        pytest.param(
            lambda settings: say(settings, '{"layout": 1, "first_row": "a", "end_row": null}'), id="wrong types"
        ),
        pytest.param(lambda settings: say(settings, '{"layout": "x"}'), id="fields missing"),
        pytest.param(lambda settings: changes_file(settings).unlink(), id="changes missing"),
        pytest.param(truncate_changes, id="changes truncated"),
        pytest.param(lambda settings: say_of_changes(settings, lambda found: found[1:]), id="a change left out"),
        pytest.param(
            lambda settings: say_of_changes(settings, lambda found: [*found, [found[-1][0] + 1, *found[-1][1:]]]),
            id="a change too many",
        ),
        pytest.param(lambda settings: say_of_changes(settings, lambda _: 1), id="no list of changes"),
    ],
)
def test_a_tape_that_is_not_what_its_json_says_is_made_again_from_the_tables(
    storm_home: Settings, copy_home, damage: Callable[[Settings], None]
):
    settings = copy_home(storm_home)
    before = load_tape(settings).rows.copy()
    bytes_before = tape_file(settings).read_bytes()
    damage(settings)
    after = load_tape(settings)
    np.testing.assert_array_equal(after.rows, before)
    assert tape_file(settings).read_bytes()[: len(bytes_before)] == bytes_before


def test_rows_written_before_a_kill_but_not_yet_named_are_written_again(storm_home: Settings, copy_home):
    """A kill between the rows and the JSON leaves rows of a later state under an older name."""
    settings = copy_home(storm_home)
    start = from_ms(load_tape(storm_home).first_row * 60_000)
    early = load_tape(settings, start, start + 1000 * MINUTE)
    contents = tape_file(settings).with_name("contents.json").read_text()
    whole = load_tape(settings)
    tape_file(settings).with_name("contents.json").write_text(contents)
    again = load_tape(settings, start, start + 1000 * MINUTE)
    np.testing.assert_array_equal(again.rows, early.rows)
    np.testing.assert_array_equal(load_tape(settings).rows, whole.rows)
