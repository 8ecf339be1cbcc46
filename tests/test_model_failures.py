"""The failure of one model stops no other one: it is masked, counted, and over as soon as the model is well again.

Another package brings them: `loud` raises or hangs while a file is there, and `reader` reads it; `absent` is of a
module that cannot be imported while another file is there, and `listener` reads that one.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import hindsight.learn
from hindsight.advance import Advanced, advance, learn_from_pivots
from hindsight.errors import LearnerBusy, ModelTimedOut, ModelUnloadable, SettingRefused
from hindsight.exchange.landing import Landing
from hindsight.exchange.sources import open_source
from hindsight.lessons import Taught, learn_each
from hindsight.market.streams import Window, to_ms
from hindsight.piece import Subject
from hindsight.settings import Settings, load
from hindsight.store.failure_tables import MIXTURE, read_model_failures
from hindsight.store.inference_tables import learners_of
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_levels, may_read, model_of, unloadable
from hindsight.verify import references_not_resolving
from pipelines.backfill import run_job
from pipelines.definitions import defs
from pipelines.home.instance import open_instance
from resources.progress import silence

MINUTE = timedelta(minutes=1)
START, END = datetime(2024, 2, 29, 14, tzinfo=UTC), datetime(2024, 2, 29, 18, tzinfo=UTC)
HISTORY = START + 180 * MINUTE
QUICK = {"lookback": 60, "warmup": 60, "trend_ttl": 10, "predict_every": 1, "train_every": 15, "snapshot_every": 10}
LEARNED = {
    "inference_references": "model, made_at",
    "outcomes": "model, settled_at, made_at, kind",
    "trend_validations": "model, settled_at, made_at",
    "training_steps": "model, step",
    "learned_until": "model",
}
BRITTLE = '''
"""A model that raises or hangs while a file beside it is there, and one that reads it."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hindsight.training.models.opinion import Opinion
from hindsight.training.models.registry import Model
from hindsight.training.views import sizes_of, views

HURT, STUCK = Path(__file__).with_name("hurt"), Path(__file__).with_name("stuck")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    width: int = 4
    is_loud: bool = False


