"""Catching up: a backlog taken live, piece by piece, leaves the tables of one backfill, whoever is late in between.

The DQN reads the CNN. It waits while the CNN works through the backlog, and goes on without one that moves nowhere.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from hindsight.advance import advance
from hindsight.decide import decide
from hindsight.learn import learn
from hindsight.market.streams import Window, floor_to, to_ms
from hindsight.recall_blocks import MOVING
from hindsight.settings import Settings
from hindsight.store import lock
from hindsight.store.warehouse import Warehouse
from hindsight.verify import references_not_resolving
from tests.test_advance import land

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
START = datetime(2024, 2, 29, 14, tzinfo=UTC)
PIECE = 120  # closes; on the grid of the even hours
CHANGED = {"models": ("dqn", "cnn"), "lookback": 60, "warmup": 60, "trend_ttl": 10}
TABLES = {
    "inference_references": "model, made_at",
    "hidden_states": "model, made_at",
    "outcomes": "model, settled_at, made_at, kind",
    "trend_validations": "model, settled_at, made_at",
    "training_steps": "model, step",
    "experiences": "made_at",
    "scores": "model, day, target, predictor",
    "refused_frames": "model, first_at, block",
    "drifts": "model, event_time, detector",
    "decisions": "made_at",
    "gate_states": "as_of",
    "learned_until": "model",
}


@pytest.fixture
def down(venue_home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty home in which a call learns one short piece of a backlog, and waits for nobody else's lesson."""
    for room in ("learn", "piece"):
        monkeypatch.setattr(f"hindsight.{room}.CHUNK", PIECE)
    monkeypatch.setattr("hindsight.learn.LIVE_PATIENCE_SECONDS", 0.02)
    return venue_home.model_copy(update={"home": tmp_path / "down", **CHANGED})


def begin(settings: Settings, newest: datetime) -> None:
    """Lands a backlog up to `newest`, most of it behind the first live close."""
    land(settings, Window(start=START, end=START + MINUTE))
    advanced(settings, START + MINUTE)
    land(settings, Window(start=START + MINUTE, end=newest))


def advanced(settings: Settings, now: datetime, *, leave_pivots: bool = True) -> dict[str, datetime | None]:
    """How far a live call at `now` has taken whom. It runs in a thread of its own: this one may hold a lock."""

    def call() -> dict[str, datetime | None]:
        *_, done = advance(settings, lambda: now, leave_pivots=leave_pivots)
        assert not done.failures
        return {model: report.until for (_, model), report in done.lessons.items()}

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@contextmanager
def kept_from_learning(settings: Settings, model: str) -> Iterator[None]:
    """While somebody else teaches this model, and never finishes."""
    settings.checkpoints_path.mkdir(parents=True, exist_ok=True)
    with lock.held(settings.checkpoints_path / f"{model} {settings.streams[0]}.learning".replace("/", "-")):
        yield


@pytest.fixture
def learned(table: Callable) -> Callable[[Settings], dict[str, datetime]]:
    """Reads how far each model has come."""

    def read(settings: Settings) -> dict[str, datetime]:
        return dict(table(settings, "learned_until", "model").select("model", "until").iter_rows())

    return read


@pytest.fixture
def backfilled(venue_home: Settings, copy_home: Callable) -> Callable[[datetime], Settings]:
    """Makes a home in which everything up to an instant is learned and decided in one range."""

    def make(until: datetime) -> Settings:
        settings = copy_home(venue_home, **CHANGED)
        for model in ("cnn", "dqn"):
            learn(settings, settings.streams[0], model, until)
        decide(settings, settings.streams[0], until)
        return settings

    return make


def not_resolving(settings: Settings) -> pl.DataFrame:
    warehouse = Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30)
    with warehouse.reading() as con:
        return references_not_resolving(
            settings, con, settings.streams[0], Window(start=START, end=START + 9000 * MINUTE)
        )


def states_too_late(settings: Settings, table: Callable) -> list[datetime]:
    """The closes at which the CNN's state came after its deadline, and is masked for good."""
    states = table(settings, "hidden_states", "made_at").filter(model="cnn")
    with Warehouse(path=settings.warehouse_path, lock_timeout_seconds=30).reading() as con:
        sql = "select made_at from hidden_states where model = 'cnn' and available_at > made_at + $patience"
        patience = timedelta(seconds=settings.peer_deadline_seconds)
        late = {moment for (moment,) in con.execute(sql, {"patience": patience}).fetchall()}
    return [moment for moment in states["made_at"] if moment in late]


def test_a_backlog_taken_live_piece_by_piece_leaves_the_tables_of_a_backfill(
    down: Settings, backfilled: Callable, table: Callable, learned: Callable
):
    """Nine hours that nobody learned from, while closes go on coming; for one call the CNN is taught by another."""
    stopped, back = START + 140 * MINUTE, START + 680 * MINUTE
    begin(down, stopped)
    while learned(down).get("dqn") != stopped:
        advanced(down, stopped, leave_pivots=False)
    for hour in range(9):
        land(down, Window(start=stopped + 60 * hour * MINUTE, end=stopped + 60 * (hour + 1) * MINUTE))
    now, landed, calls = back + 2 * SECOND, back, []
    while len(calls) < 10:
        land(down, Window(start=landed, end=floor_to(now, MINUTE)))
        landed, before = floor_to(now, MINUTE), learned(down)
        if len(calls) == 2:
            with kept_from_learning(down, "cnn"):
                calls.append(advanced(down, now))
            assert learned(down)["cnn"] == before["cnn"]
            assert learned(down)["dqn"] <= before["cnn"] + MINUTE  # nobody predicts there
        else:
            calls.append(advanced(down, now))
        now += MINUTE
    advanced(down, now, leave_pivots=False)
    assert sum(call.get("dqn", START) < back for call in calls) >= 4
    expected = backfilled(landed)
    assert states_too_late(down, table) == []
    assert len(table(down, "decisions", "made_at")) > 270
    for name, order in TABLES.items():
        one, other = (table(each, name, order).drop("available_at", strict=False) for each in (down, expected))
        assert len(one) == len(other), name
        different = [column for column in other.columns if not one[column].equals(other[column])]
        assert not different, f"{name}: {different}"
    # A call leaves its latest weights, and takes those of the one before away as soon as nothing pending names them.
    assert len(table(down, "checkpoints", "checkpoint_id")) < len(table(expected, "checkpoints", "checkpoint_id")) + 8


