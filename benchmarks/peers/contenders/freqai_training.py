"""FreqAI: one training of a model on days of candles, in a process that has done nothing else."""

from pathlib import Path

import pandas as pd
from contenders.freqai_bot import TRANSFORMER, Bot, read_candles

DAY_MS = 86_400_000


def prepare(files: dict[str, str], features: str, end_ms: int, days: int, model: str, test_size: float, jobs: int):
    """The work: features, training and saving, once. History is in memory before."""
    candles = read_candles(files, end_ms - days * DAY_MS, end_ms, features)
    split = {"test_size": test_size}
    bot = Bot(Path.cwd(), candles, model=model, features=features, days=days, jobs=jobs, data_split_parameters=split)
    bot.load()

    def work() -> dict[str, object]:
        bot.train()
        kitchen = bot.freqai.dd.meta_data_dictionary["ETH/USDT"]["metadata"]
        (folder,) = bot.models.glob("sub-train-*")
        files = {each.name.split("_", 3)[-1]: each.stat().st_size for each in folder.rglob("*") if each.is_file()}
        (dates,) = folder.glob("*_trained_dates_df.pkl")
        found = {
            "features": len(kitchen["training_features_list"]),
            "rows": len(pd.read_pickle(dates)),
            "files": files,
            "disk_bytes": sum(files.values()),
        }
        if model == TRANSFORMER:
            trainer = bot.freqai.dd.model_dictionary["ETH/USDT"]
            found["weights"] = sum(each.numel() for each in trainer.model.parameters())
        return found

    return work