class Brittle(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.shape, self.config, sizes = shape, config, sizes_of(shape)
        self.hidden = nn.Linear(sum(channels for _, channels in sizes.sequences) + sizes.context, config.width)
        self.heads = Opinion(config.width)

    def forward(self, frame):
        if self.config.is_loud and HURT.exists():
            raise ZeroDivisionError("it hurts")
        while self.config.is_loud and STUCK.exists():
            time.sleep(0.01)
        seen = views(frame, self.shape)
        return self.heads(self.hidden(torch.cat([*(each[:, -1] for each in seen.sequences), seen.context], dim=1)))


LOUD = Model(config=Config(is_loud=True), build=Brittle)
READER = Model(config=Config(), build=Brittle, reads=("loud",))
'''
ABSENT = """
from pathlib import Path

import brittle

if Path(__file__).with_name("away").exists():
    raise ImportError("a library of its own is away")
MODEL = brittle.Model(config=brittle.Config(width=3), build=brittle.Brittle)
"""
POINTS = "loud = brittle:LOUD\nreader = brittle:READER\nabsent = absent:MODEL\nlistener = absent_too:LISTENER\n"
ABSENT_TOO = (
    "import brittle\nLISTENER = brittle.Model(config=brittle.Config(), build=brittle.Brittle, reads=('absent',))"
)


class Package:
    """What the tests do to the package of these models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_hurt(self, hurt: bool) -> None:
        self._mark("hurt", hurt)

    def is_stuck(self, stuck: bool) -> None:
        self._mark("stuck", stuck)

    def is_away(self, away: bool) -> None:
        self._mark("away", away)
        sys.modules.pop("absent", None)
        model_of.cache_clear()

    def _mark(self, name: str, there: bool) -> None:
        mark = self.folder / name
        mark.touch() if there else mark.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    """The package, where Python finds it."""
    folder = tmp_path_factory.mktemp("package")
    for name, text in (("brittle", BRITTLE), ("absent", ABSENT), ("absent_too", ABSENT_TOO)):
        (folder / f"{name}.py").write_text(text)
    info = folder / "brittle-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brittle\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hindsight.models]\n{POINTS}")
    sys.path.insert(0, str(folder))
    model_of.cache_clear()
    yield Package(folder)
    sys.path.remove(str(folder))
    for name in ("brittle", "absent", "absent_too"):
        sys.modules.pop(name, None)
    model_of.cache_clear()


def stuck(model: str) -> list[threading.Thread]:
    """The threads in which this model hangs."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{model} of ")]


@pytest.fixture
def package(installed: Package) -> Iterator[Package]:
    """The package, whose models are well before and after a test."""
    yield installed
    installed.is_hurt(False)
    installed.is_stuck(False)
    installed.is_away(False)
    for thread in stuck("loud"):
        thread.join(60)


@pytest.fixture
def fresh(venue_home: Settings, tmp_path: Path, package: Package) -> Callable[..., Settings]:
    """Makes an empty home with some models."""

    def make(name: str, *models: str) -> Settings:
        return venue_home.model_copy(update={"home": tmp_path / name, "models": models, **QUICK})

    return make


def warehouse(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


def land(settings: Settings, start: datetime, end: datetime) -> None:
    """Lands what the venue delivered in (start, end]."""
    source = open_source(settings)
    rows = [
        {
            "stream": str(stream),
            "open_time_ms": to_ms(row["open_time"]),
            **{name: row[name] for name in ("open", "high", "low", "close", "volume")},
            "known_ms": to_ms(row["recorded_at"]) if row["revision"] else None,
            "closed_by": "flag",
        }
        for stream in settings.streams
        for row in pl.concat(source.candles(stream, Window(start=START, end=end)))
        .sort("recorded_at", "open_time")
        .iter_rows(named=True)
        if start < row["recorded_at"] <= end
    ]
    Landing(settings.landing_path).write("candles", rows, to_ms(end), to_ms(end))


def live(settings: Settings, start: datetime, end: datetime) -> Advanced:
    """One call of the live path at `end`, two seconds after, for what came after `start`."""
    land(settings, start, end)
    *_, done = advance(settings, lambda: end + timedelta(seconds=2), leave_pivots=False)
    return done


def late(settings: Settings, now: datetime) -> Advanced:
    """A call that finds nothing new, once nobody waits any more for who has not spoken."""
    *_, done = advance(settings, lambda: now + timedelta(seconds=40), leave_pivots=False)
    return done


def failures(settings: Settings) -> pl.DataFrame:
    with warehouse(settings).reading() as con:
        return read_model_failures(con, settings.models)


def assert_same(one: Settings, other: Settings, models: tuple[str, ...], table: Callable) -> None:
    """What these models left, to the bit."""
    chosen = pl.col("model").is_in(models)
    for name, order in LEARNED.items():
        found, expected = (table(each, name, order).filter(chosen) for each in (one, other))
        assert len(found) == len(expected) > 0, name
        different = [column for column in expected.columns if not found[column].equals(expected[column])]
        assert not different, f"{name}: {different}"


# Live -----------------------------------------------------------------------------------------------------------------


def test_a_model_that_raises_at_some_closes_is_masked_counted_and_catches_up_by_itself(
    fresh: Callable, package: Package, table: Callable
):
    settings, without = fresh("with", "cnn", "loud", "reader"), fresh("without", "cnn")
    stream = settings.streams[0]
    for each in (settings, without):
        assert live(each, START, HISTORY).failures == {}
    hurt = [HISTORY + n * MINUTE for n in (1, 2, 3)]
    package.is_hurt(True)
    for start, end in pairwise([HISTORY, *hurt]):
        done = live(settings, start, end)
        assert list(done.failures) == [(stream, "loud")]
        assert {model: report.until for (_, model), report in done.lessons.items()} == {"cnn": end, "reader": end}
        assert done.decisions[stream].until == end  # nobody waits until the deadline for who does not come
        live(without, start, end)
    made = table(settings, "inference_references", "model, made_at")
    assert made.group_by("model").agg(pl.col("made_at").max()).sort("model").rows() == [
        ("cnn", hurt[-1]),
        ("loud", HISTORY),
        ("reader", hurt[-1]),
    ]
    decided = table(settings, "decisions", "made_at").filter(pl.col("made_at").is_in(hurt))
    assert decided["made_at"].to_list() == hurt
    share = decided.explode("models", "contributions").filter(pl.col("models") == "loud")["contributions"]
    assert share.to_list() == [0.0] * 3
    assert decided["probability"].is_not_null().all()
    (told,) = failures(settings).rows(named=True)
    assert (told["model"], told["error"], told["message"]) == ("loud", "ZeroDivisionError", "it hurts")
    assert (told["times"], told["ended_at"]) == (3, None)
    assert told["first_at"] == hurt[0] + timedelta(seconds=2)
    assert told["last_at"] == hurt[-1] + timedelta(seconds=2)

    package.is_hurt(False)
    well = [hurt[-1] + n * MINUTE for n in (1, 2)]
    for start, end in pairwise([hurt[-1], *well]):
        assert live(settings, start, end).failures == {}
        late(settings, end)
        live(without, start, end)
    learned = table(settings, "learned_until", "model")
    assert set(learned["until"]) == {well[-1]}
    made = table(settings, "inference_references", "model, made_at")
    assert made.filter(pl.col("made_at").is_in(hurt))["model"].value_counts()["count"].to_list() == [3, 3, 3]
    (told,) = failures(settings).rows(named=True)
    assert (told["times"], told["ended_at"]) == (3, well[0] + timedelta(seconds=2))
    after = table(settings, "decisions", "made_at").filter(pl.col("made_at").is_in(hurt))
    assert after.equals(decided)
    last = table(settings, "decisions", "made_at").tail(1).explode("models", "contributions")
    assert last.filter(pl.col("models") == "loud")["contributions"].item() > 0
    with warehouse(settings).reading() as con:
        assert references_not_resolving(settings, con, stream, Window(start=START, end=well[-1])).is_empty()
        # What the reader did without stays known too late.
        sql = "select made_at from hidden_states where model = 'loud' and available_at > made_at + interval 30 second"
        assert [moment for (moment,) in con.execute(f"{sql} order by made_at").fetchall()] == hurt
    assert_same(settings, without, ("cnn",), table)


def test_a_model_that_hangs_is_left_alone_rests_and_comes_back_while_the_others_decide_without_it(
    fresh: Callable, package: Package, table: Callable
):
    settings, without = fresh("with", "cnn", "loud", "reader"), fresh("without", "cnn")
    stream, closes = settings.streams[0], [HISTORY + n * MINUTE for n in range(6)]
    for each in (settings, without):
        assert live(each, START, HISTORY).failures == {}
    impatient = settings.model_copy(update={"model_timeout_seconds": 3.0, "venue_speed": 4.0})  # it rests for 2 minutes
    package.is_stuck(True)
    for start, end, is_tried, times in zip(closes, closes[1:4], (True, False, True), (1, 1, 2), strict=False):
        done = live(impatient, start, end)
        assert [type(error) for error in done.failures.values()] == [ModelTimedOut] * is_tried
        assert {model: report.until for (_, model), report in done.lessons.items()} == {"cnn": end, "reader": end}
        assert done.decisions[stream].until == end
        pivots = learn_from_pivots(impatient, [(stream, end)], lambda end=end: end + timedelta(seconds=3))
        assert pivots.failures == {}
        assert failures(settings).select("model", "error", "times", "ended_at").rows() == [
            ("loud", "ModelTimedOut", times, None)
        ]
        live(without, start, end)
    package.is_stuck(False)
    for start, end in pairwise(closes[3:]):
        assert live(impatient, start, end).failures == {}
        live(without, start, end)
    assert set(table(settings, "learned_until", "model")["until"]) == {closes[-1]}
    assert failures(settings)["ended_at"].to_list() == [closes[-1] + timedelta(seconds=2)]
    last = table(settings, "decisions", "made_at").tail(1).explode("models", "contributions")
    assert last.filter(pl.col("models") == "loud")["contributions"].item() > 0
    assert_same(settings, without, ("cnn",), table)
    with warehouse(settings).reading() as con:
        assert references_not_resolving(settings, con, stream, Window(start=START, end=closes[-1])).is_empty()


def test_where_candles_close_more_often_than_a_model_may_take_nobody_waits_for_who_hangs(
    fresh: Callable, package: Package
):
    settings = fresh("with", "cnn", "loud", "reader").model_copy(update={"timeframes": ("1s",)})
    stream, second, history = settings.streams[0], timedelta(seconds=1), START + timedelta(seconds=600)
    assert live(settings, START, history).failures == {}
    package.is_stuck(True)
    slow = settings.model_copy(update={"model_timeout_seconds": 6.0})  # of 4 candles before that all are the newest
    opened, failed = history, [ModelTimedOut]
    for close in (history + second, history + 8 * second, history + 9 * second):
        began = time.monotonic()
        land(settings, opened, close)
        *_, done = advance(slow, lambda: close + (time.monotonic() - began) * second, leave_pivots=True)  # noqa: B023
        assert [type(error) for error in done.failures.values()] == failed
        assert {model: report.until for (_, model), report in done.lessons.items()} == {"cnn": close, "reader": close}
        assert done.decisions[stream].until == close
        opened, failed = close, []


def test_a_model_that_hangs_hangs_at_most_twice_in_a_call_however_many_streams_there_are(
    fresh: Callable, package: Package
):
    settings = fresh("with", "cnn", "loud").model_copy(update={"symbols": ("ETH/USDT", "BTC/USDT", "SOL/USDT")})
    closes = [HISTORY + n * MINUTE for n in range(4)]
    assert live(settings, START, HISTORY).failures == {}
    package.is_stuck(True)
    impatient = settings.model_copy(update={"model_timeout_seconds": 4.0, "venue_speed": 10.0})
    done = live(impatient, *closes[:2])
    assert 1 <= len(done.failures) == len(stuck("loud")) <= 2
    assert {report.until for report in done.decisions.values()} == {closes[1]}
    assert len(done.decisions) == 3
    assert live(impatient, *closes[1:3]).failures == {}  # it rests on all of them


def test_a_pivot_that_is_told_while_a_model_hangs_finds_it_resting_and_of_several_pivots_one_is_tried(
    fresh: Callable, package: Package
):
    settings = fresh("with", "cnn", "loud", "reader")
    stream, closes = settings.streams[0], [HISTORY + n * MINUTE for n in range(4)]
    assert live(settings, START, HISTORY).failures == {}
    package.is_stuck(True)
    impatient = settings.model_copy(update={"model_timeout_seconds": 5.0, "venue_speed": 2.0})
    land(settings, *closes[:2])
    steps = advance(impatient, lambda: closes[1] + timedelta(seconds=2), leave_pivots=True)
    next(steps)
    pivots = [(stream, close) for close in closes[1:]]
    assert learn_from_pivots(impatient, pivots[:1], lambda: closes[1] + timedelta(seconds=3)).failures == {}
    assert list(next(steps).failures) == [(stream, "loud")]
    assert failures(settings)["times"].to_list() == [1]
    assert len(stuck("loud")) == 1
    land(settings, *closes[1:3])
    steps = advance(impatient, lambda: closes[2] + timedelta(seconds=2), leave_pivots=True)
    next(steps)
    steps.close()  # ended before it has learned
    told = learn_from_pivots(impatient, pivots[1:2], lambda: closes[2] + timedelta(seconds=3))
    assert {model: report.until for (_, model), report in told.lessons.items()} == {
        "cnn": closes[2],
        "reader": closes[2],  # what it has said itself waits for nobody
    }
    assert list(learn_from_pivots(impatient, pivots, lambda: closes[-1]).failures) == [(stream, "loud")]
    assert len(stuck("loud")) == 2


def test_steps_that_are_taken_again_may_hang_as_well(fresh: Callable, package: Package):
    settings = fresh("with", "cnn", "loud", "reader")
    stream, close = settings.streams[0], HISTORY + MINUTE
    assert live(settings, START, HISTORY).failures == {}
    kept = [file for file in settings.checkpoints_path.rglob("*.safetensors") if "loud" in file.parts]
    assert kept
    for file in kept:
        file.unlink()
    package.is_stuck(True)
    done = live(settings.model_copy(update={"model_timeout_seconds": 5.0}), HISTORY, close)
    assert [type(error) for error in done.failures.values()] == [ModelTimedOut]
    assert done.decisions[stream].until == close


def test_who_was_passed_over_predicts_for_nobody_else_before_those_that_read_it_have_stored_what_they_said_without(
    fresh: Callable, package: Package, table: Callable, monkeypatch: pytest.MonkeyPatch
):
    """Two calls at one close: in the one `loud` fails, and while its reader goes on it would be well in the other."""
    settings = fresh("with", "cnn", "loud", "reader")
    stream, close, stored = settings.streams[0], HISTORY + MINUTE, hindsight.learn.publish
    assert live(settings, START, HISTORY).failures == {}
    package.is_hurt(True)

    def in_between(subject: Subject, *given: Any) -> None:
        if subject.model == "reader":
            package.is_hurt(False)
            with pytest.raises(LearnerBusy):
                hindsight.learn.learn(settings, stream, "loud", close, clock=lambda: close + timedelta(seconds=3))
        stored(subject, *given)

    monkeypatch.setattr(hindsight.learn, "publish", in_between)
    assert list(live(settings, HISTORY, close).failures) == [(stream, "loud")]
    monkeypatch.undo()
    assert learn_from_pivots(settings, [(stream, close)], lambda: close + timedelta(seconds=4)).failures == {}
    assert set(table(settings, "learned_until", "model")["until"]) == {close}
    with warehouse(settings).reading() as con:
        assert references_not_resolving(settings, con, stream, Window(start=START, end=close)).is_empty()


def test_a_model_that_does_not_import_stops_no_other_one_also_as_the_first_and_comes_back_by_itself(
    fresh: Callable, package: Package, table: Callable
):
    settings, without = fresh("with", "absent", "listener", "cnn"), fresh("without", "cnn")
    stream, close = settings.streams[0], HISTORY + MINUTE
    package.is_away(True)
    done = live(settings, START, HISTORY)
    assert {key: type(error) for key, error in done.failures.items()} == {
        (stream, "absent"): ModelUnloadable,
        (stream, "listener"): ModelUnloadable,
    }
    assert "a library of its own is away" in str(done.failures[stream, "listener"])
    assert done.lessons[stream, "cnn"].until == HISTORY
    assert list(learn_from_pivots(settings, [(stream, HISTORY)], lambda: HISTORY).failures) == list(done.failures)
    live(without, START, HISTORY)
    assert failures(settings).select("model", "error", "times", "ended_at").sort("model").rows() == [
        ("absent", "ModelUnloadable", 2, None),
        ("listener", "ModelUnloadable", 2, None),
    ]
    package.is_away(False)
    assert live(settings, HISTORY, close).failures == {}
    late(settings, close)
    live(without, HISTORY, close)
    assert set(table(settings, "learned_until", "model")["until"]) == {close}
    assert failures(settings)["ended_at"].is_not_null().all()
    assert_same(settings, without, ("cnn",), table)


def test_models_that_are_unknown_or_read_each_other_in_a_circle_are_told_at_once(fresh: Callable, package: Package):
    package.is_away(True)
    assert list(unloadable(["cnn", "absent"])) == ["absent"]
    levels = [["absent", "cnn", "loud"], ["listener", "reader"]]
    assert in_levels(["listener", "absent", "cnn", "reader", "loud"]) == levels
    settings = fresh("unknown", "absent", "cnn", "no_such_model")
    with pytest.raises(SettingRefused, match="model 'no_such_model' is unknown"):
        live(settings, START, HISTORY)
    with pytest.raises(SettingRefused, match="model 'no_such_model' is unknown"):
        learn_each(settings, [(settings.streams[0], HISTORY)], lambda *_: None, END)


# History --------------------------------------------------------------------------------------------------------------


def teach(settings: Settings, until: datetime, *models: str) -> Taught:
    return learn_each(settings, [(settings.streams[0], until)], lambda *_: None, until, models)


def test_in_a_backfill_those_that_read_one_that_fails_and_the_decisions_wait_and_nothing_is_lost(
    venue_home: Settings, copy_home: Callable, package: Package, table: Callable
):
    """Once it is mended, all is as if nothing had been: to the bit what a home has in which it never failed."""
    models = ("reader", "loud", "cnn")
    settings, never = (copy_home(venue_home, models=models, **QUICK) for _ in range(2))
    stream = settings.streams[0]
    assert teach(settings, HISTORY).failures == {}
    package.is_hurt(True)
    for times in (1, 2):
        taught = learn_each(settings, [(stream, END)], lambda *_: None, END + times * MINUTE)
        assert list(taught.failures) == [(stream, "loud")]
        with pytest.raises(ZeroDivisionError, match="it hurts"):
            taught.raise_failures()
        told = failures(settings).select("model", "times", "first_at", "last_at", "ended_at").rows()
        assert told == [("loud", times, END + MINUTE, END + times * MINUTE, None)]
        learned = dict(table(settings, "learned_until", "model").select("model", "until").rows())
        assert learned == {"cnn": END, "loud": HISTORY, "reader": HISTORY}
        assert table(settings, "decisions", "made_at")["made_at"].max() == HISTORY

    package.is_hurt(False)
    assert teach(settings, END).failures == {}
    assert failures(settings)["ended_at"].to_list() == [END]
    for until in (HISTORY, END):
        teach(never, until)
    assert_same(settings, never, models, table)
    decided, expected = (table(each, "decisions", "made_at") for each in (settings, never))
    assert decided["made_at"].max() == END
    assert decided.equals(expected)
    with warehouse(settings).reading() as con:
        assert references_not_resolving(settings, con, stream, Window(start=START, end=END)).is_empty()


def test_of_a_model_that_cannot_be_loaded_nobody_knows_whom_it_reads(
    venue_home: Settings, copy_home: Callable, package: Package
):
    """So states of any other one that came after it had gone on are taken to have been too late for it."""
    settings = copy_home(venue_home, models=("absent", "cnn"), **QUICK)
    teach(settings, HISTORY)
    assert not may_read("absent", "cnn")
    assert may_read("listener", "absent")
    package.is_away(True)
    with warehouse(settings).reading() as con:
        assert [name for name in learners_of(con, settings.streams[0]) if may_read(name, "cnn")] == ["absent"]
    assert may_read("no longer installed", "cnn")


def test_a_gate_that_fails_is_counted_as_the_mixture(
    venue_home: Settings, copy_home: Callable, package: Package, table: Callable
):
    settings = copy_home(venue_home, models=("cnn",), **QUICK)
    teach(settings, HISTORY)
    with warehouse(settings).writing() as con:
        con.execute("update gate_states set state = 'no gate'::blob")
    assert list(teach(settings, HISTORY + MINUTE).failures) == [(settings.streams[0], MIXTURE)]
    assert failures(settings)["model"].to_list() == [MIXTURE]


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Package) -> Settings:
    """The settings of a home as runs find them."""
    named = {"home": tmp_path / "home", "source": "simulated", "symbols": "ETH/USDT", "models": "reader,loud,cnn"}
    for name, value in {**named, **QUICK, "device": "cpu"}.items():
        monkeypatch.setenv(f"HINDSIGHT_{name.upper()}", str(value))
    monkeypatch.setenv("DAGSTER_HOME", "")  # opening the instance sets it; put back with the rest
    return load()


def test_a_run_with_a_model_that_fails_tells_what_the_others_did_and_then_fails_with_it(
    environment: Settings, package: Package, table: Callable
):
    """The backfill, and the job of one model's learning by hand."""
    settings, stream, window = environment, environment.streams[0], Window(start=START, end=HISTORY)
    package.is_hurt(True)
    with open_instance(settings) as instance:
        with pytest.raises(ZeroDivisionError, match="it hurts"):
            run_job("backfill", stream, window, silence)
        for name in ("inference_references", "decisions", "checkpoints"):
            event = instance.get_latest_materialization_event(dg.AssetKey(name))
            assert event is not None
            assert event.asset_materialization is not None
            told = [key for key in event.asset_materialization.metadata["report"].value if str(stream) in key]
            assert sorted(key.split(",")[0] for key in told) == ["cnn", "decisions", "reader"]
        (failed,) = instance.get_run_records(dg.RunsFilter(job_name="backfill"))
        assert failed.dagster_run.status == dg.DagsterRunStatus.FAILURE
    assert table(settings, "learned_until", "model").select("model", "until").rows() == [("cnn", HISTORY)]
    assert table(settings, "decisions", "made_at").is_empty()

    asked = {"ops": {"due": {"config": {"stream": str(stream), "until": HISTORY.isoformat()}}}}
    done = defs.resolve_job_def("learn").execute_in_process(run_config=asked, raise_on_error=False)
    assert not done.success
    (event,) = done.get_step_failure_events()
    assert event.step_key == "report"
    told = event.step_failure_data.user_failure_data
    assert told is not None
    assert told.description == f"loud, {stream}: ZeroDivisionError('it hurts')"
    (output,) = [each for each in done.events_for_node("report") if each.is_successful_output]
    assert {"learned", "scores", "checkpoints"} <= output.step_output_data.metadata.keys()
    package.is_hurt(False)
    assert defs.resolve_job_def("learn").execute_in_process(run_config=asked).success
    assert set(table(settings, "learned_until", "model")["until"]) == {HISTORY}
    assert failures(settings)["ended_at"].is_not_null().all()


def test_a_backfill_with_a_model_that_does_not_import_learns_the_others(
    environment: Settings, package: Package, monkeypatch: pytest.MonkeyPatch, table: Callable
):
    monkeypatch.setenv("HINDSIGHT_MODELS", "absent,cnn")
    settings = load()
    package.is_away(True)
    with open_instance(settings), pytest.raises(ModelUnloadable, match="a library of its own is away"):
        run_job("backfill", settings.streams[0], Window(start=START, end=HISTORY), silence)
    assert table(settings, "learned_until", "model").select("model", "until").rows() == [("cnn", HISTORY)]
