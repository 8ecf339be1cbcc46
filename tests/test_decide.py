"""Decisions: one at each close that all models predicted from or let pass, the same whatever history is cut into.

Most models here say what chance has them say, so that a hundred histories cost no more than one.
"""

import io
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console

from assets.live import tell_failures
from hindsight.advance import advance
from hindsight.decide import decide
from hindsight.decision_printing import print_decisions
from hindsight.health.alerts import standing
from hindsight.inference.predictions import WIDTH
from hindsight.inference.records import reference_records
from hindsight.learn import learn
from hindsight.market.streams import Stream, Window, to_ms
from hindsight.settings import Settings
from hindsight.status import status
from hindsight.store.decision_tables import append_decisions, read_gate
from hindsight.store.failure_tables import MIXTURE
from hindsight.store.inference_tables import append
from hindsight.store.learning_questions import decisions_not_adding_up, decisions_standing_twice
from hindsight.store.warehouse import Warehouse
from tests.test_advance import land

MINUTE = timedelta(minutes=1)
START, END = datetime(2024, 2, 29, 14, tzinfo=UTC), datetime(2024, 3, 2, 2, 20, tzinfo=UTC)
SAID_FROM = datetime(2024, 3, 1, 20, tzinfo=UTC)  # the gap of 01:39 lies within
EVER = Window(start=START - timedelta(days=30), end=END + timedelta(days=30))


def warehouse(settings: Settings) -> Warehouse:
    return Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)


def say(
    settings: Settings,
    model: str,
    buy: dict[datetime, float],
    *,
    served: dict[datetime, float] | None = None,
    checkpoint: int = 0,
) -> None:
    """Stores a reference of `model` at each close, with that probability of a rise; and what its champion says."""
    stream, moments = settings.streams[0], sorted(buy)
    count = len(moments)
    predicted = np.full((count, WIDTH), 0.001, np.float32)
    predicted[:, 0] = [buy[each] for each in moments]
    predicted[:, 5:9] = (0.3, 0.4, 0.3, 0.5)
    champion = np.full((count, 5), np.nan, np.float32)
    champion[:, 0] = [(served or {}).get(each, np.nan) for each in moments]
    rows = np.array([to_ms(each) for each in moments]) // stream.step_ms - 1
    records = reference_records(
        model,
        stream,
        rows,
        np.full((count, 4), 1e-3, np.float32),
        predicted,
        champion,
        np.where(np.isnan(champion[:, 0]), -1, 3).astype(np.int32),
        np.empty((count, 0), np.float32),
        np.full(count, checkpoint, np.int32),
        reach=60,
    ).with_columns(
        schema_hash=pl.lit("made up"), digest=pl.lit(0, pl.UInt64), device=pl.lit("cpu"), mode=pl.lit("backfill")
    )
    with warehouse(settings).writing() as con:
        append(con, "inference_references", stream, [records])


