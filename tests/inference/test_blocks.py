"""Frames of several blocks: each as-of the close they are made at, what is not there NaN, and a digest over all."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from hindsight.errors import FrameRefused
from hindsight.inference.blocks import GATHERED, OUTPUT_AGE, OUTPUT_COLUMNS, Blocks, Frame, Peer, check_frame, digest
from hindsight.inference.book_tape import BOOK_COLUMNS
from hindsight.inference.frames import COLUMNS, Superseded, Tape
from hindsight.inference.pivot_history import PIVOT_COLUMNS
from hindsight.inference.shape import Read
from hindsight.market.streams import to_ms

AGE = OUTPUT_COLUMNS.index("age")
HOUR = 1  # the place of the 1h candles among the blocks
PARTS = ("own", "hour", "btc", "book", "pivots", "outputs", "hidden")


def at(text: str) -> int:
    return to_ms(datetime.fromisoformat(f"2024-03-01T{text}").replace(tzinfo=UTC))


def frame_at(blocks: Blocks, *times: str) -> Frame[np.ndarray]:
    rows = np.array([at(text) for text in times]) // blocks.own.step_ms - 1
    return blocks.gather(rows, np.ones((len(rows), 4), np.float32))


def digest_at(blocks: Blocks, time: str) -> int:
    return int(blocks.digests(np.array([at(time) // blocks.own.step_ms - 1]))[0])


def bytes_of(frame: Frame[np.ndarray]) -> list[bytes]:
    return [block.tobytes() for block in frame.seen]


def planted_after(blocks: Blocks, time: str) -> Blocks:
    """The same blocks with absurd values in all that was not known at `time`."""
    made_ms = at(time)
    row = made_ms // blocks.own.step_ms - 1
    tapes = []
    for tape in blocks.tapes:
        rows = tape.rows.copy()
        rows[made_ms // tape.step_ms - tape.first_row :] = 1e30
        tapes.append(replace(tape, rows=rows))
    book, history, peer = blocks.book, blocks.pivots, blocks.peers[0]
    assert book
    assert history
    seconds = book.rows.copy()
    seconds[made_ms // 1000 - book.first_row :] = 1e30
    is_later = history.confirmed_rows > row
    assert is_later.any()
    values = np.where(is_later[:, None], np.float32(1e30), history.values)
    said, knew = peer.outputs.copy(), peer.hidden.copy()
    said[row - peer.first_row :] = 1e30  # also what it says at this very close: that answers the same question
    knew[row + 1 - peer.first_row :] = 1e30
    return replace(
        blocks,
        tapes=tapes,
        book=replace(book, rows=seconds),
        pivots=replace(history, values=values, pivot_rows=np.where(is_later, row, history.pivot_rows)),
        peers=[replace(peer, outputs=said, hidden=knew)],
    )


def test_at_12_34_56_the_last_hour_opens_at_11_00_and_the_last_second_at_12_34_55(made_up: Callable):
    """Trap 5: the hour, the minute and the day that contain the present are not closed yet."""
    entries = ("own=60", "1m=60", "1h=8", "1d=5", "BTC/USDT 1s=40")
    blocks = made_up(timeframe="1s", entries=entries)
    last = {"1s": at("12:34:55"), "1m": at("12:33:00"), "1h": at("11:00:00"), "1d": at("00:00:00") - 86_400_000}
    frame = frame_at(blocks, "12:34:56")
    for block, tape, seen in zip(blocks.shape.candles, blocks.tapes, frame.candles, strict=True):
        end = last[block.timeframe] // tape.step_ms + 1 - tape.first_row
        np.testing.assert_array_equal(seen[0], tape.rows[end - block.length : end], err_msg=str(block))


@pytest.mark.parametrize(
    ("time", "opens"),
    [
        pytest.param("12:59:00", "11:00", id="a minute before the hour closes"),
        pytest.param("13:00:00", "12:00", id="as it closes"),
        pytest.param("13:01:00", "12:00", id="a minute after"),
    ],
)
def test_an_hour_enters_with_the_minute_that_closes_with_it(made_up: Callable, time: str, opens: str):
    """Trap 5."""
    blocks = made_up()
    tape = blocks.tapes[HOUR]
    newest = frame_at(blocks, time).candles[HOUR][0, -1]
    np.testing.assert_array_equal(newest, tape.rows[at(opens) // tape.step_ms - tape.first_row])


@pytest.mark.parametrize("timeframe", ["1s", "1m"])
def test_every_block_is_what_plain_lines_find(made_up: Callable, timeframe: str):
    """Two roads: each row by asking whether it had closed."""
    blocks = made_up(timeframe=timeframe)
    times = ("12:00:00", "12:34:00", "12:59:00", "13:00:00", "14:00:00")
    frame = frame_at(blocks, *times)
    for index, time in enumerate(times):
        made_ms = at(time)
        for block, tape, seen in zip(blocks.shape.candles, blocks.tapes, frame.candles, strict=True):
            closed = [row for n, row in enumerate(tape.rows) if (tape.first_row + n + 1) * tape.step_ms <= made_ms]
            np.testing.assert_array_equal(seen[index], closed[-block.length :])
        ended = [row for n, row in enumerate(blocks.book.rows) if (blocks.book.first_row + n + 1) * 1000 <= made_ms]
        np.testing.assert_array_equal(frame.book[index], ended[-blocks.shape.book :])
        row, peer = made_ms // blocks.own.step_ms - 1, blocks.peers[0]
        np.testing.assert_array_equal(frame.outputs[index, 0, :-1], peer.outputs[row - 1 - peer.first_row])
        assert frame.outputs[index, 0, AGE] == 1
        np.testing.assert_array_equal(frame.hidden[0][index], peer.hidden[row - peer.first_row])
        np.testing.assert_array_equal(frame.pivots[index], blocks.pivots.gather(np.array([row]), 2)[0])
    assert np.isfinite(frame.pivots).all()


def test_absurd_values_in_any_block_after_the_cut_change_no_byte_of_a_frame(made_up: Callable):
    """Trap 3, and trap 1 for the pivots, trap 30 for what another model says."""
    blocks, time = made_up(), "12:34:00"
    planted = planted_after(blocks, time)
    for before in ("12:00:00", "12:30:00", time):
        assert bytes_of(frame_at(planted, before)) == bytes_of(frame_at(blocks, before))
        assert digest_at(planted, before) == digest_at(blocks, before)


@pytest.mark.parametrize(("place", "part"), [*enumerate(PARTS)])
def test_the_absurd_values_are_there_to_be_seen_once_they_are_known(made_up: Callable, place: int, part: str):
    """What the trap above is worth: each block shows them at a later close, and the digest tells."""
    blocks = made_up()
    planted = planted_after(blocks, "12:34:00")
    later = "13:00:00"
    seen, expected = (frame_at(each, later).seen for each in (planted, blocks))
    assert not np.array_equal(seen[place], expected[place], equal_nan=True), part
    mixed = [each if index == place else expected[index] for index, each in enumerate(seen)]
    assert digest(mixed) != digest(expected) == digest_at(blocks, later)


def test_a_correction_of_an_hour_is_in_the_frames_from_the_instant_it_is_known_also_between_two_of_its_closes(
    made_up: Callable,
):
    """Trap 32: the candle of 11:00 is corrected at 12:30:20."""
    blocks = made_up()
    hours = blocks.tapes[HOUR]
    row = at("11:00") // hours.step_ms
    after = hours.rows[row - hours.first_row : row + 1 - hours.first_row]
    before = after + 1
    late = Superseded(first_row=row, rows=before, until_ms=at("12:30:20"))
    corrected = replace(blocks, tapes=[blocks.own, replace(hours, superseded=[late]), *blocks.tapes[2:]])
    for time, knows in (("12:29:00", False), ("12:30:00", False), ("12:31:00", True), ("13:00:00", True)):
        newest = frame_at(corrected, time).candles[HOUR][0, -1 if time < "13" else -2]
        np.testing.assert_array_equal(newest, (after if knows else before)[0], err_msg=time)
        assert (digest_at(corrected, time) == digest_at(blocks, time)) == knows
    assert digest_at(corrected, "12:00:00") != digest_at(blocks, "12:00:00")
    assert digest_at(corrected, "11:59:00") == digest_at(blocks, "11:59:00")  # not closed: not in the frame at all


def test_a_frame_is_the_same_whatever_is_gathered_with_it(made_up: Callable):
    blocks = made_up()
    rows = at("12:30") // 60_000 - 1 + np.array([3, 0, 60, 3, 17])
    norm = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    together = blocks.gather(rows, norm)
    np.testing.assert_array_equal(together.norm, norm)
    for index in range(len(rows)):
        alone = blocks.gather(rows[index : index + 1], norm[index : index + 1])
        for one, all_of_them in zip(alone.seen, together.seen, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[index])


def test_no_references_are_empty_blocks_of_the_same_shapes(made_up: Callable):
    blocks = made_up()
    frame = blocks.gather(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    check_frame(frame, blocks.shape)
    assert {len(block) for block in frame.seen} == {0}
    assert blocks.digests(np.empty(0, np.int64)).shape == (0,)


def test_the_digests_are_those_of_each_frame_by_itself(made_up: Callable):
    blocks = made_up(timeframe="1s")
    count = 2 * GATHERED + 3
    rows = at("12:30") // 1000 + np.arange(count)
    found = blocks.digests(rows)
    assert found.dtype == np.uint64
    assert len(np.unique(found)) == count
    for index in (0, 1, GATHERED - 1, GATHERED, GATHERED + 1, count - 1):
        frame = blocks.gather(rows[index : index + 1], np.ones((1, 4), np.float32))
        assert found[index] == digest([block[0] for block in frame.seen])


def test_the_digest_is_over_what_is_seen_and_not_over_what_follows_from_it(made_up: Callable):
    blocks = made_up()
    row = np.array([at("12:34") // 60_000 - 1])
    one, other = (blocks.gather(row, np.full((1, 4), value, np.float32)) for value in (1, 2))
    assert digest([block[0] for block in one.seen]) == digest([block[0] for block in other.seen])


# What is not there ---------------------------------------------------------------------------------------------------


def test_a_block_that_is_not_there_is_nan_never_zero_and_the_digest_tells_it_from_zeros(made_up: Callable):
    """Trap 19."""
    blocks = made_up()
    read = Read(model="cnn", width=blocks.shape.reads[0].width)
    bare = replace(blocks, book=None, pivots=None, peers=[Peer.absent(read)])
    frame = frame_at(bare, "12:34:00")
    check_frame(frame, blocks.shape)
    for block in (frame.book, frame.pivots, frame.outputs, *frame.hidden):
        assert block.size
        assert np.isnan(block).all()
    zeros = [*(block[0] for block in frame.candles), *(np.nan_to_num(block[0]) for block in frame.seen[3:])]
    assert digest(zeros) != digest_at(bare, "12:34:00") != digest_at(blocks, "12:34:00")


def test_a_shape_without_optional_blocks_has_them_empty(made_up: Callable):
    blocks = made_up(entries=("own=60",))
    alone = replace(blocks, shape=replace(blocks.shape, reads=()), book=None, pivots=None, peers=())
    frame = frame_at(alone, "12:34:00", "12:35:00")
    check_frame(frame, alone.shape)
    assert [block.shape for block in frame.seen[1:]] == [(2, 0, 45), (2, 10, 0, 5), (2, 0, 6)]
    assert frame.hidden == ()


@pytest.mark.parametrize("place", range(3))
def test_a_frame_that_reaches_beyond_a_tape_is_an_error_never_padding(made_up: Callable, place: int):
    """Trap 19."""
    blocks = made_up()
    tape, length = blocks.tapes[place], blocks.shape.candles[place].length
    end = at("12:34") // tape.step_ms - tape.first_row
    for rows, first in ((tape.rows[: end - 1], 0), (tape.rows[end - length + 1 :], end - length + 1)):
        short = replace(tape, rows=rows, first_row=tape.first_row + first)
        with pytest.raises(ValueError, match="reach beyond the tape's rows"):
            frame_at(replace(blocks, tapes=[*blocks.tapes[:place], short, *blocks.tapes[place + 1 :]]), "12:34")


def test_blocks_with_other_tapes_or_peers_than_their_shape_are_refused(made_up: Callable):
    blocks = made_up()
    with pytest.raises(ValueError, match="expected 3 tapes and 1 peers, found 2 and 1"):
        replace(blocks, tapes=blocks.tapes[:2])
    with pytest.raises(ValueError, match="expected 3 tapes and 1 peers, found 3 and 0"):
        replace(blocks, peers=())


# What another model said ---------------------------------------------------------------------------------------------


def peer_of(said_at: list[int], count: int = 20) -> Peer:
    """A peer of width 3 that speaks at some rows: its values are the numbers of the rows."""
    peer = Peer(
        first_row=100,
        outputs=np.full((count, 5), np.nan, np.float32),
        hidden=np.full((count, 3), np.nan, np.float32),
    )
    for row in said_at:
        peer.outputs[row - 100], peer.hidden[row - 100] = row, -row
    return peer


def test_the_output_of_the_close_before_is_read_and_the_hidden_state_of_this_one():
    """Trap 30: what it says at this close answers the same question, and is no input to it."""
    peer, rows = peer_of([100, 101, 102]), np.array([100, 101, 102, 103])
    np.testing.assert_array_equal(peer.outputs_before(rows)[:, 0], [np.nan, 100, 101, 102])
    np.testing.assert_array_equal(peer.hidden_at(rows)[:, 0], [-100, -101, -102, np.nan])


def test_an_older_output_is_read_with_its_age_until_it_is_too_old():
    """Trap 30: OUTPUT_AGE candles, and then nothing rather than stale news."""
    peer = peer_of([105, 107])
    found = peer.outputs_before(np.arange(104, 116))
    expected = [(np.nan, np.nan)] * 2 + [(105, 1), (105, 2), (107, 1), (107, 2), (107, 3), (107, 4), (107, 5)]
    np.testing.assert_array_equal(found[:, [0, AGE]], expected + [(np.nan, np.nan)] * 3)
    assert OUTPUT_AGE == 5
    assert np.isnan(peer.hidden_at(np.array([106, 108]))).all()  # of no other close than this one


def test_outside_of_what_is_remembered_of_a_peer_there_is_nothing():
    peer = peer_of([100, 119])
    rows = np.array([0, 99, 100, 120, 124, 125, 10**6])
    np.testing.assert_array_equal(peer.outputs_before(rows)[:, AGE], [np.nan] * 3 + [1, 5] + [np.nan] * 2)
    np.testing.assert_array_equal(peer.hidden_at(rows)[:, 0], [np.nan, np.nan, -100, *[np.nan] * 4])
    absent = Peer.absent(Read(model="cnn", width=3))
    assert np.isnan(absent.outputs_before(rows)).all()
    assert absent.hidden_at(rows).shape == (7, 3)
    assert np.isnan(absent.hidden_at(rows)).all()


# Shapes --------------------------------------------------------------------------------------------------------------


def test_a_frame_of_its_shape_passes(made_up: Callable):
    blocks = made_up()
    assert check_frame(frame_at(blocks, "12:34:00", "12:35:00"), blocks.shape) is None


def _of(frame: Frame[np.ndarray], **changed: object) -> Frame[np.ndarray]:
    return frame._replace(**changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda f: _of(f, candles=(f.candles[0][:, 1:], *f.candles[1:])),
            r"block ETH/USDT 1m: expected float32 \[2, 60, 43\], found float32 \[2, 59, 43\]",
            id="a candle fewer",
        ),
        pytest.param(
            lambda f: _of(f, candles=(*f.candles[:2], f.candles[2][..., :-1])),
            r"block BTC/USDT 1s: expected float32 \[2, 40, 43\], found float32 \[2, 40, 42\]",
            id="a column fewer",
        ),
        pytest.param(
            lambda f: _of(f, candles=(f.candles[1], f.candles[0], f.candles[2])),
            r"block ETH/USDT 1m: expected float32 \[2, 60, 43\], found float32 \[2, 8, 43\]",
            id="another order",
        ),
        pytest.param(
            lambda f: _of(f, candles=f.candles[:2]),
            r"expected 3 blocks of candles and 1 hidden states, found 2 and 1",
            id="a block fewer",
        ),
        pytest.param(
            lambda f: _of(f, hidden=()),
            r"expected 3 blocks of candles and 1 hidden states, found 3 and 0",
            id="a hidden state fewer",
        ),
        pytest.param(
            lambda f: _of(f, book=f.book.astype(np.float64)),
            r"block book: expected float32 \[2, 30, 45\], found float64 \[2, 30, 45\]",
            id="float64",
        ),
        pytest.param(
            lambda f: _of(f, book=f.book[:, :0]),
            r"block book: expected float32 \[2, 30, 45\], found float32 \[2, 0, 45\]",
            id="no book",
        ),
        pytest.param(
            lambda f: _of(f, pivots=f.pivots[:1]),
            r"block pivots: expected float32 \[2, 10, 2, 5\], found float32 \[1, 10, 2, 5\]",
            id="of one reference fewer",
        ),
        pytest.param(
            lambda f: _of(f, outputs=f.outputs[:, :, :-1]),
            r"block outputs: expected float32 \[2, 1, 6\], found float32 \[2, 1, 5\]",
            id="outputs without their age",
        ),
        pytest.param(
            lambda f: _of(f, hidden=(f.hidden[0][:, :4],)),
            r"block hidden state of cnn: expected float32 \[2, 8\], found float32 \[2, 4\]",
            id="a narrower hidden state",
        ),
        pytest.param(
            lambda f: _of(f, norm=f.norm[:, :3]),
            r"block norm_params: expected float32 \[2, 4\], found float32 \[2, 3\]",
            id="norm_params",
        ),
    ],
)
def test_a_frame_of_another_shape_is_refused_with_what_was_expected_of_which_block_and_found(
    made_up: Callable, change: Callable, message: str
):
    blocks = made_up()
    with pytest.raises(FrameRefused, match=message):
        check_frame(change(frame_at(blocks, "12:34:00", "12:35:00")), blocks.shape)


def test_the_widths_are_those_of_the_columns():
    assert (len(COLUMNS), len(BOOK_COLUMNS), len(PIVOT_COLUMNS), len(OUTPUT_COLUMNS)) == (43, 45, 5, 6)


def test_a_map_changes_every_block_and_keeps_their_places(made_up: Callable):
    frame = frame_at(made_up(), "12:34:00")
    doubled = frame.map(lambda block: 2 * block)
    for one, other in zip((frame.norm, *frame.seen), (doubled.norm, *doubled.seen), strict=True):
        np.testing.assert_array_equal(other, 2 * one)


def test_a_tape_of_another_step_may_stand_at_any_place(made_up: Callable):
    """Candles shorter than the predicted ones, too: their last one closes as the reference is made."""
    blocks = made_up()
    assert isinstance(blocks.tapes[2], Tape)
    assert blocks.tapes[2].step_ms < blocks.own.step_ms < blocks.tapes[HOUR].step_ms
    newest = frame_at(blocks, "12:34:00").candles[2][0, -1]
    tape = blocks.tapes[2]
    np.testing.assert_array_equal(newest, tape.rows[at("12:33:59") // 1000 - tape.first_row])
