"""FreqAI as its bot runs it, without an exchange: a configuration on disk, a strategy, candles handed over one by one.

| what a bot has | here |
|---|---|
| configuration | a file, read by `Configuration` in dry-run mode and checked against its schema |
| candles since the start | a datadir in feather, written by freqtrade's own handler, read as a bot does |
| newest candles from the venue | put where the exchange keeps them, as freqtrade's tests do; of 4h, what there is |
| download at start | left out: the strategy is set up in the mode `other`, which does without |
| thread that looks once a second whose turn it is to be trained | left out: `train` does what it would do then |
| now | the newest candle's close, not this machine's clock |
"""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
from freqtrade.configuration import Configuration, TimeRange
from freqtrade.configuration.config_validation import validate_config_schema
from freqtrade.data.dataprovider import DataProvider
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType, RunMode
from freqtrade.exchange import timeframe_to_minutes
from freqtrade.freqai.data_kitchen import FreqaiDataKitchen
from freqtrade.resolvers import ExchangeResolver, StrategyResolver

PAIR, TIMEFRAME, MINUTE, DAY = "ETH/USDT", "1m", 60, 86_400
Candles = dict[str, pd.DataFrame]  # of a minute, by pair: PAIR, and the others that its features are made of
LIGHTGBM, TRANSFORMER = "LightGBMClassifier", "PyTorchTransformerRegressor"
STRATEGIES = {LIGHTGBM: "NextDirection", "LightGBMRegressor": "NextReturn", TRANSFORMER: "NextReturn"}
# As the documentation of PyTorchTransformerRegressor has it, but for one epoch, and the candles of its window beside it
TRANSFORMER_PARAMETERS = {
    "learning_rate": 3e-4,
    "trainer_kwargs": {"n_epochs": 1, "batch_size": 64},
    "model_kwargs": {"hidden_dim": 512, "dropout_percent": 0.2, "n_layer": 1},
}
# "wide" is what the minimal configuration of the documentation asks for, which has 5m in place of 1m, and three other
# markets; "narrow" is what is left of that where nothing but the predicted candles is given.
FEATURES: dict[str, dict[str, list[str]]] = {
    "narrow": {"include_timeframes": [TIMEFRAME], "include_corr_pairlist": []},
    "wide": {"include_timeframes": [TIMEFRAME, "15m", "4h"], "include_corr_pairlist": ["BTC/USDT"]},
}
HELD = 1100  # candles before those that are trained on: what the exchange holds, and what indicators need
WARM_UP = 80  # candles of the longest timeframe that FreqAI wants before those that it trains on


def longest(timeframes: list[str]) -> int:
    """The minutes of the longest of them."""
    return max(map(timeframe_to_minutes, timeframes))


def read_candles(files: dict[str, str], start_ms: int, end_ms: int, features: str) -> Candles:
    """The candles that open from as long before `start_ms` as these features need, up to `end_ms`, in freqtrade's
    columns."""
    first_ms = start_ms - max(HELD, (WARM_UP + 1) * longest(FEATURES[features]["include_timeframes"])) * MINUTE * 1000
    found = {}
    for pair in (PAIR, *FEATURES[features]["include_corr_pairlist"]):
        candles = pd.read_parquet(files[pair], filters=[("ts_ms", ">=", first_ms), ("ts_ms", "<", end_ms)])
        candles.insert(0, "date", pd.to_datetime(candles.pop("ts_ms"), unit="ms", utc=True).dt.as_unit("ms"))
        found[pair] = candles
    return found


def resampled(candles: pd.DataFrame, timeframe: str) -> pd.DataFrame:
    """The candles of `timeframe` that have closed."""
    if timeframe == TIMEFRAME:
        return candles
    length = pd.Timedelta(minutes=timeframe_to_minutes(timeframe))
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    longer = candles.resample(length, on="date").agg(rules).dropna().reset_index()
    return longer[longer["date"] + length <= candles["date"].iloc[-1] + pd.Timedelta(seconds=MINUTE)]


