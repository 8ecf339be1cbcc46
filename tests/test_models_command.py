"""`hindsight models`: what it prints fits eighty columns, and what it does takes effect at the next close."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from hindsight.cli import app
from hindsight.learn import learn
from hindsight.settings import Settings, load
from hindsight.store import lock

LOOK = datetime(2024, 2, 29, 22, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CHANGED = {"models": ("cnn",), "lookback": 60, "warmup": 60, "trend_ttl": 10, "promote_every": 600}


@pytest.fixture(scope="session")
def served_home(venue_home: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Half an hour after the first look, with its settings in a hindsight.toml beside the tables."""
    home = shutil.copytree(venue_home.home, tmp_path_factory.mktemp("served") / "home")
    settings = venue_home.model_copy(update={"home": home, **CHANGED})
    learn(settings, settings.streams[0], "cnn", LOOK + 30 * MINUTE)
    usual = {name: field.default for name, field in Settings.model_fields.items()}
    values = {name: value for name, value in settings.model_dump(mode="json").items() if name != "home"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value != _plain(usual[name])]
    (home / "hindsight.toml").write_text("\n".join(lines) + "\n")
    return settings


def _plain(default: object) -> object:
    return list(default) if isinstance(default, tuple) else default


@pytest.fixture
def at_home(
    served_home: Settings, copy_home: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """A copy of the home, which the commands find."""

    def go(**changed: object) -> Settings:
        copied = copy_home(served_home, **changed)
        monkeypatch.chdir(copied.home)
        monkeypatch.setenv("HINDSIGHT_HOME", str(copied.home))
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.delenv("HINDSIGHT_MODELS", raising=False)  # its hindsight.toml names them
        for name, value in changed.items():
            monkeypatch.setenv(f"HINDSIGHT_{name.upper()}", ",".join(value) if isinstance(value, tuple) else str(value))
        assert load() == copied
        return copied

    return go


def hindsight(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", *words])


def words(result: Result) -> str:
    return " ".join(result.output.split())


def serving(settings: Settings, table: Callable) -> int:
    return table(settings, "checkpoints", "checkpoint_id").filter("is_serving")["checkpoint_id"].item()


def test_list_prints_the_checkpoints_and_the_looks_in_eighty_columns(at_home: Callable, table: Callable):
    settings = at_home()
    printed = hindsight("list")
    assert printed.exit_code == 0, printed.output
    assert max(map(len, printed.output.splitlines())) <= 80
    first = table(settings, "promotions", "event_time").row(0, named=True)
    assert f"checkpoint {first['serving_after']} serves, since 2024-02-29 22:00" in printed.output
    assert "Ranked by log loss; lower is better." in printed.output
    kept = table(settings, "checkpoints", "checkpoint_id").filter(pl.col("evicted_at").is_null())
    for checkpoint in kept.iter_rows(named=True):
        (line,) = (
            line for line in printed.output.splitlines() if line.split()[:1] == [str(checkpoint["checkpoint_id"])]
        )
        assert f"{checkpoint['event_time']:%Y-%m-%d %H:%M}" in line
        assert f"{checkpoint['metric_value']:.4f}" in line
        assert [flag for flag in ("best", "latest", "serving", "pinned", "snapshot") if checkpoint[f"is_{flag}"]] == [
            word.strip(",") for word in line.split()[5:]
        ]
    assert f"2024-02-29 22:00 first - {first['challenger']}" in words(printed)


def test_list_prints_the_evidence_of_each_look_in_eighty_columns(at_home: Callable, table: Callable):
    settings = at_home()
    learn(settings, settings.streams[0], "cnn", LOOK + 610 * MINUTE)
    printed = hindsight("list", "--stream", "ETH/USDT 1m")
    assert max(map(len, printed.output.splitlines())) <= 80
    look = table(settings, "promotions", "event_time").row(-1, named=True)
    told = f"{look['outcome']} {look['serving_before']} {look['challenger']} {look['references_compared']}"
    assert f"2024-03-01 08:00 {told} {look['difference']:+.4f}" in words(printed)
    for name in ("loss_champion", "loss_challenger"):
        assert f"{look[name]:.4f}" in printed.output
    assert f"{look['blocks']} blocks [{look['difference_low']:+.4f}, {look['difference_high']:+.4f}]" in words(printed)


def test_status_prints_what_serves_and_the_last_look(at_home: Callable, table: Callable):
    settings = at_home()
    printed = CliRunner().invoke(app, ["status"])
    assert printed.exit_code == 0, printed.output
    assert max(map(len, printed.output.splitlines())) <= 80
    lines = {
        line.split("│")[1].strip(): line.split("│")[2].strip() for line in printed.output.splitlines() if "│" in line
    }
    assert lines["serving checkpoint"] == str(serving(settings, table))
    assert lines["serving since"] == lines["last look"] == "2024-02-29 22:00"
    assert lines["its outcome"] == "first"
    refused = table(settings, "refused_frames", "first_at")
    assert f"candles ETH/USDT 1m {refused['closes'].sum()} 0 of 60 2024-02-29 14:02" in words(printed)


def test_a_promoted_checkpoint_serves_from_the_next_close_and_a_rollback_takes_it_back(
    at_home: Callable, table: Callable
):
    settings = at_home()
    until, before = LOOK + 30 * MINUTE, serving(settings, table)
    for command, after in ((("promote", "cnn", "12"), 12), (("rollback", "cnn"), before)):
        said = hindsight(*command)
        assert said.exit_code == 0, said.output
        assert f"checkpoint {after} serves from the next close after {until:%Y-%m-%d %H:%M:%S} UTC on" in said.output
        assert serving(settings, table) == after
        learn(settings, settings.streams[0], "cnn", until + 10 * MINUTE)
        made = table(settings, "inference_references", "made_at").filter(pl.col("made_at") > until)
        assert made["serving_id"].to_list() == [after] * 5
        until += 10 * MINUTE
    again = hindsight("rollback", "cnn")
    assert again.exit_code == 1
    assert f"nothing served before checkpoint {before}" in words(again)
    same = hindsight("promote", "cnn", str(before))
    assert f"checkpoint {before} serves already" in words(same)
    assert len(table(settings, "promotions", "event_time")) == 3


def test_a_pinned_checkpoint_is_marked_until_it_is_let_go(at_home: Callable, table: Callable):
    settings = at_home()
    assert "stays whatever its score" in hindsight("pin", "cnn", "30").output
    assert "snapshot, pinned" in words(hindsight("list")) or "pinned, snapshot" in words(hindsight("list"))
    assert table(settings, "checkpoints", "checkpoint_id").filter("is_pinned")["checkpoint_id"].to_list() == [30]
    assert hindsight("pin", "cnn", "30", "--off").exit_code == 0
    assert not table(settings, "checkpoints", "checkpoint_id")["is_pinned"].any()


@pytest.mark.parametrize(
    "command", [("pin", "cnn", "30"), ("pin", "cnn", "30", "--off"), ("rollback", "cnn"), ("promote", "cnn", "12")]
)
def test_a_word_by_hand_waits_for_whoever_teaches_the_model(at_home: Callable, table: Callable, command: tuple):
    """What is read and written in between would be lost: a rollback writes all checkpoints as it found them."""
    settings = at_home(lock_timeout_seconds=0.2)
    before = table(settings, "checkpoints", "checkpoint_id")
    lesson = settings.checkpoints_path / f"cnn {settings.streams[0]}.learning".replace("/", "-")
    with lock.held(lesson), ThreadPoolExecutor(1) as pool:
        said = pool.submit(hindsight, *command).result()
    assert said.exit_code == 1
    assert "cnn is being taught by another process" in words(said)
    assert table(settings, "checkpoints", "checkpoint_id").equals(before)
    assert hindsight("pin", "cnn", "30").exit_code == 0


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        pytest.param(["promote", "gpt", "3"], "expected a model of the setting models, cnn, found 'gpt'", id="model"),
        pytest.param(["promote", "cnn", "9999"], "expected a checkpoint of 1 …", id="no such step"),
        pytest.param(["pin", "cnn", "13"], "expected a checkpoint that is kept", id="not kept"),
        pytest.param(["rollback", "cnn"], "nothing served before", id="nothing before"),
        pytest.param(
            ["rollback", "cnn", "--stream", "XRP/USDT 1m"], "which are predicted, found 'XRP/USDT 1m'", id="stream"
        ),
        pytest.param(["list", "--stream", "1m"], 'expected "ETH/USDT 1m", which are predicted', id="stream of list"),
    ],
)
def test_what_cannot_be_is_told_plainly(at_home: Callable, table: Callable, command: list[str], complaint: str):
    settings = at_home()
    before = table(settings, "promotions", "event_time")
    printed = hindsight(*command)
    assert printed.exit_code == 1
    assert complaint in words(printed)
    assert "SettingRefused" in printed.output
    assert "Traceback" not in printed.output
    assert table(settings, "promotions", "event_time").equals(before)


