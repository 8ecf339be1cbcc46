"""FreqAI: what its model of the last days says of each candle that comes, over a stretch, by its backtesting."""

from pathlib import Path

from contenders.freqai_bot import DAY, LIGHTGBM, MINUTE, PAIR, Bot, read_candles
from freqtrade.enums import RunMode

MINUTE_MS, DAY_MS = 60_000, 86_400_000


def prepare(
    files: dict[str, str], start_ms: int, candles: int, days: int, every: int, jobs: int, freqai: dict[str, object]
):
    """The work: at each of `candles` closes after `start_ms`, the probability that the next close is higher.

    The model is trained anew every `every` candles on the `days` before. `freqai` are more entries of its
    configuration.
    """
    end_ms = start_ms + candles * MINUTE_MS
    known = read_candles(files, start_ms - days * DAY_MS, end_ms, "narrow")
    bot = Bot(
        Path.cwd(),
        known,
        model=LIGHTGBM,
        features="narrow",
        days=days,
        jobs=jobs,
        runmode=RunMode.BACKTEST,
        timerange=f"{start_ms // 1000}-{end_ms // 1000}",
        backtest_period_days=every * MINUTE / DAY,
        **freqai,
    )

    def work() -> dict[str, object]:
        found = bot.freqai.start(known[PAIR].copy(), {"pair": PAIR}, bot.strategy)
        found["open_ms"] = found["date"].dt.as_unit("ms").astype("int64")
        found = found[found["open_ms"] >= start_ms]
        return {
            "rows": (found["open_ms"] // MINUTE_MS).tolist(),
            "up": found["up"].tolist(),
            "refused": int((found["do_predict"] != 1).sum()),
        }

    return work