def test_a_model_that_never_speaks_keeps_nobody_from_catching_up(down: Settings, table: Callable, learned: Callable):
    """Trap 30: nothing is made up, and what it says of those closes later changes none of them."""
    newest = START + 400 * MINUTE
    now = newest + 6 * SECOND
    with kept_from_learning(down, "cnn"):
        begin(down, newest)
        calls = 0
        while learned(down).get("dqn") != newest:
            assert advanced(down, now, leave_pivots=False).keys() == {"dqn"}
            calls += 1
    assert calls > 1
    made, decided = table(down, "inference_references", "made_at"), table(down, "decisions", "made_at")
    assert set(made["model"]) == {"dqn"}
    assert made["made_at"].max() == newest
    assert decided["made_at"].to_list() == made["made_at"].to_list()
    assert decided["contributions"].to_list() == [[0.0, 1.0]] * len(made)
    assert not_resolving(down).is_empty()
    while learned(down).get("cnn") != newest:
        assert advanced(down, now, leave_pivots=False).keys() == {"cnn"}
    after = table(down, "inference_references", "made_at")
    assert after.filter(model="dqn").equals(made)
    assert states_too_late(down, table) == after.filter(model="cnn")["made_at"].to_list()
    assert not_resolving(down).is_empty()


def test_a_model_that_stops_in_the_middle_of_a_backlog_is_waited_for_while_it_may_be_at_a_piece(
    down: Settings, table: Callable, learned: Callable
):
    newest, middle, further = (START + hours * 60 * MINUTE for hours in (9, 4, 6))
    now = newest + 30 * SECOND
    begin(down, newest)
    while learned(down)["cnn"] != middle:
        advanced(down, now)
    decided = table(down, "decisions", "made_at")
    assert decided["made_at"].max() == middle
    with kept_from_learning(down, "cnn"):
        for waited in (SECOND, MOVING / 2, MOVING - SECOND):
            advanced(down, now + waited)
            assert learned(down) == {"cnn": middle, "dqn": middle + MINUTE}  # nobody predicts there
            assert table(down, "decisions", "made_at").equals(decided)
        now += MOVING
        assert advanced(down, now) == {"dqn": further}
    # It is back, and waited for again.
    assert advanced(down, now + SECOND)["cnn"] == further
    assert learned(down)["dqn"] <= further + MINUTE
    while min(learned(down).values()) != newest:
        advanced(down, now + 2 * SECOND, leave_pivots=False)
    made = table(down, "inference_references", "made_at").filter(model="cnn")["made_at"]
    assert states_too_late(down, table) == made.filter((made > middle) & (made <= further)).to_list()
    assert not_resolving(down).is_empty()
    assert table(down, "decisions", "made_at")["made_at"].max() == newest


def test_a_close_is_noted_once_where_it_ends_a_piece_and_its_pivot_was_left_to_another_run(
    down: Settings, venue_home: Settings, table: Callable, learned: Callable, monkeypatch: pytest.MonkeyPatch
):
    """That run never comes, and the next close finds it as the first piece of two."""
    settings = down.model_copy(update={"models": ("cnn",), "predict_every": 1})
    confirmed = table(venue_home, "pivots", "confirmed_at").filter(pl.col("level") == 2)["confirmed_at"]
    close = confirmed.filter(confirmed > START + 200 * MINUTE)[0]
    begin(settings, close - MINUTE)
    while learned(settings).get("cnn") != close - MINUTE:
        advanced(settings, close - MINUTE, leave_pivots=False)
    monkeypatch.setattr("hindsight.piece.CHUNK", to_ms(close) // 60_000)
    for newest in (close, close + MINUTE):
        land(settings, Window(start=newest - MINUTE, end=newest))
        advanced(settings, newest + SECOND)
    noted = table(settings, "timings", "reached_at").filter(model="cnn", close_time=close)
    assert noted.select("stage", pl.col("reached_at") - close).rows() == [
        ("predicted", SECOND),
        ("trained", MINUTE + SECOND),
    ]


@pytest.mark.parametrize("every", [2, 5])
def test_at_a_close_at_which_nobody_predicts_nobody_is_waited_for(down: Settings, learned: Callable, every: int):
    settings = down.model_copy(update={"predict_every": every})
    close = START + 200 * MINUTE
    begin(settings, close)
    while learned(settings).get("dqn") != close:
        advanced(settings, close, leave_pivots=False)
    for _ in range(every + 1):
        land(settings, Window(start=close, end=close + MINUTE))
        close += MINUTE
        assert advanced(settings, close) == {"cnn": close, "dqn": close}