def closes(start: datetime = SAID_FROM, end: datetime = END) -> list[datetime]:
    """Every other one, as predict_every has it, in (start, end]."""
    return [start + 2 * n * MINUTE for n in range(1, (end - start) // (2 * MINUTE) + 1)]


def by_chance(seed: int, moments: list[datetime]) -> dict[datetime, float]:
    return dict(zip(moments, np.random.default_rng(seed).uniform(0.2, 0.8, len(moments)).tolist(), strict=True))


@pytest.fixture(scope="session")
def told(venue_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two models have predicted at every close of the last six hours, the second with a champion for half of them."""
    home = shutil.copytree(venue_home.home, tmp_path_factory.mktemp("told") / "home")
    settings = venue_home.model_copy(update={"home": home, "models": ("cnn", "lstm")})
    say(settings, "cnn", by_chance(1, closes()))
    later = closes(SAID_FROM + timedelta(hours=3))
    say(settings, "lstm", by_chance(2, closes()), served=by_chance(3, later))
    return settings


@pytest.fixture(scope="session")
def decided(told: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same, decided in one range."""
    home = shutil.copytree(told.home, tmp_path_factory.mktemp("decided") / "home")
    settings = told.model_copy(update={"home": home})
    decide(settings, settings.streams[0], END)
    return settings


def decisions(settings: Settings, table: Callable) -> pl.DataFrame:
    return table(settings, "decisions", "made_at")


def gate(settings: Settings) -> bytes | None:
    with warehouse(settings).reading() as con:
        return read_gate(con, settings.streams[0])


# What is decided ------------------------------------------------------------------------------------------------------


def test_every_close_with_a_candle_is_decided_once_and_where_no_candle_closed_nothing_is(
    decided: Settings, table: Callable
):
    """Trap 18: the candles from 01:39 to 01:43 never came."""
    made = decisions(decided, table)["made_at"].to_list()
    gap = [datetime(2024, 3, 2, 1, 40, tzinfo=UTC) + n * MINUTE for n in range(0, 5)]
    assert made == [each for each in closes() if each not in gap]
    assert len(closes()) - len(made) == 3
    with warehouse(decided).reading() as con:
        for question in (decisions_standing_twice, decisions_not_adding_up):
            assert question(con, decided.streams[0], EVER).is_empty()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("action = 'buy', probability = 0.54", id="bought below the threshold"),
        pytest.param("action = 'sell', probability = 0.46", id="sold above the threshold"),
        pytest.param("probability = 1.01, action = 'hold'", id="no probability"),
        pytest.param("probability = 'nan', action = 'hold'", id="not a number"),
        pytest.param("probability = null, action = 'hold'", id="nothing said"),
        pytest.param("contributions = [0.6, 0.5]", id="shares of more than 1"),
        pytest.param("contributions = [1.2, -0.2]", id="a negative share"),
        pytest.param("contributions = []", id="no shares"),
        pytest.param("used = 'none', action = 'buy', probability = null", id="bought on nobody's word"),
        pytest.param("used = 'none', action = 'hold', probability = 0.5", id="nobody's word is a number"),
    ],
)
def test_the_question_whether_decisions_add_up_finds_one_that_does_not(
    decided: Settings, copy_home: Callable, wrong: str
):
    settings = copy_home(decided)
    with warehouse(settings).writing() as con:
        con.execute(f"update decisions set {wrong} where made_at = $at", {"at": SAID_FROM + 20 * MINUTE})
    with warehouse(settings).reading() as con:
        found = decisions_not_adding_up(con, settings.streams[0], EVER)
    assert found["made_at"].to_list() == [SAID_FROM + 20 * MINUTE]


def test_an_action_follows_from_the_probability_and_the_thresholds_and_says_why(decided: Settings, table: Callable):
    found = decisions(decided, table)
    assert set(found["action"]) == {"buy", "sell", "hold"}
    assert set(found["used"]) <= {"mixture", "equal", "cnn", "lstm"}
    for row in found.iter_rows(named=True):
        is_sure = max(row["probability"], 1 - row["probability"]) >= decided.minimum_confidence
        is_high, is_low = row["probability"] >= decided.buy_threshold, row["probability"] <= decided.sell_threshold
        assert row["action"] == ("buy" if is_high and is_sure else "sell" if is_low and is_sure else "hold")
        assert f"threshold {decided.buy_threshold:g}" in row["reason"] or is_low
        assert row["models"] == ["cnn", "lstm"]


def test_what_serves_is_what_is_decided_from_once_there_is_a_champion(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """Alone, a model's word is the decision."""
    settings = copy_home(venue_home, models=("cnn",))
    moments = closes()
    learns, serves = by_chance(1, moments), by_chance(2, moments[60:])
    say(settings, "cnn", learns, served=serves)
    decide(settings, settings.streams[0])
    found = decisions(settings, table)
    expected = np.array([serves.get(each, learns[each]) for each in found["made_at"]])
    assert np.abs(found["probability"].to_numpy() - expected).max() < 1 / 65535


# Backfill equals live -------------------------------------------------------------------------------------------------


def test_twice_is_once(decided: Settings, copy_home: Callable, table: Callable):
    settings = copy_home(decided)
    for until in (END, None, SAID_FROM + 30 * MINUTE):
        assert decide(settings, settings.streams[0], until).decided == 0
    assert decisions(settings, table).equals(decisions(decided, table))
    assert gate(settings) == gate(decided)


@hypothesis_settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, 380), max_size=6))
def test_history_in_any_pieces_is_decided_as_history_in_one(
    told: Settings, decided: Settings, table: Callable, tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
):
    home = tmp_path_factory.mktemp("pieces") / "home"
    shutil.copytree(told.home, home)
    settings = told.model_copy(update={"home": home})
    whole = decisions(decided, table)
    for minutes in sorted(cuts):
        decide(settings, settings.streams[0], SAID_FROM + minutes * MINUTE)
        known = pl.col("made_at") <= SAID_FROM + minutes * MINUTE
        assert decisions(settings, table).equals(whole.filter(known))
    decide(settings, settings.streams[0], END)
    assert decisions(settings, table).equals(whole)
    assert gate(settings) == gate(decided)
    shutil.rmtree(home)