def test_of_several_streams_one_has_to_be_named(at_home: Callable, table: Callable):
    settings = at_home(symbols=("ETH/USDT", "BTC/USDT"))
    refused = hindsight("promote", "cnn", "12")
    assert refused.exit_code == 1
    assert '2 streams are predicted: say which with --stream "ETH/USDT 1m" or "BTC/USDT 1m"' in words(refused)
    assert hindsight("promote", "cnn", "12", "--stream", "ETH/USDT 1m").exit_code == 0
    assert serving(settings, table) == 12
    listed = hindsight("list")
    assert "cnn, simulated-19-0.3 BTC/USDT 1m: has not learned yet." in words(listed)
    assert "checkpoint 12 serves" in listed.output


def test_of_what_has_not_learned_there_is_nothing_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HINDSIGHT_HOME", str(tmp_path))
    monkeypatch.setenv("HINDSIGHT_MODELS", "transformer")
    monkeypatch.chdir(tmp_path)
    assert "transformer, simulated ETH/USDT 1m: has not learned yet." in words(hindsight("list"))
    for command in (("rollback", "transformer"), ("promote", "transformer", "1")):
        refused = hindsight(*command, "--stream", "ETH/USDT 1m")
        assert refused.exit_code == 1
        assert "transformer has not learned from simulated ETH/USDT 1m yet" in words(refused)
