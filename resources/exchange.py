"""Where candles come from, as a Dagster resource: the simulated venue, a ccxt venue, or an archive of files."""

import dagster as dg

from hindsight.exchange.sources import Source, open_source
from hindsight.settings import load


class SourceResource(dg.ConfigurableResource):
    """The source that the setting `source` names."""

    def open(self) -> Source:
        """The source of the settings in force; ccxt is imported only where that is the one."""
        return open_source(load())
