"""A picture of the last candles with the pivots known by then and the newest trend line: a look is a check too."""

import base64
import io
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from assets.partitions import Stretch
from hindsight.market.streams import Window
from hindsight.market.trend_lines import TrendLine, line_through
from hindsight.store.market_tables import read_candles, read_pivots
from hindsight.store.warehouse import Warehouse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 200  # candles
HISTORY = 50  # candles before those shown in which the trend line's pivots may lie
UP, DOWN, LINE = "#26806b", "#b5473c", "#3b5bdb"


def chart(warehouse: Warehouse, covered: Sequence[Stretch]) -> dict[str, dg.MetadataValue]:
    """The last SHOWN candles of what a run covered, as a PNG inside Markdown; nothing where nothing was covered."""
    if not covered:
        return {}
    stream, end = covered[-1].stream, covered[-1].window.end
    window = Window(start=end - SHOWN * stream.step, end=end)
    earlier = Window(start=window.start - HISTORY * stream.step, end=end)
    with warehouse.reading() as con:
        candles, pivots = read_candles(con, stream, window), read_pivots(con, stream, earlier)
    if candles.is_empty():
        return {}
    drawn = draw(candles, pivots, newest_line(pivots), stream.step, str(covered[-1]))
    return {"chart": picture(drawn, f"the last {SHOWN} candles of {stream}")}


def newest_line(pivots: pl.DataFrame) -> TrendLine | None:
    """The line through the last two L2 pivots of the side that was confirmed last; None before there are two."""
    second = pivots.filter(pl.col("level") == 2).sort("confirmed_at", "pivot_time")
    if second.is_empty():
        return None
    ends = second.filter(pl.col("side") == second["side"][-1]).sort("pivot_time").tail(2)
    if ends.height < 2:
        return None
    (start_time, start_price), (end_time, end_price) = ends.select("pivot_time", "price").rows()
    return line_through(start_time=start_time, start_price=start_price, end_time=end_time, end_price=end_price)


def draw(candles: pl.DataFrame, pivots: pl.DataFrame, line: TrendLine | None, step: timedelta, title: str) -> bytes:
    """A PNG of the candles, a mark per pivot (the larger, the higher its level) and the trend line."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.add_subplot()
    times, rising = candles["open_time"].to_list(), (candles["close"] >= candles["open"]).to_list()
    colours = [UP if up else DOWN for up in rising]
    axes.vlines(times, candles["low"], candles["high"], colors=colours, linewidth=0.7)
    axes.bar(times, candles["close"] - candles["open"], step * 0.7, candles["open"], color=colours, linewidth=0)
    seen = pivots.filter(pl.col("pivot_time") >= times[0])
    for level in range(1, 6):
        for side, mark, colour in (("low", "^", UP), ("high", "v", DOWN)):
            here = seen.filter((pl.col("level") == level) & (pl.col("side") == side))
            turns, prices = here["pivot_time"].to_list(), here["price"].to_list()
            axes.scatter(turns, prices, s=14 * level**1.5, c=colour, marker=mark, alpha=0.6)
    if line is not None:
        ends = (max(line.start_time, times[0]), times[-1] + step)
        axes.plot(ends, [line.price_at(moment) for moment in ends], color=LINE, linewidth=1.2)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(AutoDateLocator()))
    axes.set_title(f"{title}: marks are pivots, larger for higher levels", loc="left", fontsize=10)
    axes.grid(alpha=0.2)
    return as_png(figure)


def as_png(figure: "Figure") -> bytes:
    """The figure as the bytes of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    return image.getvalue()


def picture(png: bytes, title: str) -> dg.MetadataValue:
    """A PNG inside Markdown, as the UI shows it."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")
