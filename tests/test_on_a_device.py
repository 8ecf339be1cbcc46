"""Lessons and sweeps on a device beside the host's, with their work recorded and played: a stand-in for a GPU. They
lead to what they lead to on the processor, but for the last digits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from hindsight.inference.references import inference_ids
from hindsight.learn import learn, learn_live
from hindsight.market.streams import Window, to_ms
from hindsight.remake import remake
from hindsight.settings import Settings
from hindsight.sweep import sweep
from hindsight.training.graphs import Graphs
from tests.conftest import VENUE_DAYS
from tests.training.stand_in import STAND_IN, stood_in

TABLES = {
    "inference_references": "made_at",
    "hidden_states": "made_at",
    "outcomes": "settled_at, made_at, kind",
    "trend_validations": "settled_at, made_at",
    "training_steps": "step",
    "experiences": "made_at",
    "checkpoints": "checkpoint_id",
}
OF_TWO = ("hidden_states", "experiences")  # of a model that is read, and of one that takes positions
UNTIL, HOUR = datetime(2024, 3, 1, 8, tzinfo=UTC), timedelta(hours=1)
DIGITS = 1e-3  # in which they may differ: hidden states have 11 bits


@contextmanager
def on_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models run there while it lasts."""
    with stood_in(monkeypatch), monkeypatch.context() as patch:
        for module in ("recall", "sweep"):
            patch.setattr(f"hindsight.{module}.device_of", lambda _: STAND_IN)
        yield


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is recorded from now on, by name; "" for what was tried in vain."""
    names, usual = list[str](), Graphs._record

    def record(self: Graphs, name: tuple[str, ...], *given: object) -> object:
        found = usual(self, name, *given)
        names.append(name[0] if found else "")
        return found

    monkeypatch.setattr(Graphs, "_record", record)
    return names


def assert_alike(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert found.columns == expected.columns
    assert len(found) == len(expected) > 0
    for name in found.columns:
        one, other = found[name], expected[name]
        if name == "state":  # float16, as bytes
            one, other = (
                pl.Series(np.frombuffer(b"".join(each), np.float16).astype(np.float32)) for each in (one, other)
            )
        if isinstance(one.dtype, pl.Array | pl.List):
            one, other = one.explode(), other.explode()
        if one.dtype.is_float():
            np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=DIGITS, atol=DIGITS, err_msg=name)
        else:
            assert one.equals(other), name


@pytest.mark.parametrize("models", [("transformer",), ("lstm",), ("cnn", "dqn")], ids=" and ".join)
def test_lessons_through_the_tables_are_those_of_the_processor(
    venue_home: Settings,
    copy_home: Callable[..., Settings],
    table: Callable[..., pl.DataFrame],
    models: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    recorded: list[str],
):
    """Of the DQN, which sees what the CNN says, with that."""
    homes = [copy_home(venue_home, models=models) for _ in range(2)]
    for home, where in zip(homes, (nullcontext(), on_device(monkeypatch)), strict=True):
        with where:
            for model in models:
                learn(home, home.streams[0], model, UNTIL)
    assert set(recorded) == {"step", "say"}
    for name, order in TABLES.items():
        if "dqn" in models or name not in OF_TWO:
            expected, found = (table(home, name, f"model, {order}").drop("device", strict=False) for home in homes)
            assert_alike(found, expected)


def test_what_is_learned_in_parts_is_what_is_learned_at_once(
    venue_home: Settings,
    copy_home: Callable[..., Settings],
    table: Callable[..., pl.DataFrame],
    monkeypatch: pytest.MonkeyPatch,
):
    """To the bit, the last part as a live run does it: no recording is of weights that were brought back since."""
    at_once, in_parts = (copy_home(venue_home, models=("cnn",), snapshot_every=7) for _ in range(2))
    stream = at_once.streams[0]
    made = int(inference_ids("cnn", stream, np.array([to_ms(UNTIL - HOUR)]))[0])
    with on_device(monkeypatch):
        learn(at_once, stream, "cnn", VENUE_DAYS.end)
        for until in (UNTIL, UNTIL + 5 * HOUR):
            learn(in_parts, stream, "cnn", until)
        while list(learn_live(in_parts, stream, "cnn", lambda: VENUE_DAYS.end, leave_pivots=False)):
            pass
        assert remake(in_parts, made).difference <= 1e-6
    for name, order in TABLES.items():
        if name not in OF_TWO:
            found, expected = (
                table(home, name, order).drop("available_at", strict=False) for home in (in_parts, at_once)
            )
            assert found.equals(expected), name


@pytest.mark.parametrize("model", ["cnn", "lstm"])
def test_a_sweep_ranks_as_on_the_processor(
    venue_home: Settings,
    copy_home: Callable[..., Settings],
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    recorded: list[str],
):
    """Of many learners as one computation, and of those that cannot be one."""
    home, window, rows = copy_home(venue_home), Window(start=VENUE_DAYS.start, end=UNTIL), []
    for where in (nullcontext(), on_device(monkeypatch)):
        with where:
            rows.append(sweep(home, home.streams[0], model, window, {"learning_rate": ["0.0002", "0.01"]}))
    assert set(recorded) == ({"steps", "say"} if model == "cnn" else {"step", "say"})
    assert_alike(*(each.drop("seconds", "device") for each in rows))
