"""Completeness: how many parts of each block a frame has, and the closes at which it is refused, by name and count."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.inference.blocks import Blocks
from hindsight.inference.book_tape import BOOK_COLUMN
from hindsight.inference.completeness import BOOK, HIDDEN, OPTIONAL, OUTPUTS, Completeness, completeness
from hindsight.inference.frames import COLUMN, Superseded, Tape
from hindsight.inference.shape import Read
from hindsight.market.streams import to_ms

OWN, HOUR, BTC = "candles ETH/USDT 1m", "candles ETH/USDT 1h", "candles BTC/USDT 1s"
OF_CNN, KNEW = "outputs of cnn", "hidden state of cnn"


def row_at(text: str, step_ms: int = 60_000) -> int:
    """The row that closes at that time."""
    return to_ms(datetime.fromisoformat(f"2024-03-01T{text}").replace(tzinfo=UTC)) // step_ms - 1


def asked(blocks: Blocks, *times: str, optional: tuple[str, ...] = ()) -> Completeness:
    return completeness(blocks, np.array([row_at(time) for time in times]), optional)


def had(found: Completeness) -> list[dict[str, int]]:
    """What is there at each close, of what is not whole."""
    return [
        {name: int(n) for name, n, need in zip(found.blocks, have, found.need, strict=True) if n < need}
        for have in found.have
    ]


def without(tape: Tape, rows: slice | list[int]) -> Tape:
    """The tape with some of its rows missing; they are counted as its own rows are."""
    left = tape.rows.copy()
    at = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else np.array(rows, np.int64)
    left[at - tape.first_row] = np.nan
    return replace(tape, rows=left)


def with_tape(blocks: Blocks, place: int, tape: Tape) -> Blocks:
    return replace(blocks, tapes=[*blocks.tapes[:place], tape, *blocks.tapes[place + 1 :]])


def test_a_whole_frame_has_all_that_each_block_needs(made_up: Callable):
    found = asked(made_up(), "12:00", "12:34", "13:00", "14:00")
    assert found.blocks == (OWN, HOUR, BTC, BOOK, OF_CNN, KNEW)
    assert found.need.tolist() == [60, 8, 40, 30, 1, 1]
    assert (found.have == found.need).all()
    assert found.whole.all()
    assert found.refusals(60_000).is_empty()


@pytest.mark.parametrize(
    ("optional", "blocks"),
    [
        pytest.param((BOOK,), (OWN, HOUR, BTC, OF_CNN, KNEW), id="book"),
        pytest.param((OUTPUTS,), (OWN, HOUR, BTC, BOOK, KNEW), id="outputs"),
        pytest.param((HIDDEN,), (OWN, HOUR, BTC, BOOK, OF_CNN), id="hidden"),
        pytest.param(OPTIONAL, (OWN, HOUR, BTC), id="all that may be"),
    ],
)
def test_a_block_that_a_model_can_do_without_is_not_asked_for(
    made_up: Callable, optional: tuple[str, ...], blocks: tuple[str, ...]
):
    """Trap 19: such a model has masks; every other one is refused."""
    bare = replace(made_up(), book=None, peers=[made_up().peers[0].absent(Read(model="cnn", width=8))])
    found = asked(bare, "12:34", optional=optional)
    assert found.blocks == blocks
    assert had(found) == [{name: 0 for name in blocks if name in (BOOK, OF_CNN, KNEW)}]


def test_three_missing_candles_are_named_with_their_block_and_how_many_of_how_many(made_up: Callable):
    """Trap 18: the newest three, then three with others after them, which are no longer warm, then none."""
    blocks = made_up()
    gap = with_tape(blocks, 0, without(blocks.own, slice(row_at("12:32"), row_at("12:35"))))
    found = asked(gap, "12:31", "12:34", "12:44", "13:43", "13:44")
    # Ten candles warm the next; at 13:43 the oldest of 60 has nine before it, at 13:44 it has ten.
    assert had(found) == [{}, {OWN: 57}, {OWN: 47}, {OWN: 59}, {}]
    assert found.whole.tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(("place", "name", "step_ms"), [(1, HOUR, 3_600_000), (2, BTC, 1_000)])
def test_a_candle_missing_in_any_block_is_named(made_up: Callable, place: int, name: str, step_ms: int):
    """Trap 18, of a longer timeframe and of another market."""
    blocks = made_up()
    gap = with_tape(blocks, place, without(blocks.tapes[place], [row_at("12:00", step_ms)]))
    (lacks,) = had(asked(gap, "12:00"))
    assert lacks == {name: blocks.shape.candles[place].length - 1}
    assert had(asked(gap, "11:59", "14:00"))[1] == ({} if place == 2 else {HOUR: 5})


def test_an_indicator_that_is_not_warm_counts_as_a_missing_candle(made_up: Callable):
    """Trap 17."""
    blocks = made_up()
    rows = blocks.own.rows.copy()
    rows[row_at("12:20") - blocks.own.first_row, COLUMN["adx_14"]] = np.nan
    rows[:, COLUMN["L5H_price"]] = np.nan  # a pivot may never have been
    assert had(asked(with_tape(blocks, 0, replace(blocks.own, rows=rows)), "12:34", "13:20")) == [{OWN: 59}, {}]


def test_seconds_of_the_book_count_where_their_imbalance_is_known(made_up: Callable):
    blocks = made_up()
    rows = blocks.book.rows.copy()
    end = row_at("12:34", 1_000) + 1 - blocks.book.first_row
    rows[end - 10 : end - 5] = 0  # not recorded
    rows[end - 3, BOOK_COLUMN["imbalance"]] = np.nan
    rows[end - 1, BOOK_COLUMN["imbalance_60"]] = np.nan  # its means may be unknown
    hurt = replace(blocks, book=replace(blocks.book, rows=rows))
    assert had(asked(hurt, "12:34", "12:35")) == [{BOOK: 24}, {}]


def test_another_model_counts_where_it_spoke_lately_and_knows_this_close(made_up: Callable):
    """Trap 30."""
    blocks = made_up()
    peer = blocks.peers[0]
    said, knew = peer.outputs.copy(), peer.hidden.copy()
    said[row_at("12:30") - peer.first_row :] = np.nan
    knew[row_at("12:34") - peer.first_row, 3] = np.nan
    silent = replace(blocks, peers=[replace(peer, outputs=said, hidden=knew)])
    assert had(asked(silent, "12:34", "12:35")) == [{KNEW: 0}, {OF_CNN: 0}]


def test_a_market_that_began_too_late_or_has_no_candle_has_none(made_up: Callable):
    blocks = made_up()
    hours = blocks.tapes[1]
    late = row_at("12:00", hours.step_ms) - hours.first_row
    begun = replace(hours, first_row=hours.first_row + late, rows=hours.rows[late:])
    empty = replace(hours, first_row=row_at("12:34", hours.step_ms) + 1, rows=hours.rows[:0])
    assert had(asked(with_tape(blocks, 1, begun), "12:34")) == [{HOUR: 0}]
    assert had(asked(with_tape(blocks, 1, empty), "12:34", "14:00")) == [{HOUR: 0}] * 2


@given(st.data())
def test_the_candles_that_count_are_those_that_plain_lines_count(made_up: Callable, data: st.DataObject):
    """Two roads: every gap, every number of candles that warm the next."""
    blocks = made_up()
    gaps = data.draw(st.sets(st.integers(row_at("10:00"), row_at("14:00")), max_size=6))
    warmup = data.draw(st.integers(0, 12))
    time = data.draw(st.integers(row_at("12:00"), row_at("14:00")))
    shape = replace(blocks.shape, warmup=warmup)
    hurt = replace(with_tape(blocks, 0, without(blocks.own, sorted(gaps))), shape=shape)
    found = completeness(hurt, np.array([time]), OPTIONAL)
    visible = range(time - 60 + 1, time + 1)
    assert found.have[0, 0] == sum(not gaps & set(range(row - warmup, row + 1)) for row in visible)


@given(st.data())
def test_what_is_missing_does_not_depend_on_whether_it_came_later(made_up: Callable, data: st.DataObject):
    """Trap 32, and the counts of a backfill are those of a live run: a candle that came late was not there."""
    blocks = made_up()
    late = sorted(data.draw(st.sets(st.integers(row_at("12:00"), row_at("13:30")), min_size=1, max_size=4)))
    came = [row + data.draw(st.integers(1, 25)) for row in late]  # by the close of this row it had not come yet
    superseded = []
    for row, until in zip(late, came, strict=True):
        missing = [each for each, arrived in zip(late, came, strict=True) if row <= each <= until <= arrived]
        rows = without(blocks.own, missing).rows[row - blocks.own.first_row : until + 1 - blocks.own.first_row]
        superseded.append(Superseded(first_row=row, rows=rows, until_ms=(until + 1) * 60_000 + 1))
    whole = with_tape(blocks, 0, replace(blocks.own, superseded=superseded))
    closes = np.array(sorted(data.draw(st.sets(st.integers(late[0], row_at("14:00")), min_size=5, max_size=12))))
    found = completeness(whole, closes, OPTIONAL)
    for close, have in zip(closes.tolist(), found.have[:, 0].tolist(), strict=True):
        absent = [row for row, until in zip(late, came, strict=True) if row <= close <= until]
        live = completeness(with_tape(blocks, 0, without(blocks.own, absent)), np.array([close]), OPTIONAL)
        assert have == live.have[0, 0], close


def test_a_late_candle_without_indicators_of_its_own_was_not_there_either(made_up: Callable):
    """After an outage none is warm yet; it warms others as soon as it is there. Here 12:20 comes at 12:35."""
    blocks, row = made_up(), row_at("12:20")
    at = row - blocks.own.first_row
    cold = blocks.own.rows.copy()
    cold[: at + 1, COLUMN["sma_50"]] = np.nan
    missing = without(replace(blocks.own, rows=cold), [row]).rows[at : at + 15]
    late = Superseded(first_row=row, rows=missing, until_ms=(row + 16) * 60_000)
    blocks = with_tape(blocks, 0, replace(blocks.own, rows=cold, superseded=[late]))
    found = asked(blocks, "12:34", "12:35").have[:, 0].tolist()
    assert found == [4, 15]  # the first ten after it are counted once it has come


def test_a_corrected_candle_was_there_all_along(made_up: Callable):
    blocks = made_up()
    row = row_at("12:20")
    before = blocks.own.rows[row - blocks.own.first_row :][:5] + 1
    late = Superseded(first_row=row, rows=before, until_ms=(row + 5) * 60_000)
    assert asked(with_tape(blocks, 0, replace(blocks.own, superseded=[late])), "12:20", "12:22", "12:40").whole.all()


# Refusals ------------------------------------------------------------------------------------------------------------


def test_refusals_are_counted_by_day_and_first_block_with_the_least_there_was():
    """Trap 18: the table names block, how many of how many, how often, and when."""
    midnight = to_ms(datetime(2024, 3, 2, tzinfo=UTC)) // 60_000 - 1  # the row that closes at midnight
    found = Completeness(
        rows=midnight + np.array([-3, -2, -1, 0, 1]),
        blocks=(OWN, HOUR),
        have=np.array([[60, 8], [59, 7], [57, 8], [58, 8], [60, 5]]),
        need=np.array([60, 8]),
    )
    rows = found.refusals(60_000).rows(named=True)
    moments = [datetime(2024, 3, 1, 23, 58, tzinfo=UTC), datetime(2024, 3, 1, 23, 59, tzinfo=UTC)]
    midnight_at = datetime(2024, 3, 2, tzinfo=UTC)
    assert [(row["day"], row["block"], row["fewest"], row["need"], row["closes"]) for row in rows] == [
        (date(2024, 3, 1), OWN, 57, 60, 2),
        (date(2024, 3, 2), OWN, 58, 60, 1),
        (date(2024, 3, 2), HOUR, 5, 8, 1),
    ]
    assert [(row["first_at"], row["last_at"]) for row in rows[:2]] == [tuple(moments), (midnight_at, midnight_at)]
