"""Settings: each is read from hindsight.toml and from the environment, and nonsense is refused by name."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from hindsight.errors import SettingRefused
from hindsight.settings import Settings, as_toml, load

# Another value than the default, and one that is refused: too small, too large, or not one of those there are.
EXAMPLES: dict[str, tuple[object, object]] = {
    "home": ("elsewhere", ""),
    "source": ("ccxt:kraken", "bloomberg"),
    "archive_venue": ("okx", "simulated"),
    "symbols": (["SOL/USDT"], ["ETHUSDT"]),
    "timeframes": (["1h", "1s"], ["7m"]),
    "predicted": (["ETH/USDT 1m"], None),
    "models": (["another"], ["../another"]),
    "frame": (["own=60", "BTC/USDT 1m", "pivots=2"], None),
    "lookback": (60, 9),
    "warmup": (0, 10_001),
    "peer_deadline_seconds": (1.5, -1),
    "model_timeout_seconds": (2.5, 0),
    "first_month": ("2020-01", "2020-13"),
    "max_gap": (5, 0),
    "flat_fraction": (2.5, -0.1),
    "trend_ttl": (300, 9),
    "predict_every": (5, 0),
    "train_every": (30, 0),
    "batch_size": (64, 7),
    "replay_window": (5000, 999),
    "replay_minimum": (8, -1),
    "corrective_weight": (1.5, 5.0),
    "max_uses": (3, 0),
    "learning_rate": (0.002, 0),
    "weight_decay": (0.5, -1),
    "clip_norm": (2.0, 0),
    "average_decay": (0.9, 1.0),
    "seed": (1, -1),
    "device": ("cpu", "tpu"),
    "precision": ("bfloat16", "float16"),
    "threads": (2, 0),
    "snapshot_every": (500, 9),
    "checkpoints_kept": (7, 11),
    "score_window": (600, 59),
    "buy_threshold": (0.6, 0.49),
    "sell_threshold": (0.4, 0.51),
    "minimum_confidence": (0.5, 1.0),
    "fee": (0.0, 0.1),
    "half_spread": (0.001, -0.001),
    "retrain_steps": (0, -1),
    "drift_cool_down": (60, 59),
    "promote_every": (100, 99),
    "promote_confidence": (0.5, 1.0),
    "lock_timeout_seconds": (5.0, 0),
    "venue_url": ("http://127.0.0.1:8080", "ws:8080"),
    "venue_speed": (60.0, 0.5),
    "grace_seconds": (1.0, -1),
    "silent_seconds": (5.0, 0),
    "first_candles": (0, -1),
    "books": (False, "perhaps"),
    "bucket_sizes": (["SOL=0.05"], ["SOL=0"]),
    "book_venues": (["binance", "kraken@http://127.0.0.1:8080"], ["binance@8080"]),
    "book_age_seconds": (5.0, 0),
    "book_ages": (["kraken=5"], ["kraken"]),
    "run_launcher": ("stock", "docker"),
    "postgres_url": ("postgresql://user:word@localhost/hindsight", "mysql://localhost"),
    "late_seconds": (5.0, 0),
    "alert_urls": (["json://localhost:8000"], None),
    "simulated_seed": (8, -1),
    "simulated_signal": ("lead", "moonlight"),
    "simulated_phi": (0.1, 1.0),
}
REFUSED = {name: refused for name, (_, refused) in EXAMPLES.items() if refused is not None}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and an environment that sets nothing."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HINDSIGHT_{name.upper()}", raising=False)
    return tmp_path


def test_every_setting_has_an_example() -> None:
    assert EXAMPLES.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_setting_is_read_from_the_file_and_the_environment_overrides_it(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = EXAMPLES[name][0]
    (here / "hindsight.toml").write_text(f"{name} = {_toml(value)}\n")
    assert _plain(getattr(load(), name)) == value

    default = Settings.model_fields[name].default
    monkeypatch.setenv(f"HINDSIGHT_{name.upper()}", _text(default))
    assert getattr(load(), name) == default


@pytest.mark.parametrize("name", ["gate", "mixture", "equal", "none", "decision"])
def test_a_model_has_a_name_that_the_decision_uses_for_nothing_else(name: str) -> None:
    with pytest.raises(SettingRefused, match=f"setting models = .*'{name}' stands for the decision.*another name"):
        load(models=("cnn", name))
    assert load(models=("cnn", f"{name}_2")).models == ("cnn", f"{name}_2")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_setting_is_read_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = EXAMPLES[name][0]
    monkeypatch.setenv(f"HINDSIGHT_{name.upper()}", _text(value))
    assert _plain(getattr(load(), name)) == value


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("road", ["file", "environment"])
def test_nonsense_is_refused_with_the_field_the_value_and_what_would_be_right(
    name: str, road: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = REFUSED[name]
    if road == "file":
        (here / "hindsight.toml").write_text(f"{name} = {_toml(value)}\n")
    else:
        monkeypatch.setenv(f"HINDSIGHT_{name.upper()}", _text(value))
    with pytest.raises(SettingRefused) as refusal:
        load()
    message, field = str(refusal.value), Settings.model_fields[name]
    assert f"setting {name} = " in message
    assert _text(value) in message
    assert "hould" in message or "expected" in message, "the message does not say what would be right"
    assert str(field.description) in message
    assert repr(field.default) in message


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(here: Path) -> None:
    (here / "hindsight.toml").write_text("train_evry = 15\n")
    with pytest.raises(SettingRefused, match=r"'train_evry' is unknown.*train_every"):
        load()


def test_a_file_that_is_no_toml_is_refused(here: Path) -> None:
    (here / "hindsight.toml").write_text("train_every 15\n")
    with pytest.raises(SettingRefused, match=rf"^{here}/hindsight\.toml cannot be read: .*line 1"):
        load()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"seed = \xff"), id="no text"),
        pytest.param(Path.mkdir, id="a folder"),
    ],
)
def test_a_file_at_home_that_cannot_be_read_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", "home")
    (here / "home").mkdir()
    spoil(here / "home" / "hindsight.toml")
    with pytest.raises(SettingRefused, match=rf"^{here}/home/hindsight\.toml cannot be read: "):
        load()


def test_a_home_that_is_a_number_is_refused(here: Path) -> None:
    (here / "hindsight.toml").write_text("home = 5\n")
    with pytest.raises(SettingRefused, match=r"setting home = 5: Input is not a valid path"):
        load()


def test_what_is_wrong_is_said_in_our_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINDSIGHT_SYMBOLS", "ETHUSDT")
    with pytest.raises(SettingRefused, match=r"^setting symbols = 'ETHUSDT': expected symbols like ETH/USDT"):
        load()


def test_every_wrong_setting_is_named_at_once(here: Path) -> None:
    (here / "hindsight.toml").write_text("seed = -1\nthreads = 0\n")
    with pytest.raises(SettingRefused, match=r"(?s)seed = -1.*threads = 0|threads = 0.*seed = -1"):
        load()


def test_the_file_here_goes_before_the_one_at_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINDSIGHT_HOME", "home")
    (here / "home").mkdir()
    (here / "home" / "hindsight.toml").write_text("seed = 1\nthreads = 1\n")
    (here / "hindsight.toml").write_text("threads = 2\n")
    assert (load().seed, load().threads) == (1, 2)


def test_the_printed_file_sets_every_default(here: Path) -> None:
    (here / "hindsight.toml").write_text(as_toml())
    assert load() == Settings()
    assert tomllib.loads(as_toml()).keys() == Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("source", "venue"),
    [
        pytest.param("simulated", "simulated", id="simulated"),
        pytest.param("ccxt:kraken", "kraken", id="ccxt"),
        pytest.param("archive:some/folder", "binance", id="archive"),
    ],
)
def test_the_venue_of_every_key_follows_from_the_source(source: str, venue: str) -> None:
    assert load(source=source).venue == venue
    assert {stream.venue for stream in load(source=source).streams} == {venue}


# Frames ---------------------------------------------------------------------------------------------------------------


def test_every_stream_is_predicted_unless_some_are_named() -> None:
    both = load(symbols="ETH/USDT,BTC/USDT", timeframes="1m,1h", models="cnn,lstm")
    assert both.predicted_streams == both.streams
    chosen = both.model_copy(update={"predicted": ("BTC/USDT 1h", "ETH/USDT 1m")})
    assert [f"{each.symbol} {each.timeframe}" for each in chosen.predicted_streams] == ["ETH/USDT 1m", "BTC/USDT 1h"]
    assert len(both.learners) == 8
    assert {(each.timeframe, model) for each, model in chosen.learners} == {
        (timeframe, model) for timeframe in ("1m", "1h") for model in ("cnn", "lstm")
    }


def test_a_stream_to_predict_that_is_not_recorded_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        SettingRefused, match=r"predicted: expected some of BTC/USDT 1m, ETH/USDT 1m, found ETH/USDT 1h"
    ):
        load(predicted="ETH/USDT 1h")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        pytest.param("own,2m", r"setting frame: expected own, a timeframe \(1s, .*\), .* found '2m'", id="unknown"),
        pytest.param("own=1", "expected blocks of at least two candles", id="too short"),
        pytest.param(
            "own,1h,SOL/USDT 1m",
            r"setting frame: its blocks ETH/USDT 1h, SOL/USDT 1m are not recorded. Add them to symbols and timeframes",
            id="not recorded",
        ),
        pytest.param("standard", "its blocks ETH/USDT 1s, ETH/USDT 1h, ETH/USDT 1d, BTC/USDT 1s", id="standard"),
    ],
)
def test_a_frame_that_cannot_be_had_is_refused_with_the_blocks_that_are_wrong(frame: str, message: str) -> None:
    with pytest.raises(SettingRefused, match=message):
        load(frame=frame)


def test_the_standard_frame_stands_once_its_streams_are_recorded_and_named_for_what_they_are() -> None:
    recorded = {"symbols": "ETH/USDT,BTC/USDT", "timeframes": "1s,1m,1h,1d", "frame": "standard"}
    assert len(load(**recorded, predicted="ETH/USDT 1m").predicted_streams) == 1
    assert len(load(**recorded).predicted_streams) == 8
    with pytest.raises(SettingRefused, match="BTC/USDT 1s are not recorded"):
        load(**recorded | {"symbols": "ETH/USDT"}, predicted="ETH/USDT 1m")


def _text(value: object) -> str:
    """As a variable of the environment."""
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


def _toml(value: object) -> str:
    """As the value of a line of TOML, which writes these like JSON."""
    return json.dumps(value)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def test_the_same_symbol_twice_is_refused() -> None:
    with pytest.raises(SettingRefused, match="each once"):
        load(symbols="ETH/USDT,ETH/USDT")


def test_an_environment_variable_that_is_no_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HINDSIGHT_TRAIN_EVRY", "30")
    with pytest.raises(SettingRefused, match="HINDSIGHT_TRAIN_EVRY"):
        load()


def test_another_simulated_market_is_another_venue() -> None:
    assert load().venue == "simulated"
    assert load(simulated_seed=8).venue != load(simulated_phi=0.1).venue != "simulated"
