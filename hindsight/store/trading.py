"""What the positions of models have earned, on paper and net of costs: sums per day in DuckDB, figures made of them."""

from dataclasses import fields

import duckdb
import polars as pl

from hindsight.inference.trading import TradingSums, combine
from hindsight.market.streams import Stream, Window
from hindsight.store.rows import OF_STREAM, select, stream_key

DAYS = 30  # UTC days that are looked back on, the newest among them
LEARNER = ("model", "venue", "symbol", "timeframe")
SUMS = tuple(field.name for field in fields(TradingSums))
FIGURES = {
    "decisions": pl.Int64,
    "net_return": pl.Float64,
    "sharpe": pl.Float64,
    "max_drawdown": pl.Float64,
    "hit_rate": pl.Float64,
    "turnover": pl.Float64,
    "time_in_market": pl.Float64,
}


def trading_scores(con: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Per model and stream: its first of the newest DAYS days, and what trading came to since (see `TradingSums`).

    decisions, net_return, sharpe (per year), max_drawdown, hit_rate, turnover (units per day), time_in_market. However
    long it has traded, no more than those days are read.
    """
    newest = "made_at >= (select date_trunc('day', max(made_at)) - to_days($days) from experiences)"
    return pl.DataFrame(
        [
            {**dict(zip(LEARNER, learner, strict=True)), "since": days["day"][0], **_figures(days)}
            for learner, days in _sums_by_day(con, newest, days=DAYS - 1).group_by(LEARNER, maintain_order=True)
        ],
        schema={**dict.fromkeys(LEARNER, pl.String), "since": pl.Date, **FIGURES},
    )


def trading_by_month(con: duckdb.DuckDBPyConnection, stream: Stream, window: Window) -> pl.DataFrame:
    """The same figures per UTC month of `window` (`month`: 2024-01) and model that trades on `stream`."""
    asked = f"{OF_STREAM} and made_at >= $start and made_at < $end"
    days = _sums_by_day(con, asked, **stream_key(stream), start=window.start, end=window.end)
    return pl.DataFrame(
        [
            {"month": month, "model": model, **_figures(part)}
            for (month, model), part in days.group_by(pl.col("day").dt.strftime("%Y-%m"), "model", maintain_order=True)
        ],
        schema={"month": pl.String, "model": pl.String, **FIGURES},
    ).sort("month", "model")


def _figures(days: pl.DataFrame) -> dict[str, float | None]:
    """The figures of consecutive days of one model and stream; null where one cannot be told."""
    total = combine(TradingSums(**day) for day in days.select(SUMS).iter_rows(named=True))
    found = {
        "decisions": total.candles,
        "net_return": total.net_return,
        "sharpe": total.sharpe(min(days["step_ms"].to_list())),
        "max_drawdown": total.max_drawdown,
        "hit_rate": total.hit_rate,
        "turnover": total.turnover / len(days),
        "time_in_market": total.time_in_market,
    }
    return {name: value if value == value else None for name, value in found.items()}


def _sums_by_day(con: duckdb.DuckDBPyConnection, asked: str, **params: object) -> pl.DataFrame:
    """The sums of `TradingSums` per model, stream and UTC day, and `step_ms`, how long a position is held at least, of
    the experiences that are `asked` for.
    """
    return select(
        con,
        f"""
        with steps as (
          select model, venue, symbol, timeframe, made_at, make_timestamp(epoch_us(made_at))::date as day,
                 epoch_ms(settled_at) - epoch_ms(made_at) as step_ms, reward::double as reward,
                 (action - 1) * (exp(log_return::double) - 1) as gain, action <> 1 as is_held,
                 abs(action - previous) as turnover,
                 if(reward > -1, ln(1 + reward::double), '-infinity'::double) as growth
          from experiences
          where {asked}),
        stood as (
          select *, sum(growth) over so_far as equity
          from steps
          window so_far as (partition by model, venue, symbol, timeframe, day order by made_at)),
        fell as (
          select *, greatest(0, max(equity) over so_far) - equity as fall
          from stood
          window so_far as (partition by model, venue, symbol, timeframe, day order by made_at))
        select model, venue, symbol, timeframe, day, min(step_ms) as step_ms, count(*) as candles,
               count(*) filter (is_held) as held, count(*) filter (gain > 0) as hits,
               sum(turnover)::bigint as turnover, sum(reward) as reward_sum, sum(reward * reward) as reward_square_sum,
               sum(gain - reward) as cost_sum, sum(growth) as log_growth, greatest(0, max(equity)) as log_peak,
               least(0, min(equity)) as log_low, max(fall) as log_drawdown
        from fell
        group by all
        order by all
        """,
        **params,
    )