def test_absurd_candles_and_predictions_of_later_change_no_decision(
    told: Settings, decided: Settings, copy_home: Callable, table: Callable
):
    """Trap 3: the answer to a close is learned from at a later one, and never before."""
    until = SAID_FROM + 200 * MINUTE
    settings = copy_home(told)
    with warehouse(settings).writing() as con:
        con.execute(
            """
            update candles set open = 7, high = 9e6, low = 1e-3, close = 9e6 * (minute(open_time) % 2) + 1, volume = 1e9
            where open_time >= $until""",
            {"until": until},
        )
        con.execute(
            """
            update inference_references set action = 'buy', action_confidence = 0.999, norm_params = [1, 9, 9, 9]
            where made_at > $until""",
            {"until": until},
        )
    decide(settings, settings.streams[0])
    found, expected = decisions(settings, table), decisions(decided, table)
    before = pl.col("made_at") <= until
    assert found.filter(before).equals(expected.filter(before))
    assert not found.filter(~before).equals(expected.filter(~before))
    assert len(found.filter(before)) == 100


LIVE = {"models": ("cnn", "lstm"), "lookback": 60, "warmup": 60, "trend_ttl": 10}
LIVED = [START + minutes * MINUTE for minutes in (0, 150, *range(151, 157), 170, 181, 182, 183)]


@pytest.fixture
def lived(venue_home: Settings, tmp_path: Path) -> Settings:
    """An empty home for two quick models."""
    return venue_home.model_copy(update={"home": tmp_path / "lived", **LIVE})


