"""Learning: backfill equals live, twice is once, a kill loses nothing, and nothing is used before it was known."""

import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from hindsight.errors import LearnerBusy
from hindsight.inference.references import inference_ids
from hindsight.learn import learn
from hindsight.market.streams import Window, from_ms, to_ms
from hindsight.piece import CHUNK
from hindsight.settings import Settings
from hindsight.store import learning_questions as questions
from hindsight.store import lock
from hindsight.store.rows import select
from hindsight.store.summaries import trend_stats
from hindsight.store.warehouse import Warehouse
from hindsight.training.models.registry import in_order

MODEL = "transformer"
MINUTE = timedelta(minutes=1)
END = datetime(2024, 3, 2, 2, 20, tzinfo=UTC)
STORM_START, STORM_END = datetime(2024, 1, 31, 9, 30, tzinfo=UTC), datetime(2024, 2, 1, 7, 10, tzinfo=UTC)
# What is compared, and the column that says when a row became known.
TABLES = {
    "inference_references": ("model, made_at", "made_at"),
    "hidden_states": ("model, made_at", "made_at"),
    "outcomes": ("model, settled_at, made_at, kind", "settled_at"),
    "trend_validations": ("model, settled_at, made_at", "settled_at"),
    "training_steps": ("model, step", "event_time"),
    "experiences": ("made_at", "settled_at"),
    "drifts": ("model, event_time", "event_time"),
    "scores": ("model, day, target, predictor", None),
    "checkpoints": ("model, checkpoint_id", "event_time"),
    "learned_until": ("model", None),
}
PAIR = {"models": ("cnn", "dqn"), "lookback": 60, "warmup": 60, "trend_ttl": 10}  # the DQN reads the CNN
PAIR_END = datetime(2024, 2, 29, 21, tzinfo=UTC)
Read = Callable[..., pl.DataFrame]


@pytest.fixture(scope="session")
def contents(table: Read) -> Callable[[Settings], dict[str, pl.DataFrame]]:
    """Reads all tables that learning fills. Of the checkpoints those that do not depend on where a run ended."""

    def read(settings: Settings) -> dict[str, pl.DataFrame]:
        found = {name: table(settings, name, order) for name, (order, _) in TABLES.items()}
        found["checkpoints"] = found["checkpoints"].filter("is_snapshot").drop("is_latest", "is_serving")
        return found

    return read


