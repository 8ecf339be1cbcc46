"""FreqAI as its bot runs it, without an exchange: a configuration on disk, a strategy, candles handed over one by one.

| what a bot has | here |
|---|---|
| configuration | a file, read by `Configuration` in dry-run mode and checked against its schema |
| candles since the start | a datadir in feather, written by freqtrade's own handler, read as a bot does |
| newest candles from the venue | put where the exchange keeps them, as freqtrade's tests do: as many as it holds |
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
from freqtrade.freqai.data_kitchen import FreqaiDataKitchen
from freqtrade.resolvers import ExchangeResolver, StrategyResolver

PAIR, TIMEFRAME, MINUTE, DAY = "ETH/USDT", "1m", 60, 86_400
LIGHTGBM, TRANSFORMER = "LightGBMClassifier", "PyTorchTransformerRegressor"
STRATEGIES = {LIGHTGBM: "NextDirection", "LightGBMRegressor": "NextReturn", TRANSFORMER: "NextReturn"}
# As the documentation of PyTorchTransformerRegressor has it, but for one epoch, and the candles of its window beside it
TRANSFORMER_PARAMETERS = {
    "learning_rate": 3e-4,
    "trainer_kwargs": {"n_epochs": 1, "batch_size": 64},
    "model_kwargs": {"hidden_dim": 512, "dropout_percent": 0.2, "n_layer": 1},
}


def read_candles(file: str, start_ms: int, end_ms: int) -> pd.DataFrame:
    """The candles that open in [start_ms, end_ms), in freqtrade's columns."""
    candles = pd.read_parquet(file, filters=[("ts_ms", ">=", start_ms), ("ts_ms", "<", end_ms)])
    candles.insert(0, "date", pd.to_datetime(candles.pop("ts_ms"), unit="ms", utc=True).dt.as_unit("ms"))
    return candles


class Bot:
    """A dry-run bot of one pair in `folder`, which stands after the last of `candles`."""

    def __init__(
        self,
        folder: Path,
        candles: pd.DataFrame,
        *,
        model: str,
        days: int,
        jobs: int,
        runmode: RunMode = RunMode.DRY_RUN,
        timerange: str = "",
        **freqai: Any,
    ) -> None:
        """`jobs` are the threads of LightGBM; `freqai` are entries of that section of the configuration."""
        for path in ("user_data", "datadir"):
            (folder / path).mkdir()
        handler = get_datahandler(folder / "datadir", "feather")
        handler.ohlcv_store(PAIR, TIMEFRAME, candles, CandleType.SPOT)
        file = folder / "config.json"
        file.write_text(json.dumps(_configuration(folder, model, days, jobs, timerange, freqai)))
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
        now = int(self.candles["date"].iloc[-1].timestamp()) + MINUTE
        self.freqai.dd.load_all_pair_histories(self._timeranges(now)[1], self._kitchen(now))
        self.freqai.dd.set_pair_dict_info({"pair": PAIR})

    def start(self) -> None:
        """What happens at the start of a bot: history is loaded, the first model trained, the first prediction made."""
        self.load()
        self.train()
        self.strategy.analyze([PAIR])

    def close(self, candle: pd.DataFrame) -> None:
        """A candle has closed and stands where the exchange keeps the newest ones."""
        self.candles = pd.concat([self.candles.iloc[1:], candle], ignore_index=True)
        self._hand_over()

    def predict(self) -> None:
        """What the bot does with a new candle: features of all that the exchange holds, and a prediction."""
        self.strategy.analyze([PAIR])

    def train(self) -> None:
        """A new model of the last `days` days, saved, and the predictions so far: as the thread of the bot does it."""
        now = int(self.candles["date"].iloc[-1].timestamp()) + MINUTE
        trained, loaded = self._timeranges(now)
        self.freqai.extract_data_and_train_model(trained, PAIR, self.strategy, self._kitchen(now), loaded)
        self.freqai.dd.save_historic_predictions_to_disk()

    def _timeranges(self, now: int) -> tuple[TimeRange, TimeRange]:
        """What is trained on, and what has to be there for it: as `check_if_new_training_required` has it."""
        start = now - self.days * DAY
        warm_up = 2 * self.strategy.startup_candle_count * MINUTE
        return TimeRange("date", "date", start, now), TimeRange("date", "date", start - warm_up, now)

    def _kitchen(self, now: int) -> FreqaiDataKitchen:
        kitchen = FreqaiDataKitchen(self.config, True, PAIR)
        kitchen.set_paths(PAIR, now)
        return kitchen

    def _hand_over(self) -> None:
        held = self.exchange.ohlcv_candle_limit(TIMEFRAME, CandleType.SPOT) + self.strategy.startup_candle_count
        newest = self.candles.tail(held).reset_index(drop=True)
        self.exchange._klines[PAIR, TIMEFRAME, CandleType.SPOT] = newest


def _configuration(
    folder: Path, model: str, days: int, jobs: int, timerange: str, freqai: dict[str, Any]
) -> dict[str, Any]:
    """The smallest that the documentation shows, for one pair in one timeframe and the next candle."""
    features = {
        "include_timeframes": [TIMEFRAME],
        "include_corr_pairlist": [],
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
            "feature_parameters": features,
            "data_split_parameters": {"test_size": 0.25},
            "model_training_parameters": TRANSFORMER_PARAMETERS if model == TRANSFORMER else {"n_jobs": jobs},
            **({"conv_width": 30} if model == TRANSFORMER else {}),
            **freqai,
        },
    }
