"""Frames of many blocks from end to end: two markets, two timeframes, the book, pivots, and models that read another.

The simulated venue of seed 19 corrects ETH/USDT at 04:03:54, in the minute of 03:59 and in the hour of 03:00, which has
closed before and whose next close is an hour away. Three minutes of BTC/USDT are held back, the book begins at 03:20.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hindsight.configured import schema_of, shape_of
from hindsight.errors import FrameRefused, SchemaMismatch
from hindsight.exchange.simulated import SimulatedVenue
from hindsight.inference.blocks import Blocks, Frame, check_frame
from hindsight.inference.frames import COLUMN, Tape
from hindsight.inference.shape import FrameShape, frame_shape
from hindsight.learn import learn, learn_live
from hindsight.market.streams import Stream, Window, floor_to, to_ms
from hindsight.recall_blocks import known_until, recall_blocks
from hindsight.record import record_candles, record_indicators, record_pivots
from hindsight.remake import remake
from hindsight.settings import Settings, load
from hindsight.store import tape as tapes
from hindsight.store.book_tables import write_order_book
from hindsight.store.learning_questions import sampled_references
from hindsight.store.market_tables import pivot_mark
from hindsight.store.rows import select
from hindsight.store.summaries import checkpoints_held
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_order, model_of
from hindsight.verify import references_not_resolving

MINUTE, HOUR, SECOND = timedelta(minutes=1), timedelta(hours=1), timedelta(seconds=1)
TABLES = {
    "inference_references": "model, made_at",
    "hidden_states": "model, made_at",
    "outcomes": "model, settled_at, made_at, kind",
    "trend_validations": "model, settled_at, made_at",
    "training_steps": "model, step",
    "refused_frames": "model, first_at, block",
    "scores": "model, day, target, predictor",
    "learned_until": "model",
    "schemas": "schema_hash",
    "promotions": "model, event_time",
}
FRAME = ("own=30", "1h=8", "BTC/USDT 1m=20", "book=30", "pivots=2")
PACKAGE = '''
"""Two models that read the CNN: one that can do without it, and one that cannot and has a metric of its own."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hindsight.inference.completeness import BOOK
from hindsight.inference.predictions import BUY
from hindsight.training.metrics import Measured, Metric
from hindsight.training.models.opinion import Opinion
from hindsight.training.models.registry import Model
from hindsight.training.views import sizes_of, views


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    width: int = 4