def test_closes_that_are_lived_through_are_decided_as_a_backfill_decides(
    lived: Settings, venue_home: Settings, copy_home: Callable, table: Callable
):
    for start, end in pairwise(LIVED):
        land(lived, Window(start=start, end=end))
        parts = advance(lived, lambda: end, leave_pivots=end.minute % 2 == 0)  # noqa: B023
        first = next(parts)
        # The decision of a close stands with its predictions, before anything is trained.
        assert decisions(lived, table)["made_at"].max() == end - (end.minute % 2) * MINUTE
        assert not first.failures
        assert not list(parts)[-1].failures
    backfilled = copy_home(venue_home, **LIVE)
    for model in backfilled.models:
        learn(backfilled, backfilled.streams[0], model, LIVED[-1])
    decide(backfilled, backfilled.streams[0], LIVED[-1])
    assert len(decisions(backfilled, table)) > 30
    assert decisions(lived, table).equals(decisions(backfilled, table))
    assert gate(lived) == gate(backfilled)


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_a_model_that_is_late_is_waited_for_until_its_deadline_and_comes_back_by_itself(
    venue_home: Settings, copy_home: Callable, table: Callable
):
    """Trap 30: absent is masked, never made up and never a deadlock."""
    settings, moments = copy_home(venue_home, models=("cnn", "lstm")), closes()[:60]
    stream, both, alone, nobody = settings.streams[0], moments[:30], moments[30:40], moments[40:45]
    say(settings, "cnn", by_chance(1, [*both, *alone]))
    say(settings, "lstm", by_chance(2, both))
    deadline = timedelta(seconds=settings.peer_deadline_seconds)
    last = alone[-1]
    assert decide(settings, stream, last).decided == 30  # a backfill waits
    assert decide(settings, stream, clock=lambda: alone[0] + deadline - timedelta(seconds=1)).decided == 0
    assert decide(settings, stream, clock=lambda: last + deadline).decided == 10
    found = decisions(settings, table).tail(10)
    assert found["contributions"].to_list() == [[1.0, 0.0]] * 10
    assert found["probability"].is_not_null().all()
    assert decide(settings, stream, clock=lambda: nobody[-1] + deadline).decided == 5
    found = decisions(settings, table).tail(5)
    assert set(found["used"]) == {"none"}
    assert set(found["action"]) == {"hold"}
    assert set(found["reason"]) == {"no model predicted"}
    assert found["probability"].is_null().all()
    before = decisions(settings, table)
    say(settings, "cnn", by_chance(3, [*nobody, *moments[45:]]))  # what comes too late changes nothing
    say(settings, "lstm", by_chance(4, [*alone, *nobody, *moments[45:]]))
    assert decide(settings, stream).decided == 15
    after = decisions(settings, table)
    assert after.head(45).equals(before)
    assert (after.tail(15)["contributions"].list.min() > 0).all()
    assert after["made_at"].is_unique().all()


def test_a_decision_that_fails_stops_no_lesson_and_calls_a_person_once_until_it_succeeds(
    lived: Settings, table: Callable, caplog: pytest.LogCaptureFixture
):
    land(lived, Window(start=START, end=LIVED[1]))
    (*_, done) = advance(lived, lambda: LIVED[1], leave_pivots=False)
    tell_failures(lived, done, LIVED[1])
    assert standing(lived) == {}
    state, before = gate(lived), len(decisions(lived, table))
    with warehouse(lived).writing() as con:
        con.execute("update gate_states set state = 'no gate'::blob")
    titles = []
    for start, end in pairwise(LIVED[1:5]):
        land(lived, Window(start=start, end=end))
        (*_, done) = advance(lived, lambda: end, leave_pivots=False)  # noqa: B023
        assert list(done.failures) == [(lived.streams[0], MIXTURE)]
        assert {report.until for report in done.lessons.values()} == {end}
        tell_failures(lived, done, end)
        titles.append(list(standing(lived)))
    assert titles == [[f"mixture cannot predict or learn on {lived.streams[0]}"]] * 3
    assert sum("ALERT" in record.getMessage() for record in caplog.records) == 1
    assert set(table(lived, "learned_until", "model")["until"]) == {LIVED[4]}
    assert len(decisions(lived, table)) == before
    with warehouse(lived).writing() as con:
        con.execute("update gate_states set state = $state", {"state": state})
    land(lived, Window(start=LIVED[4], end=LIVED[5]))
    (*_, done) = advance(lived, lambda: LIVED[5], leave_pivots=False)
    tell_failures(lived, done, LIVED[5])
    assert done.failures == {}
    assert standing(lived) == {}
    assert decisions(lived, table)["made_at"].max() == LIVED[5]  # what was due meanwhile is done
    assert decisions(lived, table)["made_at"].diff().drop_nulls().unique().to_list() == [2 * MINUTE]


