"""The strategies that FreqAI's users would write: its documented example, asked about the next candle alone."""

from freqtrade.templates.FreqaiExampleStrategy import FreqaiExampleStrategy
from pandas import DataFrame


class NextReturn(FreqaiExampleStrategy):
    """The documented features and target (the return over `label_period_candles`); nothing is bought or sold."""

    can_short = False

    def populate_entry_trend(self, df: DataFrame, metadata: dict) -> DataFrame:
        return df

    def populate_exit_trend(self, df: DataFrame, metadata: dict) -> DataFrame:
        return df


class NextDirection(FreqaiExampleStrategy):
    """The documented features, and as the documentation has it for classifiers, whether the next close is higher.

    A candle that closes where the last one did has no direction, the newest one has none yet: FreqAI leaves out rows
    without a label.
    """

    can_short = False

    def set_freqai_targets(self, dataframe: DataFrame, metadata: dict, **kwargs) -> DataFrame:
        change = dataframe["close"].diff().shift(-1)
        direction = dataframe["close"].astype(object)
        direction[:] = None
        direction[change > 0] = "up"
        direction[change < 0] = "down"
        dataframe["&s-up_or_down"] = direction
        return dataframe

    def populate_entry_trend(self, df: DataFrame, metadata: dict) -> DataFrame:
        return df

    def populate_exit_trend(self, df: DataFrame, metadata: dict) -> DataFrame:
        return df