class Bot:
    """A dry-run bot of one pair in `folder`, which stands after the last of `candles`."""

    def __init__(
        self,
        folder: Path,
        candles: Candles,
        *,
        model: str,
        features: str,
        days: int,
        jobs: int,
        runmode: RunMode = RunMode.DRY_RUN,
        timerange: str = "",
        **freqai: Any,
    ) -> None:
        """`features` is a name in FEATURES, `jobs` the threads of LightGBM, and `freqai` entries of that section of the
        configuration."""
        for path in ("user_data", "datadir"):
            (folder / path).mkdir()
        handler = get_datahandler(folder / "datadir", "feather")
        self.timeframes = FEATURES[features]["include_timeframes"]
        for pair, each in candles.items():
            for timeframe in self.timeframes:
                handler.ohlcv_store(pair, timeframe, resampled(each, timeframe), CandleType.SPOT)
        file = folder / "config.json"
        file.write_text(json.dumps(_configuration(folder, model, features, days, jobs, timerange, freqai)))
        self.config = Configuration({"config": [str(file)]}, RunMode.OTHER).get_config()
        validate_config_schema(self.config)
        logging.disable(logging.INFO)
        self.config["datadir"] = folder / "datadir"
        self.config["strategy_path"] = str(Path(__file__).parent)
        self.exchange = ExchangeResolver.load_exchange(self.config, validate=False)
        self.strategy = StrategyResolver.load_strategy(self.config)
        self.strategy.dp = DataProvider(self.config, self.exchange)
        self.strategy.ft_bot_start()
        self.config["runmode"] = runmode
        self.freqai = self.strategy.freqai
        self.freqai.live = runmode == RunMode.DRY_RUN
        self.freqai.scanning = True  # so that no thread is started
        self.days, self.candles = days, candles

    @property
    def models(self) -> Path:
        """The folder in which FreqAI keeps all that it has learned and said."""
        return Path(self.freqai.full_path)

    def load(self) -> None:
        """History is loaded; nothing is learned yet."""
        self._hand_over()
        now = int(self.candles[PAIR]["date"].iloc[-1].timestamp()) + MINUTE
        self.freqai.dd.load_all_pair_histories(self._timeranges(now)[1], self._kitchen(now))
        self.freqai.dd.set_pair_dict_info({"pair": PAIR})

    def start(self) -> None:
        """What happens at the start of a bot: history is loaded, the first model trained, the first prediction made."""
        self.load()
        self.train()
        self.strategy.analyze([PAIR])

    def close(self, candles: Candles) -> None:
        """A candle of each pair has closed and stands where the exchange keeps the newest ones."""
        self.candles = {
            pair: pd.concat([each.iloc[1:], candles[pair]], ignore_index=True) for pair, each in self.candles.items()
        }
        self._hand_over()

    def predict(self) -> None:
        """What the bot does with a new candle: features of all that the exchange holds, and a prediction."""
        self.strategy.analyze([PAIR])

    def train(self) -> None:
        """A new model of the last `days` days, saved, and the predictions so far: as the thread of the bot does it."""
        now = int(self.candles[PAIR]["date"].iloc[-1].timestamp()) + MINUTE
        trained, loaded = self._timeranges(now)
        self.freqai.extract_data_and_train_model(trained, PAIR, self.strategy, self._kitchen(now), loaded)
        self.freqai.dd.save_historic_predictions_to_disk()

    def _timeranges(self, now: int) -> tuple[TimeRange, TimeRange]:
        """What is trained on, and what has to be there for it: as `check_if_new_training_required` has it."""
        start = now - self.days * DAY
        warm_up = 2 * self.strategy.startup_candle_count * longest(self.timeframes) * MINUTE
        return TimeRange("date", "date", start, now), TimeRange("date", "date", start - warm_up, now)

    def _kitchen(self, now: int) -> FreqaiDataKitchen:
        kitchen = FreqaiDataKitchen(self.config, True, PAIR)
        kitchen.set_paths(PAIR, now)
        return kitchen

    def _hand_over(self) -> None:
        for timeframe in self.timeframes:
            held = self.exchange.ohlcv_candle_limit(timeframe, CandleType.SPOT) + self.strategy.startup_candle_count
            for pair, each in self.candles.items():
                newest = resampled(each, timeframe).tail(held).reset_index(drop=True)
                self.exchange._klines[pair, timeframe, CandleType.SPOT] = newest


def _configuration(
    folder: Path, model: str, features: str, days: int, jobs: int, timerange: str, freqai: dict[str, Any]
) -> dict[str, Any]:
    """The minimal one of the documentation, for the next candle of one pair."""
    parameters = {
        **FEATURES[features],
        "label_period_candles": 1,
        "include_shifted_candles": 2,
        "indicator_periods_candles": [10, 20],
    }
    return {
        "dry_run": True,
        "max_open_trades": 1,
        "stake_currency": "USDT",
        "stake_amount": 100,
        "timeframe": TIMEFRAME,
        "timerange": timerange,
        "exchange": {"name": "binance", "pair_whitelist": [PAIR], "pair_blacklist": [], "enable_ws": False},
        "pairlists": [{"method": "StaticPairList"}],
        "entry_pricing": {"price_side": "same"},
        "exit_pricing": {"price_side": "same"},
        "user_data_dir": str(folder / "user_data"),
        "strategy": STRATEGIES[model],
        "freqaimodel": model,
        "freqai": {
            "enabled": True,
            "purge_old_models": 2,
            "train_period_days": days,
            "backtest_period_days": 7,
            "identifier": "peers",
            "feature_parameters": parameters,
            "data_split_parameters": {"test_size": 0.25},
            "model_training_parameters": TRANSFORMER_PARAMETERS if model == TRANSFORMER else {"n_jobs": jobs},
            **({"conv_width": 30} if model == TRANSFORMER else {}),
            **freqai,
        },
    }
