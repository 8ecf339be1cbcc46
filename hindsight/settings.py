"""Settings: `hindsight.toml`, each overridable by an environment variable `HINDSIGHT_<NAME>`.

Looked up in this order: environment, `./hindsight.toml`, `$HINDSIGHT_HOME/hindsight.toml`, the default.
`hindsight settings` prints the whole file with its defaults, units and a sentence on each setting.
"""

import json
import os
import re
import tomllib
from errno import EACCES
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from hindsight.errors import HomeUnwritable, SettingRefused
from hindsight.inference.shape import frame_shape
from hindsight.market.streams import TIMEFRAMES, Stream


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected each once, found {', '.join(names)}")
    return names


OF_THE_DECISION = ("gate", "mixture", "equal", "none", "decision")  # words of it where models are named
Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Names = Annotated[Listed, Field(min_length=1)]


class Settings(BaseSettings):
    """What a user may set. Times count in candles unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="HINDSIGHT_", extra="forbid", frozen=True)

    home: Annotated[Path, Field(description="folder that holds everything Hindsight writes")] = Path(".hindsight")
    source: Annotated[
        str, Field(pattern=r"^(simulated|ccxt:\w+|archive:.+)$", description="simulated, ccxt:VENUE or archive:DIR")
    ] = "simulated"
    archive_venue: Annotated[
        str, Field(pattern=r"^\w+$", description="venue that the files of an archive come from")
    ] = "binance"
    symbols: Annotated[Names, Field(description="markets to record and predict")] = ("ETH/USDT", "BTC/USDT")
    timeframes: Annotated[Names, Field(description="lengths of a candle; every market is recorded in each")] = ("1m",)
    predicted: Annotated[
        Listed, Field(description="of these streams those that models predict, as SYMBOL TIMEFRAME; empty: all of them")
    ] = ()
    models: Annotated[Names, Field(description="models that predict and learn")] = ("cnn", "lstm", "transformer", "dqn")
    frame: Annotated[
        Names,
        Field(
            description="blocks of a frame: own, a timeframe, SYMBOL TIMEFRAME, book, pivots, each with =LENGTH or"
            " without; or standard"
        ),
    ] = ("own", "pivots")
    lookback: Annotated[int, Field(ge=10, le=10_000, description="candles of a block that does not say its own")] = 300
    warmup: Annotated[
        int, Field(ge=0, le=10_000, description="candles before them that have to be there, to warm the indicators")
    ] = 300
    peer_deadline_seconds: Annotated[
        float, Field(ge=0, le=600, description="seconds after a close that a model waits for one that it reads")
    ] = 5.0
    model_timeout_seconds: Annotated[
        float,
        Field(gt=0, le=3600, description="seconds that a model may take over one batch, live, before it has failed"),
    ] = 20.0
    first_month: Annotated[
        str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="first month that Dagster offers as a partition")
    ] = "2017-08"

    max_gap: Annotated[int, Field(ge=1, le=1000, description="candles missing before the level-1 window resets")] = 3
    flat_fraction: Annotated[
        float, Field(ge=0, le=20, description="ATR14 that a price change must exceed to be up or down")
    ] = 1.0
    trend_ttl: Annotated[int, Field(ge=10, le=5000, description="candles until an unsettled trend expires")] = 200

    predict_every: Annotated[
        int, Field(ge=1, le=10_000, description="closes per prediction; above 5, none hears what another said")
    ] = 1
    train_every: Annotated[int, Field(ge=1, le=1000, description="closes per candle-triggered training step")] = 15
    batch_size: Annotated[int, Field(ge=8, le=4096, description="references per training batch")] = 32
    replay_window: Annotated[
        int, Field(ge=1000, le=1_000_000, description="candles back from which replay may draw")
    ] = 20_160
    replay_minimum: Annotated[int, Field(ge=0, le=1024, description="replayed references in every batch, at least")] = 4
    corrective_weight: Annotated[
        float, Field(ge=1, le=4, description="how much likelier a wrongly predicted reference is to be replayed")
    ] = 2.0
    max_uses: Annotated[int, Field(ge=1, le=100, description="times that one reference may be trained on")] = 12

    learning_rate: Annotated[float, Field(gt=0, le=0.1, description="AdamW step size")] = 2e-4
    weight_decay: Annotated[float, Field(ge=0, le=100, description="AdamW decoupled weight decay, of matrices")] = 1.5
    clip_norm: Annotated[float, Field(gt=0, le=1000, description="gradient norm above which steps shrink")] = 1.0
    average_decay: Annotated[
        float, Field(ge=0, lt=1, description="share of the running mean of the weights, which predicts, kept per step")
    ] = 0.9998
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="seed of initial weights and of every replay draw")] = 0
    device: Annotated[Literal["cpu", "cuda", "auto"], Field(description="where the models run")] = "auto"
    precision: Annotated[
        Literal["float32", "bfloat16"], Field(description="of the models' products of matrices; weights are float32")
    ] = "float32"
    threads: Annotated[int, Field(ge=1, le=256, description="processor threads of one learner")] = 1

    snapshot_every: Annotated[
        int, Field(ge=10, le=100_000, description="training steps between weights kept on disk by a backfill")
    ] = 1000
    checkpoints_kept: Annotated[
        int, Field(ge=5, le=10, description="snapshots told apart as the best, per model and stream")
    ] = 5
    score_window: Annotated[
        int, Field(ge=60, le=100_000, description="settled predictions over which a checkpoint is scored")
    ] = 1440
    buy_threshold: Annotated[
        float, Field(ge=0.5, lt=1, description="probability of a rise from which on the decision is to buy")
    ] = 0.55
    sell_threshold: Annotated[
        float, Field(gt=0, le=0.5, description="probability of a rise up to which the decision is to sell")
    ] = 0.45
    minimum_confidence: Annotated[
        float,
        Field(ge=0.5, lt=1, description="probability of the likelier side below which every decision is to hold"),
    ] = 0.525
    fee: Annotated[
        float, Field(ge=0, lt=0.1, description="share of what is traded that the venue takes; the DQN trades on paper")
    ] = 0.001
    half_spread: Annotated[
        float, Field(ge=0, lt=0.1, description="half the distance of bid and ask, as a share of the price")
    ] = 0.00005
    retrain_steps: Annotated[
        int, Field(ge=0, le=10_000, description="training steps on replayed references where drift is found; 0: none")
    ] = 30
    drift_cool_down: Annotated[
        int, Field(ge=60, le=1_000_000, description="closes after a drift in which no other counts")
    ] = 1440
    promote_every: Annotated[
        int,
        Field(ge=100, le=10_000_000, description="closes between looks at whether the learning weights are to serve"),
    ] = 14_400
    promote_confidence: Annotated[
        float, Field(ge=0.5, le=0.9999, description="confidence that they are better at which they do")
    ] = 0.95
    lock_timeout_seconds: Annotated[
        float, Field(gt=0, le=3600, description="seconds to wait while another program holds the DuckDB file")
    ] = 60.0

    venue_url: Annotated[
        str,
        Field(pattern=r"^(https?://\S+)?$", description="where the venue is reached live; empty: its own addresses"),
    ] = ""
    venue_speed: Annotated[
        float, Field(ge=1, le=1000, description="seconds that pass at the venue in one of ours; above 1 for tests only")
    ] = 1.0
    grace_seconds: Annotated[
        float,
        Field(ge=0, le=60, description="seconds after its close until the venue is asked for a candle, if need be"),
    ] = 2.0
    silent_seconds: Annotated[
        float, Field(ge=1, le=600, description="seconds without a message until a connection is made anew")
    ] = 20.0
    first_candles: Annotated[
        int, Field(ge=0, le=100_000, description="candles fetched when the feed meets a market for the first time")
    ] = 1000
    books: Annotated[bool, Field(description="whether the feed records order books")] = True
    bucket_sizes: Annotated[Listed, Field(description="width of an order-book bucket in quote currency, by base")] = (
        "ETH=1",
        "BTC=10",
    )
    book_venues: Annotated[
        Listed, Field(description="venues, as VENUE or VENUE@URL, whose books are added up; empty: the market's own")
    ] = ()
    book_age_seconds: Annotated[float, Field(gt=0, le=60, description="age beyond which a book counts as dead")] = 3.0
    book_ages: Annotated[Listed, Field(description="the same for single venues, as VENUE=SECONDS")] = ()

    run_launcher: Annotated[
        Literal["warm", "stock"], Field(description="runs forked from a warm process, or started anew as Dagster does")
    ] = "warm"
    postgres_url: Annotated[
        str, Field(pattern=r"^(postgresql://\S+)?$", description="database of Dagster's instance; empty: SQLite files")
    ] = ""
    late_seconds: Annotated[
        float, Field(gt=0, le=3600, description="seconds after a close beyond which its candle or prediction is late")
    ] = 10.0
    alert_urls: Annotated[Listed, Field(description="where alerts go beside the log: Apprise URLs")] = ()

    simulated_seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="seed of the simulated venue")] = 7
    simulated_signal: Annotated[
        Literal["momentum", "lead", "imbalance", "none"],
        Field(
            description="what tells the next simulated return: the 1m return before (momentum), BTC's 1s return two"
            " seconds before (lead), the order book a second before (imbalance), or nothing"
        ),
    ] = "momentum"
    simulated_phi: Annotated[
        float,
        Field(gt=-1, lt=1, description="correlation of a simulated return with what tells it: what can be learned"),
    ] = 0.3

    @field_validator("home", mode="before")
    @classmethod
    def _a_folder(cls, value: object) -> object:
        if value == "":  # as compose files pass what is not set; a path would read it as the current folder
            raise ValueError("expected the name of a folder, found none")
        return value

    @field_validator("timeframes")
    @classmethod
    def _known_timeframes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for timeframe in value:
            if timeframe not in TIMEFRAMES:
                raise ValueError(f"expected some of {', '.join(TIMEFRAMES)}, found {timeframe!r}")
        return _each_once(value)

    @field_validator("bucket_sizes", "book_ages")
    @classmethod
    def _name_and_number(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.fullmatch(r"\w+=\d*\.?\d+", entry) or not float(entry.partition("=")[2]):
                raise ValueError(f"expected entries like NAME=2.5, found {entry!r}")
        return value

    @field_validator("book_venues")
    @classmethod
    def _venue_and_url(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.fullmatch(r"\w+(@https?://\S+)?", entry):
                raise ValueError(f"expected entries like kraken or binance@http://127.0.0.1:8080, found {entry!r}")
        return value

    @field_validator("archive_venue")
    @classmethod
    def _not_simulated(cls, value: str) -> str:
        if value.startswith("simulated"):
            raise ValueError("expected the name of a real venue: simulated candles have that one to themselves")
        return value

    @field_validator("symbols")
    @classmethod
    def _base_and_quote(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in value:
            if not re.fullmatch(r"[A-Z0-9]+/[A-Z0-9]+(:[A-Z0-9]+)?", symbol):
                raise ValueError(f"expected symbols like ETH/USDT, found {symbol!r}")
        return _each_once(value)

    @field_validator("models")
    @classmethod
    def _plain_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for model in value:
            if not re.fullmatch(r"\w+", model):
                raise ValueError(f"expected names of letters, digits and _, found {model!r}")
            if model in OF_THE_DECISION:
                raise ValueError(
                    f"{model!r} stands for the decision, or for what it is made from, in tables and locks where a"
                    " model is named. Give the model another name, in the entry point of its package and here"
                )
        return _each_once(value)

    @model_validator(mode="after")
    def _frames_of_what_is_recorded(self) -> Self:
        recorded = {(stream.symbol, stream.timeframe) for stream in self.streams}
        names = {f"{symbol} {timeframe}" for symbol, timeframe in recorded}
        if unknown := [entry for entry in self.predicted if entry not in names]:
            raise ValueError(f"predicted: expected some of {', '.join(sorted(names))}, found {', '.join(unknown)}")
        for stream in self.predicted_streams:
            shape = frame_shape(self.frame, stream, lookback=self.lookback, warmup=self.warmup)
            if missing := [str(each) for each in shape.candles if (each.symbol, each.timeframe) not in recorded]:
                raise ValueError(
                    f"frame: its blocks {', '.join(missing)} are not recorded. Add them to symbols and timeframes, and"
                    " name the streams to predict in predicted"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        here = _read(Path("hindsight.toml"))
        home = Path(os.environ.get("HINDSIGHT_HOME") or str(here.get("home") or cls.model_fields["home"].default))
        files = (here, _read(home / "hindsight.toml"))
        return (init_settings, env_settings, *(InitSettingsSource(settings_cls, found) for found in files))

    @property
    def venue(self) -> str:
        """The venue part of every key: `simulated`, the ccxt id, or `archive_venue`.

        A simulated market of another signal, seed or predictability than the default is another venue, and says so.
        """
        kind, _, rest = self.source.partition(":")
        own = {name: getattr(self, name) for name in ("simulated_signal", "simulated_seed", "simulated_phi")}
        usual = {name: Settings.model_fields[name].default for name in own}
        named = [] if own == usual else list(own.values())[own["simulated_signal"] == usual["simulated_signal"] :]
        simulated = "-".join(map(str, ("simulated", *named)))
        return {"simulated": simulated, "ccxt": rest, "archive": self.archive_venue}[kind]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The configured streams: every symbol in every timeframe."""
        return tuple(
            Stream(venue=self.venue, symbol=symbol, timeframe=timeframe)
            for timeframe in self.timeframes
            for symbol in self.symbols
        )

    @property
    def predicted_streams(self) -> tuple[Stream, ...]:
        """Those of the streams that models predict."""
        chosen = [each for each in self.streams if f"{each.symbol} {each.timeframe}" in self.predicted]
        return tuple(chosen) or self.streams

    @property
    def learners(self) -> tuple[tuple[Stream, str], ...]:
        """Every model of every stream that is predicted."""
        return tuple((stream, model) for stream in self.predicted_streams for model in self.models)

    @property
    def warehouse_path(self) -> Path:
        return self.home / "hindsight.duckdb"

    @property
    def streams_path(self) -> Path:
        return self.home / "streams.txt"

    @property
    def landing_path(self) -> Path:
        return self.home / "landing"

    @property
    def heartbeat_path(self) -> Path:
        return self.home / "feed.json"

    @property
    def tape_path(self) -> Path:
        return self.home / "tape"

    @property
    def checkpoints_path(self) -> Path:
        return self.home / "checkpoints"


