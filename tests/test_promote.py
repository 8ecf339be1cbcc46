"""Promotion: evidence decides which weights serve, whatever history is cut into, and a person may say otherwise.

The looks are at 22:00, 08:00 and 18:00: one after the first steps, and two that have something to compare.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hindsight.configured import schema_of, shape_of
from hindsight.errors import LearnerBusy, SchemaMismatch, SettingRefused
from hindsight.exchange.sources import open_source
from hindsight.inference.evidence import MINIMUM_BLOCKS
from hindsight.inference.losses import log_loss
from hindsight.inference.predictions import SERVED
from hindsight.learn import learn, learn_live
from hindsight.market.streams import Window
from hindsight.promote import HORIZONS_PER_BLOCK
from hindsight.recall import recall_weights
from hindsight.recall_blocks import recall_blocks
from hindsight.retain import Needed, judge
from hindsight.serve import pin, set_serving
from hindsight.settings import Settings
from hindsight.store.inference_tables import read_references
from hindsight.store.learning_questions import checkpoints_not_serving
from hindsight.store.promotion_tables import served_before
from hindsight.store.warehouse import Warehouse
from hindsight.training.checkpoints import checkpoint_file
from hindsight.training.predict import forward

MINUTE = timedelta(minutes=1)
START, END = datetime(2024, 2, 29, 14, tzinfo=UTC), datetime(2024, 3, 2, 2, 20, tzinfo=UTC)
FIRST, SECOND, THIRD = (datetime(2024, 2, 29, 22, tzinfo=UTC) + n * timedelta(hours=10) for n in range(3))
ARENA = {"models": ("cnn",), "lookback": 60, "warmup": 60, "trend_ttl": 10, "promote_every": 600}
# What the champion is made to have said of each reference whose answer is known: what came, or what did not.
PLANTED = """
    update inference_references
    set served = [0, served[2], served[3], served[4], served[5]]::usmallint[5]
    where serving_id is not null;
    update inference_references
    set served = [if((log_return > 0) = $right, 60000, 5535), served[2], served[3], served[4], served[5]]::usmallint[5]
    from outcomes
    where serving_id is not null
      and inference_references.inference_id = outcomes.inference_id
      and kind = 'candle'"""


def until(settings: Settings, moment: datetime) -> None:
    learn(settings, settings.streams[0], "cnn", moment)


def warehouse(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


def plant(settings: Settings, *, right: bool) -> None:
    """Makes the champion of so far a very good or a very bad one."""
    with warehouse(settings).writing() as con:
        for statement in PLANTED.split(";"):
            con.execute(statement, {"right": right} if "$right" in statement else None)


@pytest.fixture(scope="session")
def arena(venue_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The venue's 37 hours for a model that sees an hour, and is looked at every ten hours; nothing is learned yet."""
    home = shutil.copytree(venue_home.home, tmp_path_factory.mktemp("arena") / "home")
    return venue_home.model_copy(update={"home": home, **ARENA})


