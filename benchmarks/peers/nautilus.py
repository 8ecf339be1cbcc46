"""The catalog of NautilusTrader that rows compare with: recorded candles, written as its documentation writes them."""

from functools import cache
from pathlib import Path

from benchmarks.homes import ETH, FILES, new_folder
from benchmarks.peers.environments import Environment, take
from hindsight.market.streams import Window, to_ms

NAUTILUS = Environment(name="nautilus", requirements=("nautilus_trader==1.221.0",))
BAR_TYPE = "ETHUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL"


@cache
def catalog_of(window: Window, *, monthly: bool) -> Path:
    """A catalog with the candles of `window`, in one file or one for each month; shared by all who read it."""
    catalog = new_folder("nautilus")
    take(
        NAUTILUS,
        "nautilus_catalog",
        candles=str(FILES[ETH]),
        catalog=str(catalog),
        bar_type=BAR_TYPE,
        first_ms=to_ms(window.start),
        end_ms=to_ms(window.end),
        monthly=monthly,
    )
    return catalog