def load(**overrides: object) -> Settings:
    """The settings in force. Raises SettingRefused naming field, value and what would be right."""
    known = {f"HINDSIGHT_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith("HINDSIGHT_") and name.upper() not in known:
            raise SettingRefused(f"the environment sets {name}, which is no setting; the settings are {_names()}")
    try:
        return Settings(**overrides)  # pyright: ignore[reportArgumentType]  # pydantic checks them
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise SettingRefused("\n".join(lines)) from None


def _read(path: Path) -> dict[str, Any]:
    """What a file sets; nothing where there is none. Raises SettingRefused where it cannot be read."""
    try:
        return tomllib.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:  # not ours, a folder, no UTF-8, no TOML
        raise SettingRefused(f"{path.resolve()} cannot be read: {error}") from None


def make_home(settings: Settings) -> None:
    """The folder of the home is there, and can be written. Raises HomeUnwritable."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        if not os.access(settings.home, os.W_OK | os.X_OK):
            raise PermissionError(EACCES, os.strerror(EACCES), str(settings.home))
    except OSError as error:
        raise HomeUnwritable(
            f"expected a folder to write to, found that {settings.home} cannot be one: {error.strerror}; "
            "give it to this user, or set HINDSIGHT_HOME to another folder"
        ) from error


def _explain(problem: object) -> str:
    assert isinstance(problem, dict)
    said = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # of several settings together, which the message names
        return f"setting {said}"
    name = ".".join(str(part) for part in problem["loc"][:1])
    field = Settings.model_fields.get(name)
    if field is None:
        return f"setting {name!r} is unknown; the settings are {_names()}"
    return f"setting {name} = {problem['input']!r}: {said} ({field.description}; default {field.default!r})"


def _names() -> str:
    return ", ".join(Settings.model_fields)


def as_toml() -> str:
    """Every setting at its default, as the text of a commented `hindsight.toml`."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        value = json.dumps(default if isinstance(default, bool | int | float | list) else str(default))
        lines += [f"# {field.description}", f"{name} = {value}", ""]
    return "\n".join(lines)
