"""Refused frames counted the same however history is cut, schemas named once, and how far a model has come."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from hindsight.inference.completeness import Completeness
from hindsight.market.streams import Stream, to_ms
from hindsight.store.inference_tables import (
    add_refusals,
    find_schema,
    left_unlearned,
    move_watermark,
    note_schema,
    predicted_until,
)
from hindsight.store.rows import select, stream_key
from hindsight.store.timings import note
from hindsight.store.warehouse import Warehouse

ETH = Stream(venue="simulated", symbol="ETH/USDT", timeframe="1m")
BTC = Stream(venue="simulated", symbol="BTC/USDT", timeframe="1m")
FIRST = to_ms(datetime(2024, 3, 1, 23, 30, tzinfo=UTC)) // 60_000 - 1  # closes half an hour before midnight
COUNT = 60
BLOCKS = ("candles ETH/USDT 1m", "candles ETH/USDT 1h", "order book")
TABLE = "select * from refused_frames order by model, symbol, day, block, need"


def lacking(seed: int = 0) -> Completeness:
    """An hour around midnight of which most closes lack something."""
    have = np.random.default_rng(seed).integers(1, 4, (COUNT, 3)).cumsum(axis=1)
    return Completeness(rows=FIRST + np.arange(COUNT), blocks=BLOCKS, have=have, need=np.array([3, 6, 9]))


def part(found: Completeness, start: int, end: int) -> pl.DataFrame:
    cut = Completeness(rows=found.rows[start:end], blocks=BLOCKS, have=found.have[start:end], need=found.need)
    return cut.refusals(60_000)


def stored(warehouse: Warehouse) -> pl.DataFrame:
    with warehouse.reading() as con:
        return select(con, TABLE)


def test_a_day_names_the_block_how_many_of_how_many_how_often_and_when(warehouse: Warehouse):
    """Trap 18."""
    found = lacking()
    with warehouse.writing() as con:
        add_refusals(con, "cnn", ETH, part(found, 0, COUNT))
    rows = stored(warehouse)
    lacks = found.have < found.need
    assert rows["closes"].sum() == lacks.any(axis=1).sum() > 40
    assert set(rows["day"]) == {date(2024, 3, 1), date(2024, 3, 2)}
    assert set(rows["block"]) == set(BLOCKS)
    for row in rows.iter_rows(named=True):
        which = BLOCKS.index(row["block"])
        opens = datetime.combine(row["day"], datetime.min.time(), UTC)
        first, last = (to_ms(row[name]) // 60_000 - 1 - FIRST for name in ("first_at", "last_at"))
        is_first = lacks[:, which] & ~lacks[:, :which].any(axis=1)
        assert is_first[[first, last]].all()
        assert opens <= row["first_at"] <= row["last_at"] < opens + timedelta(days=1)
        assert (row["need"], row["model"], row["timeframe"]) == (found.need[which], "cnn", "1m")
        at = np.arange(first, last + 1)[is_first[first : last + 1]]
        assert (row["closes"], row["fewest"]) == (len(at), found.have[at, which].min())


@pytest.mark.parametrize("cuts", [[30], [29, 30, 31], [1, 2, 3, 17, 44, 59], [*range(1, COUNT)]], ids=len)
def test_the_counts_do_not_depend_on_how_history_is_cut(tmp_path: Path, warehouse: Warehouse, cuts: list[int]):
    whole, pieces = warehouse, Warehouse(path=tmp_path / "pieces.duckdb", lock_timeout_seconds=5)
    found = lacking()
    with whole.writing() as con:
        add_refusals(con, "cnn", ETH, part(found, 0, COUNT))
    with pieces.writing() as con:
        for start, end in pairwise([0, *cuts, COUNT]):
            add_refusals(con, "cnn", ETH, part(found, start, end))
    assert stored(pieces).equals(stored(whole))


def test_each_model_of_each_stream_counts_for_itself(warehouse: Warehouse):
    one, other = part(lacking(0), 0, COUNT), part(lacking(1), 0, COUNT)
    with warehouse.writing() as con:
        for model, stream, frame in (("cnn", ETH, one), ("lstm", ETH, other), ("cnn", BTC, other), ("cnn", ETH, one)):
            add_refusals(con, model, stream, frame)
        add_refusals(con, "cnn", ETH, one.clear())
    rows = stored(warehouse)
    counts = {
        (model, symbol): rows.filter(model=model, symbol=symbol)["closes"].sum()
        for model, symbol in (("cnn", "ETH/USDT"), ("lstm", "ETH/USDT"), ("cnn", "BTC/USDT"))
    }
    assert list(counts.values()) == [2 * one["closes"].sum(), *[other["closes"].sum()] * 2]


def test_a_schema_is_noted_once_and_found_by_its_hash(warehouse: Warehouse):
    with warehouse.writing() as con:
        for _ in range(2):
            note_schema(con, "0123456789ab", '{"shape": 1}', "cnn {}")
        note_schema(con, "ba9876543210", '{"shape": 2}', "lstm {}")
    with warehouse.reading() as con:
        assert find_schema(con, "0123456789ab") == ('{"shape": 1}', "cnn {}")
        assert find_schema(con, "ba9876543210") == ('{"shape": 2}', "lstm {}")
        assert find_schema(con, "000000000000") is None
        assert select(con, "select count(*) as n from schemas")["n"].item() == 2


def test_a_model_has_predicted_up_to_where_it_is_done_also_without_a_reference(warehouse: Warehouse):
    """Trap 30: those who read it need not wait for a close at which it could not predict."""
    moments = [datetime(2024, 3, 1, 12, minute, tzinfo=UTC) for minute in (0, 5, 9)]
    with warehouse.writing() as con:
        assert predicted_until(con, "cnn", ETH) is None
        move_watermark(con, "cnn", ETH, moments[0], moments[1])
        assert predicted_until(con, "cnn", ETH) == moments[1]
        move_watermark(con, "cnn", ETH, moments[1], moments[2])
        assert predicted_until(con, "cnn", ETH) == moments[2]
        assert predicted_until(con, "lstm", ETH) is None
        assert predicted_until(con, "cnn", BTC) is None


MODELS = ("cnn", "lstm", "dqn")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def refer(con: duckdb.DuckDBPyConnection, model: str, stream: Stream, made_at: list[datetime]) -> None:
    """References that say nothing but when they were made."""
    con.execute(
        """
        insert into inference_references by name
        select $model as model, $venue as venue, $symbol as symbol, $timeframe as timeframe, made_at,
               0 as inference_id, made_at as target_time, made_at as input_start, made_at as input_end,
               [1, 1, 1, 1] as norm_params, 'buy' as action, 0.5 as action_confidence,
               [0, 0, 0, 0] as predicted_candle, 'up' as trend, [0, 0, 1] as trend_probabilities,
               0.5 as next_pivot_high, [0, 0, 0, 0, 0, 0, 0, 0] as predicted_pivots, 0 as checkpoint_id,
               '' as schema_hash, 0 as digest, 'cpu' as device, 'live' as mode
        from (select unnest($made_at) as made_at)
        """,
        {"model": model, "made_at": made_at, **stream_key(stream)},
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_model_has_predicted_up_to_the_later_of_its_newest_reference_and_its_watermark(
    warehouse: Warehouse, seed: int
):
    """References every few closes, made before the watermark, after it, not at it, or not at all; in any order."""
    chance = np.random.default_rng(seed)
    expected = {}
    with warehouse.writing() as con:
        for model, stream in chance.permutation([(model, stream) for model in MODELS for stream in (ETH, BTC)]):
            every, last = chance.integers(1, 5), chance.integers(0, 40)
            made = [NOON + n * MINUTE for n in chance.permutation(np.arange(0, last, every)).tolist()]
            until = [NOON + n * MINUTE for n in chance.integers(0, 60, chance.integers(0, 2)).tolist()]
            if made:
                refer(con, model, stream, made)
            for moment in until:
                move_watermark(con, model, stream, NOON, moment)
            expected[model, stream] = max([*made, *until], default=None)
    with warehouse.reading() as con:
        assert {key: predicted_until(con, *key) for key in expected} == expected


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_unlearned_is_the_newest_live_close_after_the_watermark(warehouse: Warehouse, seed: int):
    """Some streams were never live, some models have no watermark, and closes come in any order and of other stages."""
    chance = np.random.default_rng(seed)
    streams = [
        Stream(venue="simulated", symbol=f"{coin}/USDT", timeframe=step) for coin in "XYZ" for step in ("1m", "1h")
    ]
    expected = {}
    with warehouse.writing() as con:
        for stream in streams:
            live = [NOON + n * stream.step for n in chance.permutation(chance.integers(0, 9)).tolist()]
            note(con, stream, "", "stored", live, NOON)
            note(con, stream, "cnn", "predicted", [NOON + 20 * stream.step], NOON)  # a history that it works through
            for model in MODELS:
                until = datetime(1970, 1, 1, tzinfo=UTC)
                if chance.random() < 0.7:
                    until = NOON + int(chance.integers(0, 9)) * stream.step
                    move_watermark(con, model, stream, NOON, until)
                if after := [close for close in live if close > until]:
                    expected[str(stream), model] = max(after)
    with warehouse.reading() as con:
        assert left_unlearned(con, streams, MODELS) == expected
        assert list(left_unlearned(con, reversed(streams), MODELS)) == sorted(expected)  # the same words every time
        asked = left_unlearned(con, streams[:1], ["cnn"])
    assert asked == {key: close for key, close in expected.items() if key == (str(streams[0]), "cnn")}