@pytest.fixture(scope="session")
def learned_pair(venue_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Seven hours, learned in one range by the CNN, and then by the DQN that reads it."""
    home = shutil.copytree(venue_home.home, tmp_path_factory.mktemp("pair") / "home")
    settings = venue_home.model_copy(update={"home": home, **PAIR})
    run(settings, PAIR_END)
    return settings


def run(settings: Settings, until: datetime) -> None:
    for model in in_order(settings.models):
        learn(settings, settings.streams[0], model, until)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2024-03-{text}+00:00")


def assert_same(found: dict[str, pl.DataFrame], expected: dict[str, pl.DataFrame]) -> None:
    """To the bit: ranges, outcomes, grades, steps with the references in each, and predictions, losses and scores."""
    for name, frame in expected.items():
        assert len(found[name]) == len(frame), name
        different = [column for column in frame.columns if not found[name][column].equals(frame[column])]
        assert not different, f"{name}: {different}"


# What the whole is made of -------------------------------------------------------------------------------------------


def test_the_stretch_holds_what_the_tests_need(learned_home: Settings, contents: Callable):
    """A correction, a gap, a border of months and of pieces, and every kind of answer."""
    found = contents(learned_home)
    assert len(found["inference_references"]) > 700
    assert set(found["outcomes"]["status"]) == {"settled", "unusable"}
    assert set(found["trend_validations"]["status"]) == {"validated", "expired", "unusable"}
    assert set(found["training_steps"]["trigger"]) == {"candle", "pivot"}
    assert found["scores"]["day"].unique().to_list() == [datetime(2024, 3, 1).date()]  # noqa: DTZ001
    assert len(found["checkpoints"]) >= 3
    border = from_ms(-(-to_ms(at("01 00:00")) // (CHUNK * 60_000)) * CHUNK * 60_000)
    assert at("01 00:00") < border < END


def test_every_question_that_is_asked_of_the_tables_has_no_row_as_its_answer(learned_home: Settings):
    stream, span = learned_home.streams[0], Window(start=at("01 00:00") - timedelta(days=2), end=END)
    asked = [name for name in dir(questions) if getattr(questions, name).__class__.__name__ == "function"]
    with Warehouse(path=learned_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
        for name in asked:
            question = getattr(questions, name)
            if question.__module__ == questions.__name__ and question.__doc__.rstrip().endswith("?"):
                assert question(con, stream, span).is_empty(), name


def test_trend_stats_add_up(learned_home: Settings, contents: Callable):
    """Trap 25: total = validated + pending + expired, each counted by itself."""
    found = contents(learned_home)
    with Warehouse(path=learned_home.warehouse_path, lock_timeout_seconds=5).reading() as con:
        (stats,) = trend_stats(con).rows(named=True)
    graded = dict(found["trend_validations"]["status"].value_counts().rows())
    references = set(found["inference_references"]["inference_id"])
    pending = references - set(found["trend_validations"]["inference_id"])
    assert set(found["trend_validations"]["inference_id"]) < references
    assert stats["validated"] == graded["validated"]
    assert stats["expired"] == graded["expired"]
    assert stats["pending"] == len(pending) > 0
    assert stats["total"] == len(references) - graded["unusable"]
    assert stats["total"] == stats["validated"] + stats["pending"] + stats["expired"]
    assert stats["accuracy"] == stats["correct"] / stats["validated"]


def test_a_prediction_is_made_at_every_due_close_with_a_whole_frame_and_at_no_other(
    learned_home: Settings, contents: Callable
):
    """Trap 18: the gap of 01:39 blocks, and 600 candles are needed first."""
    made = contents(learned_home)["inference_references"]["made_at"].to_list()
    expected = [at("01 00:00") + 2 * n * MINUTE for n in range(2000)]
    assert made == [moment for moment in expected if moment <= at("02 01:39")]


def test_every_answer_that_a_step_trains_on_was_known_before_any_prediction_made_with_its_weights(
    learned_home: Settings, contents: Callable
):
    """Trap 26: no purge or embargo is needed, because the order of events gives more than both.

    settled_at <= event_time of the step < made_at of whatever its weights predict.
    """
    found = contents(learned_home)
    steps, references, outcomes = (found[name] for name in ("training_steps", "inference_references", "outcomes"))
    candle = outcomes.filter(pl.col("kind") == "candle").select("inference_id", "settled_at")
    trend = found["trend_validations"].filter(pl.col("status") == "validated").select("inference_id", "settled_at")
    for trigger, answers in (("candle", candle), ("pivot", trend)):
        new = steps.filter(pl.col("trigger") == trigger).select("event_time", inference_id="settled")
        settled = new.explode("inference_id").drop_nulls().join(answers, on="inference_id", how="left")
        assert settled["settled_at"].null_count() == 0
        assert (settled["settled_at"] <= settled["event_time"]).all()
        assert len(settled) > 100
    replayed = steps.select("event_time", inference_id="replayed").explode("inference_id").drop_nulls()
    replayed = replayed.join(candle, on="inference_id", how="left")
    assert replayed["settled_at"].null_count() == 0
    assert (replayed["settled_at"] <= replayed["event_time"]).all()
    made = references.filter(pl.col("checkpoint_id") > 0).join(steps, left_on="checkpoint_id", right_on="step")
    assert len(made) == (references["checkpoint_id"] > 0).sum() > 100
    assert (made["event_time"] < made["made_at"]).all()
    newest = references.join_asof(
        steps.select("step", "event_time"), left_on="made_at", right_on="event_time", allow_exact_matches=False
    )
    assert (newest["step"].fill_null(0) == newest["checkpoint_id"]).all()  # and no older ones than need be


def test_each_reference_is_new_exactly_once_per_trigger(learned_home: Settings, contents: Callable):
    """Trap 27, and trap 7: nothing is trained on twice as new, and nothing is forgotten."""
    found = contents(learned_home)
    steps, outcomes = found["training_steps"], found["outcomes"]
    new = {
        trigger: steps.filter(pl.col("trigger") == trigger)["settled"].explode().drop_nulls()
        for trigger in ("candle", "pivot")
    }
    for ids in new.values():
        assert ids.is_unique().all()
    validated = found["trend_validations"].filter(pl.col("status") == "validated")
    assert set(new["pivot"]) == set(validated["inference_id"])
    last = steps.filter(pl.col("trigger") == "candle")["event_time"].max()
    usable = outcomes.filter(pl.col("kind") == "candle", pl.col("status") == "settled", pl.col("settled_at") <= last)
    assert set(new["candle"]) == set(usable["inference_id"])


def test_no_reference_is_replayed_more_often_than_it_may_be_used(
    venue_home: Settings, copy_home: Callable, contents: Callable
):
    """Trap 27. New answers are always learned from; replay stops at max_uses."""
    settings = copy_home(venue_home, max_uses=3)
    run(settings, at("01 06:00"))
    steps = contents(settings)["training_steps"]
    uses: dict[int, int] = {}
    for settled, replayed in steps.select("settled", "replayed").iter_rows():
        assert all(uses.get(each, 0) < 3 for each in replayed)
        assert len({*settled, *replayed}) == len(settled) + len(replayed)
        for each in (*settled, *replayed):
            uses[each] = uses.get(each, 0) + 1
    assert max(uses.values()) >= 3


# Backfill equals live ------------------------------------------------------------------------------------------------


def test_twice_is_once(learned_home: Settings, copy_home: Callable, contents: Callable):
    settings = copy_home(learned_home)
    before = contents(settings)
    for until in (END, END + timedelta(days=3), at("01 12:00")):
        report = learn(settings, settings.streams[0], MODEL, until)
        assert (report.closes, report.predicted, report.steps) == (0, 0, 0)
    assert_same(contents(settings), before)


def minutes(start: str, end: str) -> list[datetime]:
    first, last = at(start), at(end)
    return [first + n * MINUTE for n in range((last - first) // MINUTE + 1)]


def test_history_learned_in_any_pieces_is_history_learned_in_one_and_each_piece_is_a_prefix(
    venue_home: Settings, learned_home: Settings, copy_home: Callable, contents: Callable
):
    """Candle by candle around the correction of 03:59, the end of a piece and the gap of 01:39; wide in between.

    What stands after each piece is what the whole says was known by then: nothing later is needed (DESIGN §3.1).
    """
    whole, settings = contents(learned_home), copy_home(venue_home)
    cuts = [at("01 00:00"), at("01 01:17"), *minutes("01 03:57", "01 04:08"), at("01 11:59"), at("01 12:01")]
    cuts += [at("01 20:00"), *minutes("01 23:58", "02 00:02"), at("02 01:00"), *minutes("02 01:36", "02 01:48"), END]
    for cut in cuts:
        run(settings, cut)
        if cut in (at("01 04:00"), at("01 12:01"), at("02 00:00"), at("02 01:41")):
            found = contents(settings)
            for name, (_, known) in TABLES.items():
                if known is not None and name != "checkpoints":
                    prefix = whole[name].filter(pl.col(known) <= cut)
                    assert_same({name: found[name]}, {name: prefix})
    assert_same(contents(settings), whole)


def test_a_storm_of_corrections_recorded_and_learned_live_gives_what_a_backfill_gives(
    storm: pl.DataFrame,
    storm_home: Settings,
    copy_home: Callable,
    contents: Callable,
    record: Callable,
    deliveries: Callable,
):
    """DESIGN §3.2, with candles that come late, and corrections of candles in frames, of the first day among them."""
    backfill, live = copy_home(storm_home), storm_home.model_copy(update={"home": storm_home.home / ".." / "live"})
    run(backfill, STORM_END)
    cuts = [0, 500, *range(644, 658), 700, *range(799, 803), 1000, *range(1020, 1024), 1150, 1300]
    moments = [STORM_START + minute * MINUTE for minute in sorted(set(cuts))]
    for start, end in pairwise(moments):
        record(live, deliveries(storm), [start, end])
        run(live, end)
    found, expected = contents(live), contents(backfill)
    assert len(expected["inference_references"]) > 200
    assert_same(found, expected)


def test_predictions_need_nothing_that_was_delivered_after_them(
    storm: pl.DataFrame,
    storm_home: Settings,
    copy_home: Callable,
    contents: Callable,
    record: Callable,
    deliveries: Callable,
):
    """DESIGN §3.1, truncating the deliveries themselves: two homes, one of which never heard of what came later."""
    until = STORM_START + 1000 * MINUTE
    whole, part = copy_home(storm_home), storm_home.model_copy(update={"home": storm_home.home / ".." / "part"})
    record(part, deliveries(storm.filter(pl.col("recorded_at") <= until)), [STORM_START, until])
    run(whole, STORM_END)
    run(part, until)
    found, expected = contents(part), contents(whole)
    for name, (_, known) in TABLES.items():
        if known is not None and name != "checkpoints":
            assert_same({name: found[name]}, {name: expected[name].filter(pl.col(known) <= until)})


def test_a_correction_of_the_first_candles_stops_nothing(storm_home: Settings, copy_home: Callable, contents: Callable):
    """Before 600 candles there is no frame that a correction could hurt."""
    settings = copy_home(storm_home)
    run(settings, STORM_START + 640 * MINUTE)
    made = contents(settings)["inference_references"]["made_at"]
    assert made.min() == STORM_START + 634 * MINUTE  # 600 after the hole of 30..32


def test_settings_that_look_further_back_than_replay_are_learned_alike_in_pieces(
    venue_home: Settings, copy_home: Callable, contents: Callable
):
    """What a piece has to remember is what the settings ask for, wherever it starts.

    Candle steps lie 950 closes apart, a checkpoint is scored over 1100, a day over 1440 and what follows; replay draws
    from 1000.
    """
    changed = {"train_every": 950, "score_window": 1100, "replay_window": 1000}
    whole, pieces = copy_home(venue_home, **changed), copy_home(venue_home, **changed)
    run(whole, END)
    for until in (at("01 23:40"), at("02 00:30"), END):
        run(pieces, until)
    assert_same(contents(pieces), contents(whole))


# Kills, and two at once ----------------------------------------------------------------------------------------------

LEARN_HOURLY = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from hindsight.learn import learn
from hindsight.settings import Settings
from hindsight.training.models.registry import in_order
settings = Settings.model_validate_json(sys.argv[1])
until, end = datetime.fromisoformat(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
hours = timedelta(hours=int(sys.argv[4]))
print("ready", flush=True)
while until < end:
    until = min(until + hours, end)
    for model in in_order(settings.models):
        print(model, flush=True)
        learn(settings, settings.streams[0], model, until)
"""


def start_learner(settings: Settings, since: datetime, hours: int) -> subprocess.Popen:
    program = [sys.executable, "-W", "error", "-c", LEARN_HOURLY, settings.model_dump_json(), since.isoformat()]
    return subprocess.Popen([*program, END.isoformat(), str(hours)], stdout=subprocess.PIPE, text=True)


def await_ready(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def await_lesson(process: subprocess.Popen, model: str, nth: int) -> None:
    assert process.stdout is not None
    while nth:
        nth -= process.stdout.readline() == f"{model}\n"


@pytest.mark.parametrize(
    ("changed", "whole", "end", "kills"),
    [
        pytest.param({}, "learned_home", END, [(MODEL, 7, 0.2), (MODEL, 9, 0.4), (MODEL, 11, 0.1)], id="transformer"),
        pytest.param(PAIR, "learned_pair", PAIR_END, [("cnn", 2, 0.1), ("dqn", 3, 0.15)], id="a DQN that reads a CNN"),
    ],
)
def test_a_learner_killed_at_any_moment_is_finished_to_the_same_tables(
    venue_home: Settings,
    copy_home: Callable,
    contents: Callable,
    request: pytest.FixtureRequest,
    changed: dict,
    whole: str,
    end: datetime,
    kills: list[tuple[str, int, float]],
):
    """kill -9 of a real process: in a step, while files are written, in a transaction; whatever it hits.

    So many seconds into the n-th lesson of two hours of a model; of two models one is then behind the other.
    """
    settings, expected = copy_home(venue_home, **changed), contents(request.getfixturevalue(whole))
    for model, nth, seconds in kills:
        with start_learner(settings, datetime(2024, 2, 29, 14, tzinfo=UTC), hours=2) as process:
            await_ready(process)
            await_lesson(process, model, nth)
            time.sleep(seconds)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert len(contents(settings)["inference_references"]) < len(expected["inference_references"])
    run(settings, end)
    assert_same(contents(settings), expected)
    assert not expected["hidden_states"].is_empty()
    assert expected["experiences"].is_empty() == ("dqn" not in settings.models)


def test_two_learners_at_once_make_each_reference_and_each_step_once(
    venue_home: Settings, learned_home: Settings, copy_home: Callable, contents: Callable
):
    """Trap 34: the second waits, and then finds only what the first has left."""
    settings = copy_home(venue_home)
    with (
        start_learner(settings, at("01 00:00"), hours=5) as one,
        start_learner(settings, at("01 00:00"), hours=7) as other,
    ):
        for process in (one, other):
            await_ready(process)
        assert [process.wait() for process in (one, other)] == [0, 0]
    assert_same(contents(settings), contents(learned_home))


def test_a_live_call_is_told_who_teaches_the_model_and_does_so_itself_once_that_one_is_killed(
    venue_home: Settings,
    learned_home: Settings,
    copy_home: Callable,
    contents: Callable,
    monkeypatch: pytest.MonkeyPatch,
):
    """Trap 34: the lock has a timeout and an owner, and whoever is killed holds it no longer."""
    monkeypatch.setattr("hindsight.learn.LIVE_PATIENCE_SECONDS", 0.05)
    settings, until = copy_home(venue_home), at("01 03:00")
    lesson = settings.checkpoints_path / f"{MODEL} {settings.streams[0]}.learning".replace("/", "-")
    with start_learner(settings, at("01 00:00"), hours=100) as process:
        await_lesson(process, MODEL, 1)
        while lock.holder(lesson) != process.pid:
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(LearnerBusy, match=f"being taught by another process: .* held by process {process.pid}"):
            learn(settings, settings.streams[0], MODEL, until, clock=lambda: END)
        process.send_signal(signal.SIGKILL)
    learn(settings, settings.streams[0], MODEL, until, clock=lambda: END)
    found, expected = contents(settings), contents(learned_home)
    for name in ("inference_references", "outcomes", "trend_validations", "training_steps"):
        known_by_then = pl.col(TABLES[name][1]) <= until
        assert len(found[name].filter(known_by_then)) > 10
        assert_same({name: found[name].filter(known_by_then)}, {name: expected[name].filter(known_by_then)})


def test_files_that_a_killed_piece_left_are_written_over(
    venue_home: Settings, learned_home: Settings, copy_home: Callable, contents: Callable
):
    """A kill between a checkpoint's file and the transaction that names it leaves a file that no table knows."""
    settings = copy_home(venue_home)
    for file in contents(learned_home)["checkpoints"]["file"]:
        left = settings.checkpoints_path / file
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"half a checkpoint")
        left.with_suffix(".json").write_text("{")
    run(settings, at("01 12:00"))
    run(settings, END)
    assert_same(contents(settings), contents(learned_home))
    for file in contents(settings)["checkpoints"]["file"]:
        ours, theirs = settings.checkpoints_path / file, learned_home.checkpoints_path / file
        assert ours.read_bytes() == theirs.read_bytes()


# What does not match -------------------------------------------------------------------------------------------------


def test_references_that_no_longer_match_their_digest_are_reported_and_never_trained_on(
    venue_home: Settings, copy_home: Callable, contents: Callable, caplog: pytest.LogCaptureFixture
):
    """Trap 32. The call goes over the end of a piece: what the first one refuses, the next one must not take."""
    settings, until = copy_home(venue_home), at("01 22:00")
    run(settings, until)
    hurt = [at("01 21:40") + 2 * n * MINUTE for n in range(10)]
    ids = inference_ids(MODEL, settings.streams[0], pl.Series([to_ms(moment) for moment in hurt]).to_numpy()).tolist()
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).writing() as con:
        changed = "update inference_references set digest = digest + 1 where list_contains($ids, inference_id)"
        con.execute(changed, {"ids": ids})
    with caplog.at_level(logging.ERROR):
        run(settings, END)
    messages = [record.getMessage() for record in caplog.records if "digest" in record.getMessage()]
    counts = [int(message.removeprefix(f"{MODEL} of {settings.streams[0]}: ").split()[0]) for message in messages]
    assert sum(counts) == len(ids)  # each is told once, when it would have been learned from for the first time
    assert any("2024-03-01 21:40" in message for message in messages)
    steps = contents(settings)["training_steps"].filter(pl.col("event_time") > until)
    used = {each for name in ("settled", "replayed") for each in steps[name].explode().drop_nulls()}
    assert not used & set(ids)
    assert len(used) > 100
    # They are settled like any other, so that nothing stays pending for ever; only no step learns from them.
    assert set(ids) < set(contents(settings)["trend_validations"]["inference_id"])


def test_references_over_a_correction_keep_their_digest_when_all_is_built_again(
    learned_home: Settings, copy_home: Callable, caplog: pytest.LogCaptureFixture
):
    """Trap 32: those of 04:00 and 04:02 saw 03:59 as it was first delivered, those from 04:04 on as corrected."""
    from hindsight.verify import references_not_resolving

    settings = copy_home(learned_home)
    for file in settings.tape_path.rglob("*"):
        if file.is_file():
            file.unlink()
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=5).reading() as con:
        window = Window(start=at("01 03:55"), end=at("01 04:30"))
        assert references_not_resolving(settings, con, settings.streams[0], window).is_empty()
        stored = select(con, "select count(*) as n from candle_revisions")["n"].item()
    assert stored == 1