@pytest.fixture(scope="session")
def looked_at(arena: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """All of it learned in one range."""
    settings = arena.model_copy(update={"home": tmp_path_factory.mktemp("looked at") / "home"})
    shutil.copytree(arena.home, settings.home)
    until(settings, END)
    return settings


@pytest.fixture(scope="session")
def reigning(arena: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Learned until a quarter of an hour before the second look: the first champion serves."""
    settings = arena.model_copy(update={"home": tmp_path_factory.mktemp("reigning") / "home"})
    shutil.copytree(arena.home, settings.home)
    until(settings, SECOND - 15 * MINUTE)
    return settings


@pytest.fixture(scope="session")
def dethroned(reigning: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The first champion was a bad one, and the challenger of the second look serves since."""
    settings = reigning.model_copy(update={"home": tmp_path_factory.mktemp("dethroned") / "home"})
    shutil.copytree(reigning.home, settings.home)
    plant(settings, right=False)
    until(settings, SECOND + 30 * MINUTE)
    return settings


def promotions(settings: Settings, table: Callable) -> pl.DataFrame:
    return table(settings, "promotions", "event_time, rowid")


def here(settings: Settings, table: Callable) -> pl.DataFrame:
    return table(settings, "checkpoints", "checkpoint_id").filter(pl.col("evicted_at").is_null())


# What a look decides --------------------------------------------------------------------------------------------------


def test_the_first_look_makes_the_learner_as_it_stands_serve(looked_at: Settings, table: Callable):
    first = promotions(looked_at, table).row(0, named=True)
    steps = table(looked_at, "training_steps", "step").filter(pl.col("event_time") <= FIRST)
    assert (first["event_time"], first["outcome"]) == (FIRST, "first")
    assert first["serving_after"] == first["challenger"] == steps["step"].max()
    nothing = ("serving_before", "confidence", "references_compared", "blocks", "loss_champion", "difference_low")
    assert [first[name] for name in nothing] == [None] * len(nothing)
    references = table(looked_at, "inference_references", "made_at")
    is_before = pl.col("made_at") <= FIRST
    assert references.filter(is_before)["serving_id"].is_null().all()
    assert references.filter(~is_before)["serving_id"].is_not_null().all()
    # While nothing more was learned, the champion and the learner say the same.
    same = references.filter(pl.col("checkpoint_id") == first["serving_after"], ~is_before)
    said = pl.when(pl.col("action") == "buy").then("action_confidence").otherwise(1 - pl.col("action_confidence"))
    assert len(same) > 1
    assert (same["served"].arr.get(0) / 65535 - same.select(said).to_series()).abs().max() < 1 / 65535


@pytest.mark.parametrize(
    ("right", "outcome"), [pytest.param(False, "promoted", id="worse"), pytest.param(True, "kept", id="better")]
)
def test_a_champion_that_is_worse_makes_room_and_one_that_is_better_stays(
    reigning: Settings, copy_home: Callable, table: Callable, right: bool, outcome: str
):
    settings = copy_home(reigning)
    plant(settings, right=right)
    until(settings, SECOND + 20 * MINUTE)
    champion, look = promotions(settings, table)["serving_after"][0], promotions(settings, table).row(-1, named=True)
    assert (look["event_time"], look["outcome"], look["serving_before"]) == (SECOND, outcome, champion)
    assert look["challenger"] > champion
    serves = champion if right else look["challenger"]
    assert look["serving_after"] == serves
    assert look["blocks"] >= MINIMUM_BLOCKS
    assert look["difference_low"] < look["difference"] < look["difference_high"]
    assert (look["difference_high"] < 0) != right
    later = table(settings, "inference_references", "made_at").filter(pl.col("made_at") > SECOND)
    assert set(later["serving_id"]) == {serves}
    assert here(settings, table).filter("is_serving")["checkpoint_id"].to_list() == [serves]


def test_a_look_compares_the_references_made_since_the_last_one_and_after_the_embargo_by_the_answers_known_by_then(
    looked_at: Settings, table: Callable
):
    """Two roads: the losses that the tables hold, added up reference by reference."""
    references, outcomes = (table(looked_at, name, "made_at") for name in ("inference_references", "outcomes"))
    looks = promotions(looked_at, table)
    since = None
    for look in looks.iter_rows(named=True):
        if look["outcome"] != "first":
            compared = references.filter(
                pl.col("made_at") > look["event_time"] - looked_at.promote_every * MINUTE,
                pl.col("made_at") <= look["event_time"],
                pl.col("serving_id") == look["serving_before"],
                pl.col("made_at") >= since + looked_at.trend_ttl * MINUTE,
            )
            known = outcomes.filter(pl.col("settled_at") <= look["event_time"], pl.col("log_loss").is_not_null())
            losses: dict[str, list[float]] = {"champion": [], "challenger": []}
            for made in compared.iter_rows(named=True):
                answers = known.filter(pl.col("inference_id") == made["inference_id"])
                parts = answers.filter((pl.col("kind") == "candle") | pl.col("is_next"))
                if len(parts):
                    losses["challenger"].append(parts["log_loss"].sum())
                    rose = {True: made["served"][0], False: made["served"][4]}
                    came = [
                        rose[part["kind"] == "candle"] / 65535
                        if (part["log_return"] > 0 if part["kind"] == "candle" else part["kind"] == "L2H")
                        else 1 - rose[part["kind"] == "candle"] / 65535
                        for part in parts.iter_rows(named=True)
                    ]
                    losses["champion"].append(float(log_loss(np.array(came)).sum()))
            block = HORIZONS_PER_BLOCK * looked_at.trend_ttl
            rows = compared["made_at"].dt.epoch("ms") // 60_000 - 1
            assert look["references_compared"] == len(losses["champion"]) > 250
            assert look["blocks"] == (rows // block).n_unique() >= MINIMUM_BLOCKS
            for who, mean in (("champion", look["loss_champion"]), ("challenger", look["loss_challenger"])):
                assert mean == pytest.approx(np.mean(losses[who]), abs=1e-5)
        if look["outcome"] != "kept":
            since = look["event_time"]
    assert looks["event_time"].to_list() == [FIRST, SECOND, THIRD]


def test_what_the_champion_said_within_the_embargo_counts_for_nothing(
    reigning: Settings, looked_at: Settings, copy_home: Callable, table: Callable
):
    settings = copy_home(reigning)
    with warehouse(settings).writing() as con:
        changed = con.execute(
            """
            update inference_references
            set served = [1, 1, 1, 65533, 1]::usmallint[5]
            where serving_id is not null and made_at < $embargo""",
            {"embargo": FIRST + settings.trend_ttl * MINUTE},
        ).fetchall()
    assert changed[0][0] > 2
    until(settings, SECOND)
    assert promotions(settings, table).equals(promotions(looked_at, table).filter(pl.col("event_time") <= SECOND))


# Backfill equals live -------------------------------------------------------------------------------------------------


def same(found: Settings, expected: Settings, table: Callable, moment: datetime = END) -> None:
    """Every look, what served at each close and what it said, to the bit."""
    known = pl.col("event_time") <= moment
    assert promotions(found, table).equals(promotions(expected, table).filter(known))
    made = pl.col("made_at") <= moment
    references = (table(each, "inference_references", "made_at").filter(made) for each in (found, expected))
    one, other = references
    for column in ("made_at", "checkpoint_id", "serving_id", "served", "action_confidence"):
        assert one[column].equals(other[column]), column


def test_history_in_any_pieces_has_the_looks_of_history_in_one(
    arena: Settings, looked_at: Settings, copy_home: Callable, table: Callable
):
    settings = copy_home(arena)
    cuts = [START + 200 * MINUTE, FIRST - MINUTE, FIRST, FIRST + MINUTE, FIRST + 5 * MINUTE, SECOND - 2 * MINUTE]
    cuts += [SECOND + 3 * MINUTE, THIRD - 177 * MINUTE, THIRD, THIRD + 61 * MINUTE, END]
    for cut in cuts:
        until(settings, cut)
    same(settings, looked_at, table)
    serving = [
        each.filter("is_serving")["checkpoint_id"].to_list()
        for each in map(lambda s: here(s, table), (settings, looked_at))
    ]
    assert serving[0] == serving[1]
    assert len(serving[0]) == 1


@pytest.mark.parametrize("leave_pivots", [False, True])
def test_closes_that_are_lived_through_have_the_looks_of_a_backfill(
    looked_at: Settings, tmp_path: Path, table: Callable, record: Callable, leave_pivots: bool
):
    """Recorded and learned as the market moved, close by close around the looks."""
    settings = looked_at.model_copy(update={"home": tmp_path / "live"})
    moments = [START, FIRST - 300 * MINUTE, *(FIRST + n * MINUTE for n in range(-2, 4))]
    moments += [SECOND - 300 * MINUTE, *(SECOND + n * MINUTE for n in range(-2, 4)), SECOND + 20 * MINUTE]
    for start, end in pairwise(moments):
        record(settings, open_source(settings), [start, end])
        for _ in learn_live(settings, settings.streams[0], "cnn", lambda: end, leave_pivots=leave_pivots):  # noqa: B023
            pass
    until(settings, moments[-1])  # what was left to a pivot
    same(settings, looked_at, table, moments[-1])


def test_what_the_champion_says_does_not_change_while_it_serves(looked_at: Settings, table: Callable):
    """Each reference by itself, with the weights as they were when it began to serve."""
    stream, champion = looked_at.streams[0], promotions(looked_at, table)["serving_after"][0]
    learner = recall_weights(warehouse(looked_at), looked_at, "cnn", stream, champion)
    with warehouse(looked_at).reading() as con:
        reign = read_references(con, "cnn", stream, Window(start=FIRST, end=SECOND))
        rows = reign["made_at"].dt.epoch("ms").to_numpy() // stream.step_ms - 1
        blocks = recall_blocks(con, looked_at, stream, shape_of(looked_at, stream, "cnn"), rows[0], rows[-1] + 1)
        again = forward(learner, blocks.gather(rows, reign["norm_params"].to_numpy(writable=True))).predictions[
            :, SERVED
        ]
    assert set(reign["serving_id"]) == {champion}
    assert reign["checkpoint_id"].n_unique() > 10  # the learner went on
    assert np.abs(reign["served"].to_numpy() / 65535 - again).max() < 1 / 65535


# By hand --------------------------------------------------------------------------------------------------------------


def test_a_rollback_brings_evicted_weights_back_and_counts_from_the_next_close(
    dethroned: Settings, copy_home: Callable, table: Callable
):
    settings, stream, said_at = copy_home(dethroned), dethroned.streams[0], SECOND + 30 * MINUTE
    first, second = promotions(settings, table)["serving_after"]
    gone = table(settings, "checkpoints", "checkpoint_id").row(
        by_predicate=pl.col("checkpoint_id") == first, named=True
    )
    assert gone["evicted_at"] is not None
    chosen = set_serving(settings, "cnn", stream)
    assert (chosen.before, chosen.after, chosen.since, chosen.is_brought_back) == (second, first, said_at, True)
    last = promotions(settings, table).row(-1, named=True)
    assert (last["outcome"], last["serving_before"], last["serving_after"]) == ("rolled back", second, first)
    assert last["references_compared"] is None
    until(settings, said_at + 20 * MINUTE)
    made = table(settings, "inference_references", "made_at").filter(pl.col("made_at") > SECOND)
    assert set(made.filter(pl.col("made_at") <= said_at)["serving_id"]) == {second}
    later = made.filter(pl.col("made_at") > said_at)
    assert set(later["serving_id"]) == {first}
    assert len(later) == 10
    with warehouse(settings).reading() as con:
        assert checkpoints_not_serving(con, stream, Window(start=START, end=END)).is_empty()
    serving = here(settings, table).filter("is_serving").row(0, named=True)
    assert (serving["checkpoint_id"], serving["event_time"]) == (first, FIRST)
    assert serving["metric_value"] == gone["metric_value"]
    weights = load_file(settings.checkpoints_path / serving["file"])
    again = recall_weights(warehouse(dethroned), dethroned, "cnn", stream, first)
    for name, values in again.average.state_dict().items():
        assert torch.equal(weights[f"average.{name}"], values)


def test_a_word_at_the_close_of_a_look_comes_after_it(reigning: Settings, copy_home: Callable, table: Callable):
    settings = copy_home(reigning)
    plant(settings, right=False)
    until(settings, SECOND)
    first, second = promotions(settings, table)["serving_after"]
    assert set_serving(settings, "cnn", settings.streams[0]).since == SECOND
    until(settings, SECOND + 10 * MINUTE)
    history = promotions(settings, table)
    assert history["event_time"].to_list() == [FIRST, SECOND, SECOND]
    assert history["serving_after"].to_list() == [first, second, first]
    made = table(settings, "inference_references", "made_at").filter(pl.col("made_at") > SECOND)
    assert set(made["serving_id"]) == {first}


def test_what_is_said_again_changes_nothing_and_a_word_may_come_before_the_first_look(
    arena: Settings, copy_home: Callable, table: Callable
):
    settings, stream = copy_home(arena), arena.streams[0]
    until(settings, FIRST - 60 * MINUTE)
    with pytest.raises(SettingRefused, match="nothing served before the newest weights"):
        set_serving(settings, "cnn", stream)
    for _ in range(2):
        assert set_serving(settings, "cnn", stream, 7).after == 7
        assert promotions(settings, table).select("outcome", "serving_before", "serving_after").rows() == [
            ("by hand", None, 7)
        ]
    until(settings, FIRST + 4 * MINUTE)
    look = promotions(settings, table).row(-1, named=True)
    assert (look["outcome"], look["serving_after"]) == ("kept", 7)  # an hour is no evidence
    assert look["blocks"] < MINIMUM_BLOCKS
    assert look["difference_low"] is look["difference_high"] is None
    made = table(settings, "inference_references", "made_at").filter(pl.col("made_at") > FIRST - 60 * MINUTE)
    assert set(made["serving_id"]) == {7}


def test_a_checkpoint_of_another_schema_or_of_no_step_is_refused_by_name(
    reigning: Settings, copy_home: Callable, table: Callable
):
    """Trap 29."""
    settings, stream = copy_home(reigning), reigning.streams[0]
    newest = table(settings, "training_steps", "step")["step"].max()
    for number in (0, newest + 1, -3):
        with pytest.raises(SettingRefused, match=f"expected a checkpoint of 1 … {newest}, found {number}"):
            set_serving(settings, "cnn", stream, number)
    other = settings.model_copy(update={"lookback": 50})
    with pytest.raises(SettingRefused, match="has not learned"):
        set_serving(other, "cnn", stream, 7)
    until(other, SECOND)
    ours, theirs = (schema_of(each, stream, "cnn") for each in (other, settings))
    with pytest.raises(SchemaMismatch, match=f"input schema {theirs}.*at hand is {ours}"):
        set_serving(other, "cnn", stream, 7)
    # The look of the new lineage is its first, whoever served in the old one, and leads back to nobody.
    assert promotions(other, table).filter(schema_hash=ours).select("outcome", "serving_before").rows() == [
        ("first", None)
    ]
    with pytest.raises(SettingRefused, match="nothing served before"):
        set_serving(other, "cnn", stream)


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    """Copies: what is loaded stays mapped to the file."""
    return {name: values.clone() for name, values in load_file(file).items()}


def spoil(file: Path) -> None:
    weights = weights_of(file)
    name = next(name for name in weights if name.startswith("average."))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, file, metadata={"schema_hash": "unread"})


@pytest.mark.parametrize("flag", ["is_latest", "is_serving"])
def test_weights_that_are_not_finite_never_serve_and_are_brought_back_from_older_ones(
    reigning: Settings, copy_home: Callable, table: Callable, caplog: pytest.LogCaptureFixture, flag: str
):
    """Trap 28: whatever a file holds, the rows are those of a home in which it is whole."""
    settings, whole, stream = copy_home(reigning), copy_home(reigning), reigning.streams[0]
    spoiled = here(settings, table).filter(flag).row(0, named=True)
    file = settings.checkpoints_path / spoiled["file"]
    expected = weights_of(file)
    spoil(file)
    for each in (settings, whole):
        until(each, SECOND)
    refused = f"checkpoint {spoiled['file']} cannot be used: its average."
    assert any(refused in record.getMessage() for record in caplog.records)
    same(settings, whole, table)
    for name, order in (("training_steps", "step"), ("outcomes", "settled_at, made_at, kind"), ("checkpoints", "file")):
        assert table(settings, name, order).equals(table(whole, name, order)), name
    assert set_serving(settings, "cnn", stream, spoiled["checkpoint_id"]).is_brought_back
    found = weights_of(file)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_that_cannot_be_read_is_made_again_from_the_steps(
    reigning: Settings, copy_home: Callable, table: Callable
):
    settings, stream = copy_home(reigning), reigning.streams[0]
    file = settings.checkpoints_path / checkpoint_file("cnn", stream, 60)
    whole = weights_of(file)
    file.write_bytes(file.read_bytes()[:1000])
    assert set_serving(settings, "cnn", stream, 60).is_brought_back
    again = weights_of(file)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert here(settings, table).filter("is_serving")["checkpoint_id"].to_list() == [60]


def test_nobody_has_a_word_while_the_model_is_being_taught(reigning: Settings, copy_home: Callable, table: Callable):
    settings, stream = copy_home(reigning, lock_timeout_seconds=0.2), reigning.streams[0]
    lesson = learn_live(settings, stream, "cnn", lambda: END, leave_pivots=False)
    next(lesson)
    with ThreadPoolExecutor(1) as pool, pytest.raises(LearnerBusy):
        pool.submit(set_serving, settings, "cnn", stream, 30).result()
    lesson.close()
    assert "by hand" not in promotions(settings, table)["outcome"]
    assert set_serving(settings, "cnn", stream, 30).after == 30


@pytest.mark.parametrize(
    ("rows", "before"),
    [
        pytest.param([], None, id="nothing was ever promoted"),
        pytest.param([("first", 1)], None, id="the first one"),
        pytest.param([("first", 1), ("kept", 1)], None, id="kept"),
        pytest.param([("first", 1), ("promoted", 5), ("kept", 5)], 1, id="promoted"),
        pytest.param([("first", 1), ("promoted", 5), ("promoted", 9), ("rolled back", 5)], 1, id="back twice"),
        pytest.param([("first", 1), ("promoted", 5), ("rolled back", 1)], None, id="back to the first"),
        pytest.param([("first", 1), ("promoted", 5), ("rolled back", 1), ("promoted", 9)], 1, id="not to a bad one"),
        pytest.param([("first", 1), ("by hand", 5), ("by hand", 1)], 5, id="what a person chose twice"),
    ],
)
def test_a_rollback_leads_to_what_served_before_and_never_forwards(rows: list, before: int | None):
    history = pl.DataFrame(rows, {"outcome": pl.String, "serving_after": pl.Int32}, orient="row")
    assert served_before(history) == before


# What stays -----------------------------------------------------------------------------------------------------------


@given(data=st.data(), count=st.integers(1, 12))
def test_no_eviction_takes_what_serves_what_is_pinned_or_what_a_pending_reference_names(data, count: int):
    def flags() -> list[bool]:
        return data.draw(st.lists(st.booleans(), min_size=count, max_size=count))

    now = datetime(2024, 3, 2, tzinfo=UTC)
    known = pl.DataFrame(
        {
            "checkpoint_id": range(1, count + 1),
            "file": [f"{n}.safetensors" for n in range(1, count + 1)],
            "metric": "log loss",
            "metric_value": [1.0] * count,
            **{f"is_{name}": flags() for name in ("best", "latest", "pinned", "serving", "snapshot")},
            "evicted_at": [now if gone else None for gone in flags()],
        },
        schema_overrides={"evicted_at": pl.Datetime("us", "UTC")},
    )
    serves, since = data.draw(st.integers(1, count)), data.draw(st.integers(0, count + 1))
    served = data.draw(st.frozensets(st.integers(1, count)))
    judged, files = judge(known, 5, now + MINUTE, serves, Needed(since, served))
    was_here = known.filter(pl.col("evicted_at").is_null())["checkpoint_id"].to_list()
    stays = judged.filter(pl.col("evicted_at").is_null())["checkpoint_id"].to_list()
    pinned = known.filter("is_pinned")["checkpoint_id"].to_list()
    needed = {*pinned, *served, serves, *range(since, count + 1)}
    assert needed & set(was_here) <= set(stays)
    if serves in was_here:
        assert judged.filter("is_serving")["checkpoint_id"].to_list() == [serves]
    assert {int(file.stem) for file in files} == set(was_here) - set(stays)


def test_what_serves_is_pinned_or_pending_outlives_every_run(dethroned: Settings, copy_home: Callable, table: Callable):
    settings, stream = copy_home(dethroned), dethroned.streams[0]
    latest = here(settings, table).filter("is_latest")["checkpoint_id"].item()
    pin(settings, "cnn", stream, latest, is_pinned=True)
    seen = set(here(settings, table)["checkpoint_id"])
    for minutes in (35, 36, 50, 75, 120):
        until(settings, SECOND + minutes * MINUTE)
        kept, references = here(settings, table), table(settings, "inference_references", "made_at")
        on_disk = {str(file.relative_to(settings.checkpoints_path)) for file in settings.checkpoints_path.rglob("*.s*")}
        assert on_disk == set(kept["file"])
        assert kept.filter("is_serving")["checkpoint_id"].to_list() == [references["serving_id"][-1]]
        assert kept.filter("is_pinned")["checkpoint_id"].to_list() == [latest]
        graded = table(settings, "trend_validations", "made_at")["inference_id"]
        pending = references.filter(~pl.col("inference_id").is_in(graded.implode()))
        seen |= set(kept["checkpoint_id"])
        assert seen & {*pending["checkpoint_id"], *pending["serving_id"]} <= set(kept["checkpoint_id"])
    on_record = table(settings, "checkpoints", "checkpoint_id")
    assert seen - set(on_record["checkpoint_id"])  # their rows went with their files
    gone = on_record.filter(pl.col("evicted_at").is_not_null())["checkpoint_id"]
    assert set(gone) <= set(promotions(settings, table)["serving_after"])
    pin(settings, "cnn", stream, latest, is_pinned=False)
    until(settings, SECOND + 180 * MINUTE)
    assert latest not in here(settings, table)["checkpoint_id"]
    with pytest.raises(SettingRefused, match=f"found {latest}"):
        pin(settings, "cnn", stream, latest, is_pinned=True)