def test_of_two_runs_that_decide_at_once_one_writes_and_nothing_is_doubled(
    told: Settings, decided: Settings, copy_home: Callable, table: Callable
):
    settings, stream = copy_home(told), told.streams[0]

    def attempt(_: int) -> Exception | None:
        try:
            decide(settings, stream)
        except RuntimeError as error:
            return error
        return None

    with ThreadPoolExecutor(2) as pool:
        errors = [error for error in pool.map(attempt, range(2)) if error]
    assert all("two runs decided at once" in str(error) for error in errors)
    assert len(errors) < 2
    assert decisions(settings, table).equals(decisions(decided, table))
    again = decisions(settings, table).tail(3).drop("venue", "symbol", "timeframe")
    with pytest.raises(RuntimeError, match="two runs decided at once"), warehouse(settings).writing() as con:
        append_decisions(con, stream, again, None, b"another state")
    assert decisions(settings, table).equals(decisions(decided, table))
    assert gate(settings) == gate(decided)


def test_a_stream_that_nobody_predicts_has_no_decision(told: Settings, copy_home: Callable, table: Callable):
    settings = copy_home(told)
    other = Stream(venue=settings.venue, symbol="BTC/USDT", timeframe="1m")
    assert decide(settings, other).decided == 0
    assert decide(settings, settings.streams[0], SAID_FROM).decided == 0
    assert decisions(settings, table).is_empty()


def test_status_tells_what_was_decided_from_what_and_how_well_in_eighty_columns(decided: Settings, table: Callable):
    found = decisions(decided, table)
    told = status(decided)
    (made,) = told.decisions.rows(named=True)
    assert made["decisions"] == made["buy"] + made["sell"] + made["hold"] == len(found)
    assert made["by_mixture"] + made["by_equal_average"] + made["by_one_model"] + made["nobody_spoke"] == len(found)
    assert made["buy"] == (found["action"] == "buy").sum()
    assert made["by_mixture"] == (found["used"] == "mixture").sum()
    printed = io.StringIO()
    print_decisions(Console(file=printed, width=80), told.decisions, told.decision_scores)
    assert max(map(len, printed.getvalue().splitlines())) <= 80
    assert f"{len(found)} " in printed.getvalue()
    assert told.decision_scores.is_empty()  # no candle has been settled here


def test_scores_hold_the_decision_against_each_model_and_their_average_on_the_same_closes(
    decided: Settings, copy_home: Callable, table: Callable
):
    settings = copy_home(decided)
    with warehouse(settings).writing() as con:
        con.execute(
            """
            insert into outcomes by name
            select inference_id, model, venue, symbol, timeframe, made_at, 'candle' as kind, 'settled' as status,
                made_at as true_at, made_at + interval 1 minute as settled_at,
                if(minute(made_at) % 4 = 0, 0.01, -0.01) as log_return, 1 as candles, false as is_next
            from inference_references
            where model = 'cnn'"""
        )
    told = status(settings)
    scores = {row["predictor"]: row for row in told.decision_scores.iter_rows(named=True)}
    found = decisions(settings, table)
    rose = found["made_at"].dt.minute() % 4 == 0
    assert scores.keys() == {"decision", "equal average", "cnn", "lstm"}
    assert {row["closes"] for row in scores.values()} == {len(found)}
    assert scores["decision"]["accuracy"] == pytest.approx(((found["probability"] >= 0.5) == rose).mean())
    acted = found.with_columns(rose=rose).filter(pl.col("action") != "hold")
    assert scores["decision"]["acted"] == pytest.approx(len(acted) / len(found))
    right = ((acted["action"] == "buy") == acted["rose"]).mean()
    assert scores["decision"]["accuracy_where_acted"] == pytest.approx(right)
    printed = io.StringIO()
    print_decisions(Console(file=printed, width=80), told.decisions, told.decision_scores)
    assert max(map(len, printed.getvalue().splitlines())) <= 80
    for name in scores:
        assert name in printed.getvalue()