class Listener(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.shape, sizes = shape, sizes_of(shape)
        self.hidden = nn.Linear(sum(channels for _, channels in sizes.sequences) + sizes.context, config.width)
        self.heads = Opinion(config.width)

    def forward(self, frame):
        seen = views(frame, self.shape)
        return self.heads(self.hidden(torch.cat([*(each[:, -1] for each in seen.sequences), seen.context], dim=1)))


def hits(labels, memory, hyper, row, window):
    candle = labels.candle
    settled = (candle.settled <= row) & (candle.settled > row - window)
    at = np.flatnonzero(memory.made & candle.usable & settled)
    right = (memory.predictions[at, BUY] > 0.5) == (candle.log_returns[at, 3] > 0)
    return Measured(float(right.mean()) if len(at) else float("nan"), len(at))


HITS = Metric(name="hit rate", direction="higher", measure=hits)
LISTENER = Model(config=Config(), build=Listener, reads=("cnn",))
STRICT = Model(config=Config(), build=Listener, reads=("cnn",), optional=(BOOK,), metric=HITS)
'''
ENTRY_POINTS = "[hindsight.models]\nlistener = listeners:LISTENER\nstrict = listeners:STRICT\n"


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2024-03-01T{text}").replace(tzinfo=UTC)


START, END, GAP, BOOK_SINCE = at("01:30"), at("06:20"), at("05:10"), at("03:20")
HOURS_SINCE = at("00:00") - timedelta(days=3)


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package with models, where Python finds it."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "listeners.py").write_text(PACKAGE)
    installed = folder / "listeners-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: listeners\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    sys.path.insert(0, str(folder))
    model_of.cache_clear()
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("listeners", None)
    model_of.cache_clear()


def settings_in(home: Path, **changed: object) -> Settings:
    chosen = {
        "symbols": ("ETH/USDT", "BTC/USDT"),
        "timeframes": ("1m", "1h"),
        "predicted": ("ETH/USDT 1m",),
        "models": ("listener", "strict", "cnn"),
        "frame": FRAME,
        "warmup": 10,
        "predict_every": 1,
        "train_every": 15,
        "batch_size": 8,
        "replay_window": 1000,
        "trend_ttl": 60,
        "score_window": 60,
        "snapshot_every": 10,
        "promote_every": 100,
        "retrain_steps": 0,
        "simulated_seed": 19,
        "device": "cpu",
        "lock_timeout_seconds": 30.0,
    }
    return load(home=home, source="simulated", **chosen | changed)


def warehouse_of(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


class Venue:
    """The simulated venue without some minutes of BTC/USDT."""

    def __init__(self) -> None:
        self.whole = SimulatedVenue(19, 0.3)

    def candles(self, stream: Stream, window: Window) -> Iterator[pl.DataFrame]:
        held_back = pl.col("open_time").is_between(GAP, GAP + 3 * MINUTE, closed="left")
        for frame in self.whole.candles(stream, window):
            yield frame.filter(~held_back) if (stream.symbol, stream.timeframe) == ("BTC/USDT", "1m") else frame


def record(settings: Settings, start: datetime, end: datetime) -> None:
    """What the venue delivers in (start, end], as it would stand in the tables at `end`."""
    warehouse, venue = warehouse_of(settings), Venue()
    for stream in settings.streams:
        since = HOURS_SINCE if stream.timeframe == "1h" and start == START else floor_to(start, stream.step)
        window = Window(start=since, end=end)
        record_candles(warehouse, venue, stream, window, end)
        record_indicators(warehouse, stream, window)
        record_pivots(warehouse, stream, end, max_gap=settings.max_gap)
    if end > BOOK_SINCE:
        second = Stream(venue=settings.venue, symbol="ETH/USDT", timeframe="1s")
        with warehouse.writing() as con:
            for frame in venue.whole.order_book(second, Window(start=max(start, BOOK_SINCE), end=end)):
                write_order_book(con, frame)


def teach(settings: Settings, until: datetime) -> None:
    """Every model up to `until`, one after the other, as a backfill does."""
    for model in in_order(settings.models):
        learn(settings, settings.predicted_streams[0], model, until)


def teach_live(settings: Settings, now: datetime) -> None:
    """Every model predicts from the newest close, and then learns from it, as a live run does."""
    stream = settings.predicted_streams[0]
    lessons = [
        learn_live(settings, stream, model, lambda: now, leave_pivots=False) for model in in_order(settings.models)
    ]
    for _ in ("predict", "learn"):
        for lesson in lessons:
            next(lesson, None)
    for lesson in lessons:
        lesson.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, package: None) -> Settings:
    """The market, recorded in one range; nothing is learned yet."""
    settings = settings_in(tmp_path_factory.mktemp("recorded"))
    record(settings, START, END)
    return settings


@pytest.fixture(scope="module")
def learned(recorded: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same, learned in one range."""
    home = tmp_path_factory.mktemp("learned") / "home"
    shutil.copytree(recorded.home, home)
    settings = recorded.model_copy(update={"home": home})
    teach(settings, END)
    return settings


@pytest.fixture
def contents(table: Callable) -> Callable[[Settings], dict[str, pl.DataFrame]]:
    """Reads all tables that learning fills."""

    def read(settings: Settings) -> dict[str, pl.DataFrame]:
        found = {name: table(settings, name, order) for name, order in TABLES.items()}
        snapshots = table(settings, "checkpoints", "model, checkpoint_id").filter("is_snapshot")
        found["checkpoints"] = snapshots.drop("is_latest", "is_serving")  # those depend on where a run ended
        return found

    return read


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    """To the bit."""
    for name, frame in expected.items():
        assert len(found[name]) == len(frame), name
        different = [column for column in frame.columns if not found[name][column].equals(frame[column])]
        assert not different, f"{name}: {different}"


def blocks_at(settings: Settings, moment: datetime, model: str = "cnn") -> Blocks:
    """The blocks of the frame that is made at `moment`, as the tables stand."""
    stream = settings.predicted_streams[0]
    row = to_ms(moment) // stream.step_ms - 1
    with warehouse_of(settings).reading() as con:
        return recall_blocks(con, settings, stream, shape_of(settings, stream, model), row, row + 1)


def frame_at(settings: Settings, moment: datetime, model: str = "cnn") -> Frame[np.ndarray]:
    blocks = blocks_at(settings, moment, model)
    row = to_ms(moment) // blocks.own.step_ms - 1
    return blocks.gather(np.array([row]), np.ones((1, 4), np.float32))


def digest_at(settings: Settings, moment: datetime, model: str = "cnn") -> int:
    blocks = blocks_at(settings, moment, model)
    return int(blocks.digests(np.array([to_ms(moment) // blocks.own.step_ms - 1]))[0])


def bytes_of(frame: Frame[np.ndarray]) -> list[bytes]:
    return [block.tobytes() for block in frame.seen]


def digests_of(settings: Settings, table: Callable) -> dict[tuple[str, datetime], int]:
    found = table(settings, "inference_references", "model, made_at").select("model", "made_at", "digest")
    return {(model, made_at): digest for model, made_at, digest in found.iter_rows()}


def plant(settings: Settings, sql: str, **params: object) -> None:
    with warehouse_of(settings).writing() as con:
        con.execute(sql, params)


# What the whole is made of -------------------------------------------------------------------------------------------


def test_the_market_holds_what_the_tests_need(learned: Settings, contents: Callable):
    found = contents(learned)
    made = found["inference_references"]
    assert made.group_by("model").len().sort("model").rows() == [("cnn", 180), ("listener", 180), ("strict", 178)]
    assert made["made_at"].min() == at("02:49")  # 50 candles make the first row warm, and 29 more the frame
    assert set(found["training_steps"]["trigger"]) == {"candle", "pivot"}
    assert set(found["training_steps"]["model"]) == {"cnn", "listener", "strict"}
    assert len(found["hidden_states"]) == len(made)
    assert set(found["promotions"]["outcome"]) >= {"first"}
    with warehouse_of(learned).reading() as con:
        corrected = select(con, "select * from candle_revisions where symbol = 'ETH/USDT' order by timeframe")
    assert corrected["timeframe"].to_list() == ["1h", "1m"]
    assert set(corrected["superseded_at"]) == {at("04:03:54")}


def test_every_block_is_there_and_none_is_read_from_another_market(learned: Settings):
    frame = frame_at(learned, at("04:30"), "listener")
    check_frame(frame, shape_of(learned, learned.predicted_streams[0], "listener"))
    assert [block.shape[1:] for block in frame.seen] == [
        (30, 43),
        (8, 43),
        (20, 43),
        (30, 45),
        (10, 2, 5),
        (1, 6),
        (64,),
    ]
    close = [block[0, :, COLUMN["close"]] for block in frame.candles]
    assert all(np.isfinite(each).all() for each in close)
    assert 1000 < close[0].min() < close[0].max() < 10_000 < close[2].min()
    assert abs(close[0][0] / close[1][-1] - 1) < 0.02
    for block in (frame.book, *frame.hidden, frame.outputs, frame.pivots[:, :4]):
        assert np.isfinite(block).any()


def test_the_schema_of_each_model_names_its_blocks_and_whom_it_reads(learned: Settings, contents: Callable):
    schemas = {hash_: FrameShape.parse(shape) for hash_, shape, _ in contents(learned)["schemas"].iter_rows()}
    stream = learned.predicted_streams[0]
    assert len(schemas) == 2  # the two that read share a shape and a configuration
    for model in learned.models:
        shape = schemas[schema_of(learned, stream, model)]
        assert list(map(str, shape.candles)) == ["ETH/USDT 1m", "ETH/USDT 1h", "BTC/USDT 1m"]
        assert [read.model for read in shape.reads] == ([] if model == "cnn" else ["cnn"])
    assert set(contents(learned)["inference_references"]["schema_hash"]) == set(schemas)


def test_each_model_is_ranked_by_the_metric_that_it_brings(learned: Settings, contents: Callable):
    found = contents(learned)
    for model, metric, direction in (("listener", "log loss", "lower"), ("strict", "hit rate", "higher")):
        taken = found["checkpoints"].filter(pl.col("model") == model)
        assert set(taken.select("metric", "direction").rows()) == {(metric, direction)}
        ranked = taken.sort("metric_value", "checkpoint_id", descending=[direction == "higher", False])
        best = ranked["checkpoint_id"].head(learned.checkpoints_kept).to_list()
        assert sorted(best) == taken.filter("is_best")["checkpoint_id"].to_list()
        with warehouse_of(learned).reading() as con:
            held = checkpoints_held(con).filter(model=model, is_best=True)
        assert held["checkpoint_id"].to_list() == best
    last = taken.row(-1, named=True)
    candle = (pl.col("kind") == "candle") & (pl.col("model") == "strict")
    since = last["event_time"] - learned.score_window * MINUTE
    answered = found["outcomes"].filter(candle, pl.col("settled_at").is_between(since, last["event_time"], "right"))
    assert last["scored"] == len(answered.filter(status="settled")) > 50
    assert 0 < last["metric_value"] < 1


# Backfill equals live ------------------------------------------------------------------------------------------------


def test_history_of_many_blocks_learned_in_any_pieces_is_history_learned_in_one(
    recorded: Settings, learned: Settings, copy_home: Callable, contents: Callable
):
    """Counts of refused closes and states of other models among it: nothing depends on where it was cut."""
    settings = copy_home(recorded)
    cuts = [
        at("02:59"),
        at("03:01"),
        at("03:20"),
        *(at("03:58") + n * MINUTE for n in range(9)),
        at("05:11"),
        at("05:13"),
    ]
    for until in [*cuts, at("05:44"), END]:
        teach(settings, until)
    assert_same(contents(settings), contents(learned))


def test_history_of_many_blocks_recorded_and_learned_live_is_history_learned_in_one(
    recorded: Settings, learned: Settings, contents: Callable, tmp_path: Path
):
    """Close by close where an hour closes and is corrected, and where a market falls silent; wide in between."""
    settings = recorded.model_copy(update={"home": tmp_path / "live", "models": ("listener", "cnn")})
    live = [(at("03:58"), at("04:05")), (at("05:10"), at("05:14")), (at("05:42"), at("05:44"))]
    moments = [START, at("03:25")]
    for since, until in live:
        moments += [since + n * MINUTE for n in range((until - since) // MINUTE + 1)]
    for start, end in pairwise([*moments, END]):
        record(settings, start, end)
        if any(since < end <= until for since, until in live):
            teach_live(settings, end)
        else:
            teach(settings, end)
    found, expected = contents(settings), contents(learned)
    # A silent market says nothing until its next candle: its closes are waited for, and then told of late.
    late = found["hidden_states"].filter(pl.col("available_at") > pl.col("made_at"))
    assert set(late["made_at"]) <= {GAP + n * MINUTE for n in (1, 2, 3)}
    taught = pl.col("model").is_in(settings.models)
    assert_same(found, {name: each if name == "schemas" else each.filter(taught) for name, each in expected.items()})


# No look-ahead -------------------------------------------------------------------------------------------------------


def test_at_04_34_56_the_last_hour_opens_at_03_00(recorded: Settings, copy_home: Callable):
    """Trap 5, from the tables of real streams: a second, the minute and the hour that contain it."""
    settings = copy_home(recorded)
    second = Stream(venue=settings.venue, symbol="ETH/USDT", timeframe="1s")
    warehouse, window = warehouse_of(settings), Window(start=at("04:30"), end=at("04:36"))
    record_candles(warehouse, Venue(), second, window, window.end)
    record_indicators(warehouse, second, window)
    record_pivots(warehouse, second, window.end, max_gap=3)
    shape = frame_shape(("own=20", "1m=20", "1h=8"), second, lookback=20, warmup=10)
    row = to_ms(at("04:34:56")) // 1000 - 1
    with warehouse.reading() as con:
        frame = recall_blocks(con, settings, second, shape, row, row + 1).gather(np.array([row]), np.ones((1, 4)))
        for block, stream, opens in zip(
            frame.candles, shape.streams(settings.venue), ("04:34:55", "04:33", "03:00"), strict=True
        ):
            stored = select(
                con,
                "select open, high, low, close from candles where symbol = $symbol and timeframe = $timeframe"
                " and open_time = $opens",
                symbol=stream.symbol,
                timeframe=stream.timeframe,
                opens=at(opens),
            )
            np.testing.assert_array_equal(block[0, -1, :4], np.array(stored.row(0), np.float32), err_msg=str(stream))


CUT = at("05:00")
# Per table what was known only after the cut, and what an absurd market would say of it.
ABSURD = {
    "candles": "update candles set open = 1e30, high = 1e30, low = 1e30, close = 1e30, volume = 1e30"
    " where open_time + case timeframe when '1h' then interval 1 hour else interval 1 minute end > $cut",
    "indicators": "update indicators set sma_10 = 1e30, atr_14 = 1e30, adx_14 = 1e30, obv_change = 1e30"
    " where open_time + case timeframe when '1h' then interval 1 hour else interval 1 minute end > $cut",
    "pivots": "update pivots set price = 1e30, strength = 1e30 where confirmed_at > $cut",
    "order_book": "update order_book set price = 1e30, imbalance = 1, imbalance_60 = -1 where known_at > $cut",
    "inference_references": "update inference_references set next_pivot_high = 0, action_confidence = 0.5"
    " where made_at > $cut",
    "hidden_states": "update hidden_states set state = 'absurd'::blob where made_at > $cut",
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_values_in_any_table_after_the_cut_change_no_byte_of_a_frame(
    learned: Settings, copy_home: Callable, name: str
):
    """Trap 3."""
    settings = copy_home(learned)
    plant(settings, ABSURD[name], cut=CUT)
    for moment in (at("04:00"), at("04:30"), CUT):
        for model in ("cnn", "listener"):
            assert bytes_of(frame_at(settings, moment, model)) == bytes_of(frame_at(learned, moment, model))


def test_absurd_values_after_the_cut_change_no_prediction(
    recorded: Settings, learned: Settings, copy_home: Callable, contents: Callable
):
    """Trap 3, through learning: all tables planted at once, and the models taught anew up to the cut."""
    settings = copy_home(recorded)
    for sql in ABSURD.values():
        plant(settings, sql, cut=CUT)
    teach(settings, CUT)
    found, whole = contents(settings), contents(learned)
    for name, known in (("inference_references", "made_at"), ("hidden_states", "made_at"), ("outcomes", "settled_at")):
        prefix = whole[name].filter(pl.col(known) <= CUT)
        assert len(prefix) > 200
        assert_same({name: found[name]}, {name: prefix})


def test_a_reference_needs_nothing_that_was_recorded_after_it(learned: Settings, table: Callable, tmp_path: Path):
    """DESIGN §3.1: a home that never heard of what came later has made the same references to the bit."""
    settings = learned.model_copy(update={"home": tmp_path / "part"})
    record(settings, START, at("04:02"))
    teach(settings, at("04:02"))
    whole = digests_of(learned, table)
    found = digests_of(settings, table)
    assert found == {key: digest for key, digest in whole.items() if key[1] <= at("04:02")}
    assert len(found) > 180


# What is missing -----------------------------------------------------------------------------------------------------


def test_a_missing_part_is_named_with_how_many_of_how_many_and_its_closes_are_refused_and_counted(
    learned: Settings, contents: Callable
):
    """Traps 18 and 19: three minutes of another market stop predictions of this one until they are far enough away."""
    found = contents(learned)
    refused = found["refused_frames"].filter(pl.col("model") == "cnn").sort("first_at")
    columns = ("block", "need", "fewest", "closes", "first_at", "last_at")
    assert refused.select(columns).rows() == [
        ("candles ETH/USDT 1m", 30, 0, 78, at("01:31"), at("02:48")),
        ("candles BTC/USDT 1m", 20, 7, 32, at("05:11"), at("05:42")),
    ]
    made = found["inference_references"].filter(pl.col("model") == "cnn")["made_at"]
    assert len(made) + refused["closes"].sum() == (END - START) // MINUTE
    assert not made.is_between(at("05:11"), at("05:42")).any()
    assert made.is_in([at("05:10"), at("05:43")]).sum() == 2


def test_without_a_recorded_book_a_frame_is_masked_and_a_prediction_made(learned: Settings):
    """Trap 20: a backfill has no past of the book; it is NaN in the frame, and never zero."""
    before, after = (frame_at(learned, moment).book for moment in (BOOK_SINCE, BOOK_SINCE + MINUTE))
    assert np.isnan(before).all()
    assert np.isfinite(after[..., -1]).mean() > 0.9


def test_a_model_that_cannot_do_without_another_is_refused_where_that_one_said_nothing(
    learned: Settings, contents: Callable
):
    """Trap 30: the first close of the CNN has no close before it; after the gap its last word is too old."""
    refused = contents(learned)["refused_frames"].filter(pl.col("model") == "strict").sort("first_at")
    assert refused.select("block", "closes", "first_at", "last_at").rows() == [
        ("candles ETH/USDT 1m", 78, at("01:31"), at("02:48")),
        ("outputs of cnn", 2, at("02:49"), at("05:43")),
        ("candles BTC/USDT 1m", 32, at("05:11"), at("05:42")),
    ]


def test_a_frame_of_another_shape_is_refused_with_what_was_expected_and_found(learned: Settings):
    frame = frame_at(learned, at("04:30"), "listener")
    shape = shape_of(learned, learned.predicted_streams[0], "cnn")
    with pytest.raises(FrameRefused, match="expected 3 blocks of candles and 0 hidden states, found 3 and 1"):
        check_frame(frame, shape)
    longer = shape_of(learned.model_copy(update={"frame": ("own=40", *FRAME[1:])}), learned.predicted_streams[0], "cnn")
    with pytest.raises(FrameRefused, match=r"block ETH/USDT 1m: expected float32 \[1, 40, 43\], found .*\[1, 30, 43\]"):
        check_frame(frame_at(learned, at("04:30")), longer)


# Models that read another --------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(recorded: Settings, tmp_path: Path) -> Settings:
    """A home learned up to 03:30 and recorded up to 03:31."""
    settings = recorded.model_copy(update={"home": tmp_path / "waiting", "models": ("listener", "cnn")})
    record(settings, START, at("03:30"))
    teach(settings, at("03:30"))
    record(settings, at("03:30"), at("03:31"))
    return settings


def predict_live(settings: Settings, model: str, now: datetime) -> datetime | None:
    """The newest close that `model` has predicted from at `now`; None where it had nothing to do."""
    lesson = learn_live(settings, settings.predicted_streams[0], model, lambda: now, leave_pivots=False)
    report = next(lesson, None)
    for _ in lesson:
        pass
    return report.until if report else None


def test_a_model_waits_for_the_one_it_reads_until_the_deadline_and_then_goes_on_without(waiting: Settings):
    """Trap 30: a mask, not a deadlock."""
    close, deadline = at("03:31"), timedelta(seconds=waiting.peer_deadline_seconds)
    for moment in (close, close + SECOND, close + deadline - timedelta(milliseconds=1)):
        assert predict_live(waiting, "listener", moment) is None
    assert predict_live(waiting, "listener", close + deadline) == close
    frame = frame_at(waiting, close, "listener")
    assert np.isnan(frame.hidden[0]).all()
    assert frame.outputs[0, 0, -1] == 1  # what it said of the close before is there


def test_a_model_goes_on_as_soon_as_the_one_it_reads_has_spoken(waiting: Settings):
    close = at("03:31")
    assert predict_live(waiting, "listener", close + SECOND) is None
    assert predict_live(waiting, "cnn", close + SECOND) == close
    assert predict_live(waiting, "listener", close + SECOND) == close
    assert np.isfinite(frame_at(waiting, close, "listener").hidden[0]).all()


def test_a_state_that_came_too_late_stays_masked_for_whoever_looks_later(waiting: Settings, table: Callable):
    """Trap 30, and trap 32: the frame of 03:31 has the bytes that it had, after the CNN has spoken, and for good."""
    close = at("03:31")
    assert predict_live(waiting, "listener", close + 6 * SECOND) == close
    before = bytes_of(frame_at(waiting, close, "listener"))
    assert predict_live(waiting, "cnn", close + 7 * SECOND) == close
    assert bytes_of(frame_at(waiting, close, "listener")) == before
    record(waiting, close, at("03:40"))
    teach(waiting, at("03:40"))
    frame = frame_at(waiting, close, "listener")
    assert bytes_of(frame) == before
    assert np.isnan(frame.hidden[0]).all()
    after = frame_at(waiting, close + MINUTE, "listener")
    assert after.outputs[0, 0, -1] == 2  # and of 03:31 nothing is read at 03:32: it was too late for that as well
    assert np.isfinite(after.hidden[0]).all()
    with warehouse_of(waiting).reading() as con:
        window = Window(start=START, end=at("03:40"))
        assert references_not_resolving(waiting, con, waiting.predicted_streams[0], window).is_empty()


def test_another_deadline_changes_no_frame_of_the_past(waiting: Settings):
    """Trap 32: what came after 7 s was masked under a deadline of 5, and stays so for whoever sets 10."""
    close, stream = at("03:31"), waiting.predicted_streams[0]
    assert predict_live(waiting, "listener", close + 6 * SECOND) == close
    assert predict_live(waiting, "cnn", close + 7 * SECOND) == close
    patient = waiting.model_copy(update={"peer_deadline_seconds": 10.0})
    assert schema_of(patient, stream, "listener") != schema_of(waiting, stream, "listener")
    with warehouse_of(waiting).reading() as con:
        window = Window(start=close - MINUTE, end=close)
        assert references_not_resolving(patient, con, stream, window).is_empty()
        assert len(sampled_references(con, stream, window)) == 2


def test_a_model_that_reads_one_that_has_not_begun_is_not_due_in_a_backfill(recorded: Settings, copy_home: Callable):
    settings = copy_home(recorded)
    stream = settings.predicted_streams[0]
    assert learn(settings, stream, "listener", END).closes == 0
    learn(settings, stream, "cnn", at("02:55"))
    assert learn(settings, stream, "listener", END).until == at("02:55")


def test_a_model_reads_those_that_are_set_and_no_others(recorded: Settings, copy_home: Callable, table: Callable):
    settings = copy_home(recorded, models=("listener",))
    teach(settings, at("02:59"))
    made = table(settings, "inference_references", "made_at")
    assert len(made) == 11
    assert set(made["schema_hash"]) == {schema_of(settings, settings.predicted_streams[0], "listener")}
    assert shape_of(settings, settings.predicted_streams[0], "listener").reads == ()


# What is waited for --------------------------------------------------------------------------------------------------


def test_a_close_waits_until_every_stream_of_its_frame_has_said_what_it_knows(recorded: Settings, tmp_path: Path):
    settings = recorded.model_copy(update={"home": tmp_path / "behind", "models": ("cnn",)})
    record(settings, START, at("03:55"))
    own, shape = settings.predicted_streams[0], shape_of(settings, settings.predicted_streams[0], "cnn")
    only = {"symbols": ("ETH/USDT",), "timeframes": ("1m",)}
    record(settings.model_copy(update=only), at("03:55"), at("04:05"))  # without the other market, and without the hour

    def known() -> datetime | None:
        with warehouse_of(settings).reading() as con:
            found = known_until(con, settings, own, shape, None)
        return found and found.replace(second=0, microsecond=0)

    assert known() == at("03:55")  # BTC/USDT has not said what happened after
    learn(settings, own, "cnn", END)
    btc = {"symbols": ("BTC/USDT",), "timeframes": ("1m",)}
    record(settings.model_copy(update=btc), at("03:55"), at("04:05"))
    assert known() == at("03:59")  # at 04:00 an hour closes
    assert learn(settings, own, "cnn", END).until == at("03:59")
    record(settings.model_copy(update={"timeframes": ("1h",)}), at("03:55"), at("04:05"))
    assert known() == at("04:05")


# Corrections ---------------------------------------------------------------------------------------------------------


def hour_at(settings: Settings, moment: datetime) -> np.ndarray:
    """The last hour in the frame made at `moment`."""
    return frame_at(settings, moment).candles[1][0, -1]


def test_a_correction_of_an_hour_is_in_the_frames_made_after_it_was_known_and_in_none_before(
    learned: Settings, copy_home: Callable
):
    """Trap 32: known at 04:03:54, between two closes of the hour, whatever the tape on disk has come to since."""
    first, corrected = hour_at(learned, at("04:03")), hour_at(learned, at("04:04"))
    assert first.tobytes() != corrected.tobytes()
    with warehouse_of(learned).reading() as con:
        sql = "select volume from {} where timeframe = '1h' and symbol = 'ETH/USDT' and open_time = $opens"
        before, after = (
            select(con, sql.format(name), opens=at("03:00"))["volume"].item()
            for name in ("candle_revisions", "candles")
        )
    assert (first[COLUMN["volume"]], corrected[COLUMN["volume"]]) == (np.float32(before), np.float32(after))
    for minute in range(4):
        np.testing.assert_array_equal(hour_at(learned, at("04:00") + minute * MINUTE), first)
    for moment in (at("04:05"), at("04:59")):
        np.testing.assert_array_equal(hour_at(learned, moment), corrected)
    settings = copy_home(learned)
    for file in settings.tape_path.rglob("*.f32"):
        file.unlink()
    for moment in (at("04:59"), at("04:03"), at("04:04"), at("04:00")):  # the newest first: the file is ahead then
        expected = first if moment < at("04:03:54") else corrected
        np.testing.assert_array_equal(hour_at(settings, moment), expected)


def test_a_correction_after_a_reference_was_made_changes_no_digest_and_one_before_does(
    learned: Settings, table: Callable, copy_home: Callable
):
    """Trap 32: of an hour and a minute that frames hold, known at 05:50:30."""
    settings, known_at = copy_home(learned), at("05:50:30")
    for timeframe, opens in (("1h", at("02:00")), ("1m", at("05:30"))):
        correct(settings, timeframe, opens, known_at)
    shutil.rmtree(settings.tape_path)  # it is of tables that had not heard of it
    before, after = at("05:50"), at("05:51")
    assert bytes_of(frame_at(settings, before)) == bytes_of(frame_at(learned, before))
    changed, same = (frame_at(each, after).candles for each in (settings, learned))
    assert [one.tobytes() != other.tobytes() for one, other in zip(changed, same, strict=True)] == [True, True, False]
    stored = digests_of(learned, table)
    for moment in (at("02:49"), at("03:01"), at("05:10"), at("05:43"), before):
        assert digest_at(settings, moment) == stored["cnn", moment]
    for moment in (after, at("06:05"), END):
        assert digest_at(settings, moment) != stored["cnn", moment]


def correct(settings: Settings, timeframe: str, opens: datetime, known_at: datetime) -> None:
    """A correction of one candle of ETH/USDT, as recording would have left it."""
    keys = {"timeframe": timeframe, "opens": opens, "known_at": known_at}
    chosen = "symbol = 'ETH/USDT' and timeframe = $timeframe and open_time = $opens"
    plant(
        settings,
        "insert into candle_revisions select venue, symbol, timeframe, open_time, open, high, low, close, volume,"
        f" revision, recorded_at, $known_at from candles where {chosen}",
        **keys,
    )
    plant(
        settings,
        f"update candles set volume = volume + 1000, revision = revision + 1, recorded_at = $known_at where {chosen}",
        **keys,
    )
    stream = Stream(venue=settings.venue, symbol="ETH/USDT", timeframe=timeframe)
    record_indicators(warehouse_of(settings), stream, Window(start=opens, end=END))


def tape_of_hours(settings: Settings, end: datetime, moment: datetime) -> Tape:
    stream = Stream(venue=settings.venue, symbol="ETH/USDT", timeframe="1h")
    with warehouse_of(settings).reading() as con:
        mark = pivot_mark(con, stream)
        assert mark is not None
        window = Window(start=end - 8 * HOUR, end=end)
        return tapes.load(con, settings.tape_path, stream, window, mark.since, moment)


def test_a_tape_is_as_it_was_known_at_an_instant_between_two_of_its_closes(recorded: Settings, copy_home: Callable):
    """Whichever instant is asked for first: the file is derived from the tables, and never decides."""
    for order in ((at("04:02"), at("04:30")), (at("04:30"), at("04:02"))):
        settings = copy_home(recorded)
        found = {moment: tape_of_hours(settings, at("04:00"), moment) for moment in order}
        assert found[at("04:02")].superseded == []
        (late,) = found[at("04:30")].superseded
        assert (late.until_ms, len(late.rows)) == (to_ms(at("04:03:54")), 1)
        np.testing.assert_array_equal(late.rows[-1], found[at("04:02")].rows[-1])
        assert found[at("04:30")].rows[-1].tobytes() != late.rows[-1].tobytes()
        whole = tape_of_hours(settings, at("06:00"), at("06:00"))
        np.testing.assert_array_equal(whole.rows[-3], found[at("04:30")].rows[-1])


# Another frame -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"frame": ("own=40", *FRAME[1:])}, id="length"),
        pytest.param({"frame": (*FRAME[:2], "BTC/USDT 1h=8", *FRAME[3:])}, id="timeframe"),
        pytest.param({"frame": (*FRAME[:1], *FRAME[3:])}, id="symbol"),
        pytest.param({"warmup": 12}, id="warmup"),
    ],
)
def test_another_frame_begins_a_lineage_of_its_own_and_the_older_references_still_resolve(
    recorded: Settings, copy_home: Callable, table: Callable, changed: dict
):
    """Trap 29: no error, and nothing has to be deleted; each reference is shown by the shape that it was made with."""
    settings = copy_home(recorded, models=("cnn",))
    stream = settings.predicted_streams[0]
    teach(settings, at("04:10"))
    other = settings.model_copy(update=changed)
    assert schema_of(other, stream, "cnn") != schema_of(settings, stream, "cnn")
    teach(other, at("05:05"))
    made = table(other, "inference_references", "made_at")
    assert set(made.filter(pl.col("made_at") > at("04:10"))["schema_hash"]) == {schema_of(other, stream, "cnn")}
    assert len(made) == (at("05:05") - at("02:49")) // MINUTE + 1
    steps = table(other, "training_steps", "step")
    assert steps["step"].to_list() == list(range(1, len(steps) + 1))
    older = made.filter(pl.col("made_at") <= at("04:10"))["inference_id"]
    newer = steps.filter(pl.col("event_time") > at("04:10"))
    used = {each for name in ("settled", "replayed") for each in newer[name].explode().drop_nulls()}
    assert len(used) > 30
    assert not used & set(older)
    with warehouse_of(other).reading() as con:
        assert references_not_resolving(other, con, stream, Window(start=START, end=END)).is_empty()
    for moment in (at("02:49"), at("04:05"), at("04:10"), at("04:11"), at("05:05")):
        (inference_id,) = made.filter(pl.col("made_at") == moment)["inference_id"]
        for asked in (settings, other):
            assert remake(asked, inference_id).is_same, moment


def test_a_reference_of_a_model_that_was_changed_since_is_refused_by_the_name_of_its_schema(
    learned: Settings, copy_home: Callable, table: Callable
):
    """Trap 29: the shape can be followed, another architecture cannot."""
    settings = copy_home(learned)
    plant(settings, "update schemas set model_config = 'cnn of the past' where model_config like 'cnn%'")
    (inference_id,) = table(settings, "inference_references", "made_at").filter(
        pl.col("model") == "cnn", pl.col("made_at") == at("04:00")
    )["inference_id"]
    with pytest.raises(SchemaMismatch, match=r"made with input schema [0-9a-f]{12} of cnn of the past, the model at"):
        remake(settings, inference_id)


def test_a_prediction_from_many_blocks_is_made_again_as_it_was(learned: Settings, table: Callable):
    """Around the correction, the gap, the start of the book, and with what another model knew."""
    made = table(learned, "inference_references", "made_at")
    for model in learned.models:
        for moment in (at("02:50"), at("03:21"), at("04:03"), at("04:04"), at("05:10"), at("05:44"), END):
            (inference_id,) = made.filter(pl.col("model") == model, pl.col("made_at") == moment)["inference_id"]
            remade = remake(learned, inference_id)
            assert remade.difference == 0, (model, moment)
            assert np.isfinite(remade.stored).all()
