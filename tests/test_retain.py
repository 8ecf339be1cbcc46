"""Which checkpoints stay: the best, the latest, the serving, the pinned and the snapshots; NaN is never the best.

And what stays beside them, which is everything else.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hindsight.configured import shape_of
from hindsight.learn import learn
from hindsight.market.candles import TIME
from hindsight.market.streams import Window
from hindsight.recall_blocks import recall_blocks
from hindsight.retain import FLAGS, judge
from hindsight.serve import set_serving
from hindsight.settings import Settings
from hindsight.store.rows import select
from hindsight.store.warehouse import Warehouse
from hindsight.training.metrics import LOG_LOSS, Metric
from tests.test_advance import advanced, land

NOW = datetime(2024, 3, 2, tzinfo=UTC)
NAN = float("nan")
PROFIT = Metric(name="profit", direction="higher", measure=LOG_LOSS.measure)


def known(*losses: float | None, **columns: list) -> pl.DataFrame:
    """Checkpoints 10, 20, 30, … of these log losses, all of them snapshots that are still there."""
    count = len(losses)
    frame = pl.DataFrame(
        {
            "checkpoint_id": pl.Series(range(10, 10 * count + 10, 10), dtype=pl.Int32),
            "file": [f"{10 * n + 10}.safetensors" for n in range(count)],
            "metric": ["log loss"] * count,
            "metric_value": pl.Series(losses, dtype=pl.Float32),
            **{name: [name == "is_snapshot"] * count for name in FLAGS},
            "evicted_at": pl.Series([None] * count, dtype=TIME),
        }
    )
    return frame.with_columns(**{name: pl.Series(values, dtype=frame[name].dtype) for name, values in columns.items()})


def flagged(judged: pl.DataFrame, flag: str) -> list[int]:
    return judged.filter(flag)["checkpoint_id"].to_list()


@pytest.mark.parametrize(
    ("metric", "best"),
    [pytest.param(LOG_LOSS, [10, 20, 30], id="lower"), pytest.param(PROFIT, [10, 40, 50], id="higher")],
)
def test_the_best_are_those_that_the_direction_of_the_metric_says(metric: Metric, best: list[int]):
    """Trap 28."""
    judged, files = judge(known(3.0, 1.0, 2.0, 5.0, 4.0, metric=[metric.name] * 5), best=3, now=NOW, metric=metric)
    assert flagged(judged, "is_best") == best
    assert files == []


def test_what_another_metric_measured_never_wins_and_goes_like_any_other_that_is_not_the_best():
    frame = known(
        *(9.0, 8.0, -7.0, 1.0),
        metric=["log loss", "log loss", "profit", "profit"],
        is_snapshot=[True, False, True, True],
        is_best=[True, True, False, False],
    )
    judged, files = judge(frame, best=5, now=NOW, metric=PROFIT)
    assert flagged(judged, "is_best") == [30, 40]
    assert files == [Path("20.safetensors")]  # no snapshot, and the best no longer


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf"), None])
def test_a_loss_that_is_no_number_never_wins(bad: float | None):
    """Trap 28."""
    judged, _ = judge(known(bad, 2.0, bad, 3.0), best=3, now=NOW)
    assert flagged(judged, "is_best") == [20, 40]
    judged, _ = judge(known(bad, 2.0, bad, 3.0, metric=["profit"] * 4), best=3, now=NOW, metric=PROFIT)
    assert flagged(judged, "is_best") == [20, 40]
    judged, _ = judge(known(bad, bad), best=3, now=NOW)
    assert flagged(judged, "is_best") == []
    assert flagged(judged, "is_serving") == [20]  # somebody has to


def test_of_equals_the_older_one_wins():
    judged, _ = judge(known(2.0, 1.0, 1.0, 1.0), best=2, now=NOW)
    assert flagged(judged, "is_best") == [20, 30]
    judged, _ = judge(known(1.0, 2.0, 2.0, 2.0, metric=["profit"] * 4), best=2, now=NOW, metric=PROFIT)
    assert flagged(judged, "is_best") == [20, 30]


def test_the_newest_that_is_there_serves():
    judged, _ = judge(known(1.0, 2.0, 3.0), best=1, now=NOW)
    assert flagged(judged, "is_serving") == flagged(judged, "is_latest") == [30]
    judged, _ = judge(known(1.0, 2.0, 3.0, evicted_at=[None, None, NOW]), best=1, now=NOW)
    assert flagged(judged, "is_serving") == flagged(judged, "is_latest") == [20]


def test_the_latest_of_before_is_evicted_and_its_file_named():
    frame = known(1.0, 2.0, 3.0, is_snapshot=[True, False, False], is_latest=[False, True, False])
    judged, files = judge(frame, best=5, now=NOW)
    assert files == [Path("20.safetensors")]
    assert judged["evicted_at"].to_list() == [None, NOW, None]


def test_what_is_pinned_stays():
    frame = known(1.0, 2.0, 3.0, is_snapshot=[False] * 3, is_pinned=[True, False, False])
    judged, files = judge(frame, best=5, now=NOW)
    assert files == [Path("20.safetensors")]
    assert flagged(judged, "is_pinned") == [10]


def test_what_was_evicted_once_is_never_the_best_and_is_not_evicted_again():
    earlier = NOW - timedelta(days=1)
    judged, files = judge(known(0.5, 1.0, 2.0, evicted_at=[earlier, None, None]), best=1, now=NOW)
    assert flagged(judged, "is_best") == [20]
    assert files == []
    assert judged["evicted_at"].to_list() == [earlier, None, None]


losses = st.one_of(st.none(), st.floats(width=32), st.sampled_from([1.0, 2.0]))


@given(data=st.data(), count=st.integers(1, 12), best=st.integers(5, 10))
def test_no_eviction_ever_takes_the_best_the_serving_the_pinned_or_a_snapshot(data, count: int, best: int):
    """Trap 28, for any history of checkpoints."""

    def flags() -> list[bool]:
        return data.draw(st.lists(st.booleans(), min_size=count, max_size=count))

    frame = known(
        *data.draw(st.lists(losses, min_size=count, max_size=count)),
        metric=data.draw(st.lists(st.sampled_from(["log loss", "profit"]), min_size=count, max_size=count)),
        is_snapshot=flags(),
        is_pinned=flags(),
        evicted_at=[NOW - timedelta(days=1) if gone else None for gone in flags()],
    )
    metric = data.draw(st.sampled_from([LOG_LOSS, PROFIT]))
    judged, files = judge(frame, best, NOW, metric=metric)
    here = judged.filter(pl.col("evicted_at").is_null())
    was_here = frame.filter(pl.col("evicted_at").is_null())
    assert sorted(files) == sorted(
        Path(file) for file in was_here.join(here, on="checkpoint_id", how="anti")["file"].to_list()
    )
    assert set(flagged(judged, "is_best")) <= set(here["checkpoint_id"])
    assert len(flagged(judged, "is_best")) <= best
    assert len(flagged(judged, "is_serving")) == (1 if len(was_here) else 0)
    for flag in ("is_pinned", "is_snapshot"):
        assert set(was_here.filter(flag)["checkpoint_id"]) <= set(here["checkpoint_id"])
    assert set(flagged(judged, "is_serving")) <= set(here["checkpoint_id"])
    again, more = judge(judged, best, NOW, metric=metric)
    assert again.equals(judged)
    assert more == []


# In a run ------------------------------------------------------------------------------------------------------------


def test_the_files_on_disk_are_those_of_the_checkpoints_that_stay(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """A live run leaves its latest weights at every call, and takes those of the call before away, and their row."""
    settings, latest = copy_home(venue_home), set()
    for hour in range(1, 6):
        learn(settings, settings.streams[0], "transformer", datetime(2024, 3, 1, hour, tzinfo=UTC))
        here = table(settings, "checkpoints", "checkpoint_id")
        on_disk = {str(file.relative_to(settings.checkpoints_path)) for file in settings.checkpoints_path.rglob("*.s*")}
        assert on_disk == set(here["file"])
        assert here["evicted_at"].is_null().all()
        assert len(flagged(here, "is_serving")) == 1
        steps = table(settings, "training_steps", "step")
        assert flagged(here, "is_latest") == [steps["step"].max()]
        latest |= set(flagged(here, "is_latest"))
        assert set(flagged(here, "is_best")) <= set(flagged(here, "is_snapshot"))
    assert len(latest - set(here["checkpoint_id"])) >= 3
    assert (here.filter("is_snapshot")["checkpoint_id"] % settings.snapshot_every == 0).all()


def test_what_a_kill_left_among_the_checkpoints_is_gone_after_the_next_lesson(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """The file of a removal that never came after its commit, and one that was being written."""
    settings = copy_home(venue_home)
    learn(settings, settings.streams[0], "transformer", datetime(2024, 3, 1, 1, tzinfo=UTC))
    some = settings.checkpoints_path / table(settings, "checkpoints", "checkpoint_id")["file"][0]
    for left in ("000000001.safetensors", "000000001.json", f".{some.name}.4711"):
        some.with_name(left).write_bytes(b"left")
    (some.parent / "a folder of somebody's").mkdir()
    learn(settings, settings.streams[0], "transformer", datetime(2024, 3, 1, 2, tzinfo=UTC))
    files = [Path(file) for file in table(settings, "checkpoints", "checkpoint_id")["file"]]
    named = {settings.checkpoints_path / each for file in files for each in (file, file.with_suffix(".json"))}
    assert {path for path in some.parent.iterdir() if path.is_file()} == named
    assert (some.parent / "a folder of somebody's").is_dir()


def test_a_pinned_checkpoint_stays_pinned_when_it_is_the_latest_of_the_next_run_too(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """A close without a step writes the latest weights again, under the same number."""
    settings, minute = copy_home(venue_home), timedelta(minutes=1)
    until = datetime(2024, 3, 1, 1, 0, tzinfo=UTC)
    learn(settings, settings.streams[0], "transformer", until)
    latest = table(settings, "checkpoints", "checkpoint_id")["checkpoint_id"].max()
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        con.execute("update checkpoints set is_pinned = true where is_latest")
    learn(settings, settings.streams[0], "transformer", until + minute)
    learn(settings, settings.streams[0], "transformer", until + timedelta(hours=2))
    checkpoints = table(settings, "checkpoints", "checkpoint_id")
    assert flagged(checkpoints, "is_pinned") == [latest]
    assert checkpoints.filter("is_pinned")["evicted_at"].to_list() == [None]


# What nothing deletes -------------------------------------------------------------------------------------------------

# Every row stays as it was written.
ONLY_GROW = {
    *("candle_revisions", "refused_candles", "pivots", "schemas", "inference_references", "hidden_states", "decisions"),
    *("outcomes", "trend_validations", "training_steps", "experiences", "promotions", "drifts", "timings"),
}
# A row stays, by these columns, and is brought up to date.
BROUGHT_UP_TO_DATE = {
    "candles": ("venue", "symbol", "timeframe", "open_time"),  # a correction: the old values are in candle_revisions
    "indicators": ("venue", "symbol", "timeframe", "open_time"),
    "scores": ("model", "day", "target", "predictor"),
    "refused_frames": ("model", "day", "block", "need"),
    "learned_until": ("model", "venue", "symbol", "timeframe"),
    "model_failures": ("model", "venue", "symbol", "timeframe", "error"),
    "gate_states": ("venue", "symbol", "timeframe"),
    "warehouse_version": (),
}
# `checkpoints` lose those that are told apart above. `pivot_states` keep one a month. `gaps` lose what comes late after
# all. `order_book` and `sweeps` are empty here: a row of theirs makes room for one about the same second or sweep.
OTHERS = {"checkpoints", "pivot_states", "gaps", "order_book", "sweeps"}


def everything(settings: Settings) -> dict[str, pl.DataFrame]:
    """All tables of a home."""
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
        names = [name for (name,) in con.execute("select table_name from duckdb_tables()").fetchall()]
        return {name: select(con, f"select * from {name}") for name in names}


def rows_of(frame: pl.DataFrame, *names: str) -> set[str]:
    return {repr(row) for row in (frame.select(names) if names else frame).iter_rows()}


def segments_of(settings: Settings) -> set[str]:
    return {path.name for path in settings.home.rglob("*-candles.jsonl")}


def test_nothing_is_deleted_that_a_reference_needs_by_a_backfill_by_closes_that_are_lived_or_by_a_promotion(
    venue_home: Settings, tmp_path: Path
):
    """Trap 31: no retention but that of checkpoints exists, and every table is named here, so that none comes unseen.

    Of all references, the pending ones among them, the frame is gathered again and has the digest that it had. The
    venue corrects a candle at 04:03:54, and there is a look at whether the learner is to serve a minute later.
    """
    quick = {"models": ("cnn", "dqn"), "lookback": 60, "warmup": 60, "train_every": 15, "promote_every": 193}
    settings = venue_home.model_copy(update={"home": tmp_path / "home", "trend_ttl": 10, **quick})
    stream, start, minute = settings.streams[0], datetime(2024, 2, 29, 14, tzinfo=UTC), timedelta(minutes=1)
    moments = [start, start + 500 * minute, start + 840 * minute, *(start + n * minute for n in range(841, 848))]
    compared = [start + n * minute for n in (840, 844, 845, 847)]  # after a backfill, a correction, a look and a word
    before, segments = dict[str, pl.DataFrame](), set[str]()
    for since, until in pairwise(moments):
        land(settings, Window(start=since, end=until))
        advanced(settings, until, leave_pivots=False)
        if until == moments[-2]:
            set_serving(settings, "cnn", stream, 10)
        if until not in compared:
            continue
        after = everything(settings)
        assert after.keys() == ONLY_GROW | BROUGHT_UP_TO_DATE.keys() | OTHERS
        for name, frame in before.items():
            if name in ONLY_GROW:
                assert rows_of(frame) <= rows_of(after[name]), name
            elif name in BROUGHT_UP_TO_DATE:
                columns = BROUGHT_UP_TO_DATE[name]
                assert rows_of(frame, *columns) <= rows_of(after[name], *columns), name
        assert segments <= segments_of(settings)
        before, segments = after, segments_of(settings)
    assert len(segments) == len(moments) - 1
    assert not before["candle_revisions"].is_empty()
    assert {"first", "by hand"} <= set(before["promotions"]["outcome"])
    assert before["timings"]["stage"].n_unique() == 3
    shutil.rmtree(settings.tape_path)
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)
    for model in settings.models:
        made = before["inference_references"].filter(model=model).sort("made_at")
        pending = made.join(before["trend_validations"], on="inference_id", how="anti")
        assert len(made) > len(pending) > 0
        rows = made["made_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1
        with warehouse.reading() as con:
            shape = shape_of(settings, stream, model)
            blocks = recall_blocks(con, settings, stream, shape, int(rows[0]), int(rows[-1]) + 1)
        assert np.array_equal(blocks.digests(rows), made["digest"].to_numpy())
