"""FreqAI: candle after candle, from its close to the prediction and to the new model that stands on disk."""

import time
from pathlib import Path

from contenders.freqai_bot import Bot, read_candles

MINUTE_MS, DAY_MS = 60_000, 86_400_000


def prepare(
    files: dict[str, str],
    features: str,
    end_ms: int,
    days: int,
    model: str,
    closes: int,
    is_trained: bool,
    jobs: int,
):
    """The work: `closes` candles from `end_ms` on, each predicted from and, where `is_trained`, then trained on.

    The bot has run before: `days` of candles before `end_ms` are in its first model, and a prediction was made.
    """
    candles = read_candles(files, end_ms - days * DAY_MS, end_ms + closes * MINUTE_MS, features)
    before = {pair: each.iloc[:-closes] for pair, each in candles.items()}
    after = {pair: each.iloc[-closes:] for pair, each in candles.items()}
    bot = Bot(Path.cwd(), before, model=model, features=features, days=days, jobs=jobs)
    bot.start()
    history = bot.models / "historic_predictions.pkl"

    def work() -> dict[str, object]:
        found = []
        for at in range(closes):
            bot.close({pair: each.iloc[at : at + 1] for pair, each in after.items()})
            wall, processor, written = time.perf_counter(), time.process_time(), _written()
            bot.predict()
            taken = {
                "predicted": time.perf_counter() - wall,
                "predicted_processor": time.process_time() - processor,
                "predicted_written": _written() - written,
            }
            if is_trained:
                bot.train()
            taken |= {
                "wall": time.perf_counter() - wall,
                "processor": time.process_time() - processor,
                "written": _written() - written,
            }
            found.append(taken)
        if not is_trained:
            bot.freqai.dd.save_historic_predictions_to_disk()
        said = bot.freqai.dd.historic_predictions["ETH/USDT"]
        newest = int(said["date_pred"].iloc[-1].timestamp() * 1000)
        if newest != end_ms + (closes - 1) * MINUTE_MS:
            raise RuntimeError(f"the newest prediction is of the candle that opens at {newest} ms")
        kitchen = bot.freqai.dd.meta_data_dictionary["ETH/USDT"]["metadata"]
        return {
            "closes": found,
            "predictions": len(said),
            "history_bytes": history.stat().st_size,
            "features": len(kitchen["training_features_list"]),
        }

    return work


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
